"""What a run leaves to the machine, its precision and its kernels: chosen once, recorded, and kept."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from magi_video.fast.kernel_choice import FAST_FLOAT32, LINEAR_KERNELS, settle_kernels, training_kernels
from magi_video.fast.precision import modern
from magi_video.fast.probes import Choice, choose_precision
from magi_video.files.json import read_json
from magi_video.recipe import Preset

CHOSEN = "chosen"
"""In a run's record: what was chosen, and why."""


@dataclass(frozen=True)
class Chosen:
    """What a machine chose for a run.

    Attributes:
        precision: of the transformer's products.
        why: it was chosen.
        fast_float32, linear_kernels: whether these kernels compute, on a CPU (`kernel_choice`).
    """

    precision: str
    why: str
    fast_float32: bool = False
    linear_kernels: bool = False

    def __str__(self) -> str:
        return f"precision: {self.precision} ({self.why})"

    @property
    def kernels(self) -> dict[str, bool]:
        """Name → whether it is used."""
        return {FAST_FLOAT32: self.fast_float32, LINEAR_KERNELS: self.linear_kernels}

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def settle_choices(preset: Preset, out: Path, device: torch.device, begun: bool) -> tuple[Preset, Chosen]:
    """The recipe with what "auto" means in this run, and why.

    Args:
        preset: as asked.
        out: the run's folder.
        device: that trains.
        begun: whether there are checkpoints; a run goes on as it began, even on a machine that is slow at it.
    """
    saved = read_json(out / "run.json") if begun and (out / "run.json").exists() else {}
    recipe, chosen = saved.get("preset"), saved.get(CHOSEN)
    recorded = None
    if isinstance(recipe, dict) and isinstance(train := recipe.get("train"), dict):
        recorded = modern(train.get("precision"))
    asked, reason = preset.train.precision, "as asked"
    if asked == "auto" and recorded in ("float32", "bf16"):
        asked, reason = recorded, "as the run began"
    choice: Choice = choose_precision(asked, device, "training", reason=reason)
    names = training_kernels(choice.precision) if device.type == "cpu" else []
    kernels = settle_kernels(names, kept=chosen if isinstance(chosen, dict) else None)
    settled = replace(preset, train=replace(preset.train, precision=choice.precision))
    return settled, Chosen(choice.precision, choice.why, **kernels)
