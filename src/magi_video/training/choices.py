"""What a run leaves to the machine, its precision and its kernels: chosen once, recorded, and kept."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from magi_video.fast.kernel_choice import FAST_FLOAT32, choose_kernels, settle_kernels, training_kernels
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
        kernels: name → whether it is asked for, of those that were chosen, on a CPU (`kernel_choice`).
    """

    precision: str
    why: str
    kernels: dict[str, bool] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"precision: {self.precision} ({self.why})"

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {"precision": self.precision, "why": self.why} | self.kernels


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
    if device.type == "cpu":
        settle_kernels([FAST_FLOAT32], kept=chosen)  # by which the precision is measured
    choice: Choice = choose_precision(asked, device, "training", reason=reason)
    names = training_kernels(choice.precision) if device.type == "cpu" else []
    settled = replace(preset, train=replace(preset.train, precision=choice.precision))
    return settled, Chosen(choice.precision, choice.why, choose_kernels(names, chosen))
