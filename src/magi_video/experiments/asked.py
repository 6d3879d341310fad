"""What may be asked of `magi reproduce`: recipes with rows, drift's rows, and the checks that need no PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from magi_video.errors import MagiError
from magi_video.experiments.rows import Row

TABLE1, STARTS, OWN_PAST, DRIFT = BY_ROWS = ("table1", "starts", "own-past", "drift")
"""Recipes whose rows can be chosen, and which "all" leaves out."""
DRIFT_WORLDS = ("balls", "coinrun")


@dataclass(frozen=True)
class DriftRow:
    """A row of the comparison of cures for drift.

    Attributes:
        variant: what is trained, as `experiments.runs` names it.
        sampling: what its rollouts ask for besides the model's own sampling.
    """

    variant: str
    sampling: dict[str, Any] = field(default_factory=dict)


DRIFT_ROWS = {
    "none": DriftRow("exposure-none"),
    "noise": DriftRow("complete"),
    "noisy-past": DriftRow("complete", {"past_level": 2, "past_noise": 0.28}),
    "resampling": DriftRow("exposure-resampling"),
    "error-bank": DriftRow("exposure-error-bank"),
    "canvas": DriftRow("exposure-canvas"),
}
"""By name. `noise` is table 1's row `complete`; `noisy-past` the same models with a past of level 2 of 5 in
rollouts."""


def check_asked(recipe: str, seeds: Sequence[int], rows: Sequence[str] | None, worlds: Sequence[str]) -> None:
    """Refuse seeds, rows or worlds that a recipe cannot have.

    Args:
        recipe: by name.
        seeds: of the training runs.
        rows: of a recipe of `BY_ROWS`; None for all.
        worlds: by name.

    Raises:
        MagiError: what it cannot have, and what was expected.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise MagiError(f"seeds {list(seeds)}; expected different numbers from 0")
    if rows is not None and recipe not in BY_ROWS:
        raise MagiError(f"rows are of the recipes {', '.join(BY_ROWS)}, not of {recipe}")
    for row in rows or ():
        if recipe != DRIFT:
            Row.parse(row)
        elif row not in DRIFT_ROWS:
            raise MagiError(f"{DRIFT} has no row {row!r}; expected some of {', '.join(DRIFT_ROWS)}")
    if recipe == DRIFT and not set(worlds) & set(DRIFT_WORLDS):
        raise MagiError(f"{DRIFT} is measured in {' and '.join(DRIFT_WORLDS)}; got worlds {', '.join(worlds)}")
