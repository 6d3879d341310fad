"""Options of a benchmark. Does not import PyTorch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from magi_video.errors import MagiError
from magi_video.fast.engine_name import AskedEngine
from magi_video.fast.precision import Precision
from magi_video.files.weights import is_hub_id, is_local, shipped_models
from magi_video.presets import PRESETS
from magi_video.sampling.sampling import Sampling
from magi_video.settings import Items, settings

Part = Literal["generate", "train", "uncached", "profile"]


@settings
class BenchOptions:
    """What is measured, and how."""

    parts: Annotated[tuple[Part, ...], Items, Field(min_length=1)] = ("generate", "train")
    """What to measure: generate; train; uncached (generation without the cache beside it); profile (where time goes
    in what else is named)."""
    sampling: Sampling = Sampling()
    """How a frame is sampled; by default with the subject's own steps."""
    frames: Annotated[int, Field(ge=1)] = 32
    """Latent frames to generate and time, after one given frame."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Videos made together."""
    train_batch: Annotated[int, Field(ge=1)] | None = None
    """Clips of a training step; by default the preset's own number, halved until memory and time allow."""
    train_steps: Annotated[int, Field(ge=1)] = 4
    """Training steps to time."""
    uncached_frames: Annotated[int, Field(ge=1)] = 16
    """Frames to generate without the cache; time grows with their square."""
    precision: Precision = "auto"
    """Of the weights in generation, of autocast in training; auto as the other commands choose it on this machine."""
    engine: AskedEngine = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; by default one for a small model's generation or training, else all cores."""
    device: str = "auto"
    """auto, cpu or cuda."""


def check_subject(name: str) -> None:
    """Raise a `MagiError` unless a name may be that of a model or of a preset."""
    if not (is_local(name) or name in PRESETS or Path(name).is_file() or is_hub_id(name)):
        raise MagiError(
            f"no model or preset {name!r}: models are a folder, a hub id, or {', '.join(shipped_models())}; "
            f"presets are {', '.join(PRESETS)}, or a JSON file"
        )
