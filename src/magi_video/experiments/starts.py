"""Unconditional, first-frame and several-frame generation by one model (paper, Table 1: "variable context").

Each model of table 1 begins from nothing, from one frame and from as many as its world gives. What it must beat is made
of the true clips: with frames given, the last of them held; with none, a still frame and frames out of order.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from magi_video.evaluation.baselines import baselines
from magi_video.experiments.clips import every
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.rows import Row, all_rows
from magi_video.experiments.sheets import SHEET_CLIPS, write_sheet
from magi_video.experiments.table1 import Keep, refusal
from magi_video.experiments.table1_report import DECIDING, flat
from magi_video.experiments.verdicts import start_verdict

GIVEN = (0, 1, 5)
"""Frames that are given."""


def starts(
    m: Measures, seeds: Sequence[int], rows: Sequence[str] | None = None, keep: Keep = lambda figures: None
) -> Scores:
    """Score what each row makes of each start, after equal steps; models that are not there are trained.

    Args:
        m: the world's measures.
        seeds: of the training runs.
        rows: as `experiments.rows` writes them; all if not given.
        keep: called with the figures as they stand whenever a start has been scored.

    Returns:
        n, frames, train_steps; starts: number of given frames → references (name → scores) and rows: row → seeds,
        fvd, fvd_interval, oracle (lists, one of each seed) and verdict, or refused: why the row cannot begin so.
    """
    chosen = [Row.parse(name) for name in (all_rows() if rows is None else rows)]
    figures: dict[str, Any] = {"n": len(m.context), "frames": m.world.frames, "starts": {}}
    figures["train_steps"] = m.world.preset.train.steps
    for given in GIVEN:
        references = {name: reference(m, given, name) for name in ("floor", *to_beat(given))}
        found = {row.name: score_row(m, row, seeds, given, references) for row in chosen}
        figures["starts"][str(given)] = {"references": references, "rows": found}
        write_sheet(m.folder / f"starts-{given}.png", sheet_rows(m, chosen, seeds[0], given))
        keep(figures)
    return figures


def to_beat(given: int) -> tuple[str, ...]:
    """The clips that a model must be better than, from so many given frames (docs/preregistration.md, claim f)."""
    return ("copy_last",) if given else ("still", "shuffled")


def reference(m: Measures, given: int, name: str) -> Scores:
    """The scores of clips that need no model, as continuations of so many frames."""
    change = (lambda clip, index: clip) if name == "floor" else baselines(given, None)[name]
    key = f"{name}-start{given}" if name == "copy_last" and given != m.world.given else name
    return scores(m, key, every(change)(m.context), given)


def scores(m: Measures, name: str, clips: np.ndarray, given: int) -> Scores:
    """FVD with its interval; the oracle's means, where the world has one and frames are given."""
    scored = m.score(name, lambda: clips)
    kept = {key: scored[key] for key in ("fvd", "fvd_interval")}
    if given:
        read = f"floor-start{given}" if name == "floor" and given != m.world.given else name
        kept |= {key: flat(value) for key, value in m.oracle(read, lambda: clips, given).items()}
    return kept


def score_row(m: Measures, row: Row, seeds: Sequence[int], given: int, references: dict[str, Scores]) -> Scores:
    """One row from one start, every seed."""
    if (why := refusal(row, given, m.world.frames)) is not None:
        return {"refused": why}
    runs = [scores(m, sample_name(m, row, seed, given), samples(m, row, seed, given), given) for seed in seeds]
    beaten = [references[name] for name in to_beat(given)]
    compared = {"FVD": ([run["fvd"] for run in runs], [one["fvd"] for one in beaten])}
    if DECIDING in runs[0].get("oracle", {}):
        compared[DECIDING] = ([run["oracle"][DECIDING] for run in runs], [one["oracle"][DECIDING] for one in beaten])
    columns = {key: [run[key] for run in runs] for key in runs[0]}
    return {"seeds": list(seeds), **columns, "verdict": str(start_verdict(compared))}


def sample_name(m: Measures, row: Row, seed: int, given: int) -> str:
    """Under which a row's clips are kept: those from the world's own start are table 1's."""
    own = f"{row.key}-seed{seed}-step{m.world.preset.train.steps}"
    return own if given == m.world.given else f"{own}-start{given}"


def samples(m: Measures, row: Row, seed: int, given: int) -> np.ndarray:
    """A row's clips from one start."""
    model = m.workplace.model(row.name, seed, m.world.preset.train.steps)
    return m.samples(sample_name(m, row, seed, given), model, given=given)


def sheet_rows(m: Measures, rows: Sequence[Row], seed: int, given: int) -> Iterator[tuple[str, np.ndarray]]:
    """The same clips from the same start by every row that can begin so."""
    for clip in range(min(SHEET_CLIPS, len(m.context))):
        if given:
            yield f"clip {clip}: true ({given} given)", m.context[clip]
        for row in rows:
            if refusal(row, given, m.world.frames) is None:
                yield f"{row.name}, seed {seed}, {given or 'none'} given", samples(m, row, seed, given)[clip]
