"""Where a row's error comes from: the next frame behind the true past, and the same frame behind its own.

The last frame of each clip is made twice: after all true frames before it, and at the end of the row's own
continuation. What is wrong with the first is the model's forecast of one frame; what the second has more is what it
does with frames that it made itself.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from magi_video.errors import MagiError
from magi_video.evaluation.baselines import copy_last
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.plots import legend_beside, line_of, new_figure
from magi_video.experiments.rows import Row, all_rows
from magi_video.experiments.starts import sample_name, samples
from magi_video.experiments.table1 import Keep, refusal
from magi_video.experiments.table1_report import DECIDING, mean_known
from magi_video.experiments.tables import cell, table

Figures = dict[str, Any]


def own_past(
    m: Measures, seeds: Sequence[int], rows: Sequence[str] | None = None, keep: Keep = lambda figures: None
) -> Scores:
    """Read the last frame of every clip behind both pasts, after equal steps; models that are not there are trained.

    Args:
        m: the world's measures; it needs an oracle.
        seeds, rows: as of `starts`.
        keep: called with the figures as they stand whenever a row has been read.

    Returns:
        given: frames of its own start, and of the true past; seeds; errors: row → a list, one of each seed, of `true`
        and `own` (score of the oracle → of the last frame) and `by_frame` (score → of each frame of its own
        continuation). The row `copy_last` repeats the last frame that is given.

    Raises:
        MagiError: the world has no oracle.
    """
    if m.world.oracle is None:
        raise MagiError(f"world {m.world.name!r} has no oracle that reads its frames")
    given, frames = m.world.given, m.world.frames
    errors = {"copy_last": [both(m, partial(held_name, m), partial(held, m))]}
    figures: Figures = {"given": [given, frames - 1], "seeds": list(seeds), "errors": errors}
    for row in (Row.parse(name) for name in (all_rows() if rows is None else rows)):
        if refusal(row, given, frames) is None:
            errors[row.name] = [
                both(m, partial(sample_name, m, row, seed), partial(samples, m, row, seed)) for seed in seeds
            ]
            keep(figures)
    return figures


def both(m: Measures, name: Callable[[int], str], clips: Callable[[int], np.ndarray]) -> Scores:
    """What the oracle reads behind both pasts, of clips and their name by how many frames are given."""
    read = {}
    for given in (m.world.given, m.world.frames - 1):
        m.workplace.watched.stage(f"{m.world.name}: reading {name(given)}")
        read[given] = m.oracle(name(given), partial(clips, given), given)["oracle"]["per_frame"]
    own, true = read.values()
    return {
        "true": {score: values[-1] for score, values in true.items()},
        "own": {score: values[-1] for score, values in own.items()},
        "by_frame": own,
    }


def held(m: Measures, given: int) -> np.ndarray:
    """The last of the given frames, held."""
    return np.stack([copy_last(clip, given) for clip in m.context])


def held_name(m: Measures, given: int) -> str:
    """Under which these clips are kept."""
    return "copy_last" if given == m.world.given else f"copy_last-start{given}"


def page(figures: Figures) -> str:
    """Every row's error of the last frame behind both pasts; of several seeds the mean."""
    score = deciding(figures)
    lines = []
    for name, runs in figures["errors"].items():
        true, own = (mean_known([run[past][score] for run in runs]) for past in ("true", "own"))
        lines.append(["*copy-last*" if name == "copy_last" else f"`{name}`", cell(true), cell(own)])
    start, true_frames = figures["given"]
    head = [f"error of {score}", f"{true_frames} true frames before", f"{start} true, then its own"]
    return table(head, lines)


def deciding(figures: Figures) -> str:
    """The oracle's score that decides in this world, or its first."""
    scores = figures["errors"]["copy_last"][0]["own"]
    return DECIDING if DECIDING in scores else next(iter(scores))


def curves(figures: Figures) -> Figure:
    """The deciding error by frame of each row's own continuation; a cross where the past was true."""
    score = deciding(figures)
    figure, (axis,) = new_figure(1)
    start, last = figures["given"]
    for place, (name, runs) in enumerate(figures["errors"].items()):
        look: dict[str, Any] = {"color": "0.35"} if name == "copy_last" else line_of(place - 1)
        for which, run in enumerate(runs):
            values = [np.nan if value is None else value for value in run["by_frame"][score]]
            axis.plot(range(start, last + 1), values, label=name if which == 0 else None, **look)
            axis.plot([last], [run["true"][score]], "x", color=look["color"])
    axis.set_xlabel("frame; a cross: the last one behind the true past")
    axis.set_ylabel(f"error of {score}")
    axis.set_ylim(bottom=0)
    legend_beside(figure, axis)
    return figure
