"""`magi reproduce rollout`: models trained on 16 frames generate 256 (paper, Fig. 6), with the paper's interpolated
positions and with rotary ones.

Windows of frames are scored along the rollouts, against the world's reference clips and the true videos' own windows.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from magi_video.experiments.asked import ROLLOUT, ROLLOUT_ROWS, check_asked
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.rollouts import (
    SHEET_ROLLOUTS,
    SHEET_STRIDE,
    Keep,
    Rollouts,
    Windows,
    described,
    kept_runs,
    run_name,
)
from magi_video.experiments.sheets import write_sheet
from magi_video.files.atomic import write_json

ROLLOUTS = 48
STARTS = (32, 64, 104, 240)
"""First frames of the windows, besides the one behind the given frames."""


def rollout(
    m: Measures, seeds: Sequence[int], rows: Sequence[str] | None = None, keep: Keep = lambda figures: None
) -> Scores:
    """Train, roll out and score; what is there already is kept.

    Args:
        m: the world's measures.
        seeds: of the training runs.
        rows: names of `ROLLOUT_ROWS`; all if not given.
        keep: called with the figures as they stand whenever a run has been scored.

    Returns:
        The figures of everything that the world's folder holds; see `collect`.

    Raises:
        MagiError: the world is none that the recipe is meant for, or a row is none of `ROLLOUT_ROWS`.
    """
    world = m.world
    check_asked(ROLLOUT, seeds, rows, [world.name])
    starts = [world.given, *(start for start in STARTS if start + world.frames <= world.long_frames)]
    windows = Windows(world.frames, {str(start): [start] for start in starts})
    count = min(ROLLOUTS, world.episodes)
    length = world.long_frames
    files = f"{ROLLOUT}-{length}"  # not "rollout" alone, which an earlier recipe's files of the same windows have
    rollouts = Rollouts(m, files, windows, count=count, length=length, least_true=length)
    references = rollouts.references()
    steps = world.preset.train.steps
    for seed in seeds:
        for name in ROLLOUT_ROWS if rows is None else rows:
            model = partial(m.workplace.model, ROLLOUT_ROWS[name], seed, steps)
            scores = rollouts.score(run_name(name, seed, steps), model)
            figures = {"row": name, "seed": seed, "steps": steps, "windows": scores}
            write_json(m.folder / ROLLOUT / f"{name}-seed{seed}.json", figures)
            keep(collect(rollouts, references))
    figures = collect(rollouts, references)
    frames = len(starts) * -(-windows.size // SHEET_STRIDE)
    write_sheet(m.folder / f"{ROLLOUT}.png", sheet_rows(rollouts, figures), frames)
    return figures


def collect(rollouts: Rollouts, references: Scores) -> Scores:
    """The figures of everything that the world's folder holds.

    Returns:
        references: name → first frame of a window → scores; rollouts; length; given, window, steps; oracle: its name;
        runs: row → list of what each seed left (`windows`: first frame → scores), in the order of seeds.
    """
    world = rollouts.m.world
    return {
        "references": references,
        "rollouts": len(rollouts.real.given),
        "length": rollouts.length,
        **described(world),
        "runs": kept_runs(rollouts.m.folder / ROLLOUT, ROLLOUT_ROWS, world.preset.train.steps),
    }


def sheet_rows(rollouts: Rollouts, figures: Scores) -> Iterator[tuple[str, np.ndarray]]:
    """Some frames of every window: of the first true videos, and of the first rollouts of each row."""
    windows, real = rollouts.windows, rollouts.real.true
    starts = ", ".join(windows.spans)
    for place in range(SHEET_ROLLOUTS):
        kept = {"true": real[place : place + 1][:, windows.frames]}
        for name, runs in figures["runs"].items():
            part = rollouts.part(run_name(name, runs[0]["seed"], runs[0]["steps"]))
            path = rollouts.m.folder / "samples" / f"{part}.npy"
            if path.is_file():
                kept[name] = np.load(path, allow_pickle=False, mmap_mode="r")[place : place + 1]
        for name, frames in kept.items():
            shown = [windows.cut(frames, label)[0, ::SHEET_STRIDE] for label in windows.spans]
            yield f"{name}, rollout {place}: every {SHEET_STRIDE}th frame from {starts}", np.concatenate(shown)
