"""`magi reproduce drift`: the cures for drift (`magi_video.exposure`), compared in rollouts far longer than training.

Every cure is trained by the world's own recipe, to equal steps, and rolled out once, for the longest of the lengths.
Windows of frames are scored at the beginning of the rollouts and at the end of each length, all against the same real
clips, so that late minus early is what was lost on the way: the drift Δ.

`--rows` and `--seeds` may come in any order; the table is made of what is there.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from magi_video.experiments.asked import DRIFT, DRIFT_ROWS, check_asked
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.rollouts import (
    EARLY,
    SHEET_ROLLOUTS,
    SHEET_STRIDE,
    Keep,
    Rollouts,
    described,
    kept_runs,
    run_name,
    split,
    windows_of,
)
from magi_video.experiments.sheets import write_sheet
from magi_video.files.atomic import write_json


def drift(
    m: Measures, seeds: Sequence[int], rows: Sequence[str] | None = None, keep: Keep = lambda figures: None
) -> Scores:
    """Train, roll out and score the cures; what is there already is kept.

    Args:
        m: the world's measures.
        seeds: of the training runs.
        rows: names of `DRIFT_ROWS`; all if not given.
        keep: called with the table as it stands whenever a run has been scored.

    Returns:
        The table of everything that the world's folder holds; see `collect`.

    Raises:
        MagiError: the world is none of `DRIFT_WORLDS`, or a row is none of `DRIFT_ROWS`.
    """
    world = m.world
    check_asked(DRIFT, seeds, rows, [world.name])
    windows, lengths = windows_of(world.given, world.frames, world.rollout_lengths), world.rollout_lengths
    rollouts = Rollouts(m, DRIFT, windows, count=world.rollouts, length=lengths[-1], least_true=windows.end(EARLY))
    references = {name: split(scores) for name, scores in rollouts.references().items()}
    for seed in seeds:
        for name in DRIFT_ROWS if rows is None else rows:
            score_row(rollouts, name, seed)
            keep(collect(m, references))
    figures = collect(m, references)
    frames = len(lengths) * -(-windows.size // SHEET_STRIDE)
    write_sheet(m.folder / f"{DRIFT}.png", sheet_rows(rollouts, figures), frames)
    return figures


def score_row(rollouts: Rollouts, name: str, seed: int) -> None:
    """Roll one model out and score it at its beginning and at every length."""
    m, row = rollouts.m, DRIFT_ROWS[name]
    steps = m.world.preset.train.steps
    model = partial(m.workplace.model, row.variant, seed, steps)
    scores = split(rollouts.score(run_name(name, seed, steps), model, row.sampling))
    write_json(m.folder / DRIFT / f"{name}-seed{seed}.json", {"row": name, "seed": seed, "steps": steps} | scores)


def collect(m: Measures, references: Scores) -> Scores:
    """The table of everything that the world's folder holds.

    Returns:
        references: name → {"early": scores, "late": length → scores}; rollouts; given, window, lengths, steps; oracle:
        its name; runs: row → list of what each seed left, in the order of seeds.
    """
    world = m.world
    return {
        "references": references,
        "rollouts": world.rollouts,
        "lengths": list(world.rollout_lengths),
        **described(world),
        "runs": kept_runs(m.folder / DRIFT, DRIFT_ROWS, world.preset.train.steps),
    }


def sheet_rows(rollouts: Rollouts, figures: Scores) -> Iterator[tuple[str, np.ndarray]]:
    """Of the first rollouts of each row some frames of the last window of each length."""
    windows, labels = rollouts.windows, [str(length) for length in figures["lengths"]]
    starts = ", ".join(str(windows.spans[label][-1]) for label in labels)
    for place in range(SHEET_ROLLOUTS):
        for name, runs in figures["runs"].items():
            part = rollouts.part(run_name(name, runs[0]["seed"], runs[0]["steps"]))
            path = rollouts.m.folder / "samples" / f"{part}.npy"
            if path.is_file():
                kept = np.load(path, allow_pickle=False, mmap_mode="r")[place : place + 1]
                frames = [windows.cut(kept, label)[-1, ::SHEET_STRIDE] for label in labels]
                yield f"{name}, rollout {place}: every {SHEET_STRIDE}th frame from {starts}", np.concatenate(frames)
