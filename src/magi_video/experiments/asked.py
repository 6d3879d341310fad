"""What may be asked of `magi reproduce`: recipes with rows, drift's rows, and the checks that need no PyTorch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from magi_video.errors import MagiError
from magi_video.experiments.rows import Row

TABLE1, STARTS, OWN_PAST, DRIFT, ROLLOUT, ABLATION = BY_ROWS = (
    "table1", "starts", "own-past", "drift", "rollout", "ablation",
)  # fmt: skip
"""Recipes whose rows can be chosen, and which "all" leaves out."""
WORLDS = {DRIFT: ("balls", "coinrun"), ROLLOUT: ("balls",), ABLATION: ("balls",)}
"""Where a recipe is measured; the others of `BY_ROWS` in every world."""


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

ROLLOUT_ROWS = {"rope": "complete", "interpolate": "complete-interpolate"}
"""Row of `rollout` → what is trained, as `experiments.runs` names it."""
ABLATION_ROWS = tuple(
    f"{forcing}{guard}" for forcing in ("complete", "masked") for guard in ("", "-no-interval", "-no-noise", "-no-both")
)
"""Rows of `ablation`, which are what is trained."""
OWN_ROWS: dict[str, Iterable[str]] = {DRIFT: DRIFT_ROWS, ROLLOUT: ROLLOUT_ROWS, ABLATION: ABLATION_ROWS}
"""Recipes whose rows are not paradigms."""


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
        if recipe not in OWN_ROWS:
            Row.parse(row)
        elif row not in OWN_ROWS[recipe]:
            raise MagiError(f"{recipe} has no row {row!r}; expected some of {', '.join(OWN_ROWS[recipe])}")
    if (meant := WORLDS.get(recipe)) and not set(worlds) & set(meant):
        raise MagiError(f"{recipe} is measured in {' and '.join(meant)}; got worlds {', '.join(worlds)}")
