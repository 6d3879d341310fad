"""Options of distilling a few-step head. Does not import PyTorch."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from magi_video.errors import MagiError
from magi_video.models.architecture import check_interval
from magi_video.pipeline.asked import read_local
from magi_video.settings import settings


@settings
class DistillOptions:
    """How a few-step head is made of a model's own."""

    denoise_steps: Annotated[int, Field(ge=1, le=1000)] = 2
    """Denoise steps of the result where nothing else is asked for. It is trained for any number; 1 to 4 are meant."""
    steps: Annotated[int, Field(ge=1, le=10**7)] = 4000
    """Optimiser steps."""
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 1024
    """Tokens in an optimiser step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Highest; it rises over the first 100 steps, and falls to 0 along a cosine."""
    tokens: Annotated[int, Field(ge=16, le=10**8)] = 32_768
    """Tokens whose conditions are kept, and of which the model's own head makes samples. An eighth of them, 1,024 at
    most, is not trained on: by these the new head is compared with the old one."""
    draws: Annotated[int, Field(ge=2, le=1024)] = 4
    """Samples of the model's own head for each of these tokens."""
    rollouts: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the tokens that come from the model's own rollouts, at the mask steps of exact, balanced and realtime in
    turn; the others are masked as in training, after the true frames."""
    clips: Annotated[int, Field(ge=1, le=1024)] = 16
    """Clips that are read or generated together."""
    max_interval: Annotated[int, Field(ge=1)] | None = None
    """Largest interval of clips, at most that of the model's training, which it is if not given."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of everything random."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def check_model(self, model: str) -> None:
        """Raise a `MagiError` unless a model on this machine was trained for the interval; nothing is loaded."""
        if self.max_interval is not None and (found := read_local(model)) is not None:
            check_interval(self.max_interval, found[1].max_interval, "max_interval")


def check_new(out: Path) -> None:
    """Raise a `MagiError` if a folder holds a model already."""
    if (out / "model_index.json").exists():
        raise MagiError(f"{out}: there is a model already; give another --out")
