"""`magi reproduce drift`: the cures for drift (`magi_video.exposure`), compared in rollouts far longer than training.

Every cure is trained by the world's own recipe, to equal steps, and rolled out once, for the longest of the lengths.
Windows of frames are scored at the beginning of the rollouts and at the end of each length, all against the same real
clips, so that late minus early is what was lost on the way: the drift Δ.

Everything lies in files under OUT/WORLD/: rollouts in parts, features, scores. A stopped call goes on where it was, and
`--rows` and `--seeds` may come in any order; the table is made of what is there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from magi_video.evaluation.baselines import baselines
from magi_video.experiments.asked import DRIFT, DRIFT_ROWS, DriftRow, check_asked
from magi_video.experiments.clips import Clips, every
from magi_video.experiments.inverse import Keys, score_keys
from magi_video.experiments.long import LongSet, long_set
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.oracle import balls
from magi_video.experiments.rollout import sharpness, speed
from magi_video.experiments.sheets import write_sheet
from magi_video.files.atomic import write_json
from magi_video.files.json import read_json

WINDOWS = 2
"""Of a rollout, one after the other, at its beginning and at each end."""
PART = 8
"""Rollouts that are made together and kept in one file."""
SHEET_ROLLOUTS, SHEET_STRIDE = 2, 4
Keep = Callable[[Scores], None]


@dataclass(frozen=True)
class Windows:
    """Which frames of a rollout are scored.

    Attributes:
        given: frames before the first that is generated.
        size: frames of a window.
        lengths: of the rollouts that are compared.
    """

    given: int
    size: int
    lengths: tuple[int, ...]

    @property
    def early(self) -> list[int]:
        """First frames of the windows at the beginning, behind the given frames."""
        return [self.given + place * self.size for place in range(WINDOWS)]

    def late(self, length: int) -> list[int]:
        """First frames of the windows at the end of a length; one window where two do not fit."""
        return [start for place in range(WINDOWS, 0, -1) if (start := length - place * self.size) >= 0]

    @property
    def frames(self) -> list[int]:
        """Frames of all windows."""
        starts = {*self.early, *(start for length in self.lengths for start in self.late(length))}
        return sorted({frame for start in starts for frame in range(start, start + self.size)})

    def cut(self, kept_NKHWC: Clips, starts: Sequence[int]) -> Clips:
        """Windows of rollouts of which `frames` were kept, as clips: the first window of each, then the next."""
        return cut(kept_NKHWC, [self.frames.index(start) for start in starts], self.size)


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
    chosen = list(DRIFT_ROWS) if rows is None else list(rows)
    windows = Windows(world.given, world.frames, world.rollout_lengths)
    real = long_set(m.workplace, windows.lengths[-1], windows.early[-1] + windows.size)
    references = score_references(m, windows, real)
    for seed in seeds:
        for name in chosen:
            score_row(m, windows, real, name, seed)
            keep(collect(m, references))
    figures = collect(m, references)
    frames = len(windows.lengths) * -(-windows.size // SHEET_STRIDE)
    write_sheet(m.folder / f"{DRIFT}.png", sheet_rows(m, windows, figures), frames)
    return figures


def score_row(m: Measures, windows: Windows, real: LongSet, name: str, seed: int) -> None:
    """Roll one model out and score it at its beginning and at every length."""
    steps, key = m.world.preset.train.steps, f"{DRIFT}-{name}-seed{seed}"
    kept = partial(roll_out, m, windows, real, f"{key}-step{steps}", DRIFT_ROWS[name], seed)
    early, *late = (
        score_windows(m, windows, real, f"{key}-{label}", lambda starts: windows.cut(kept(), starts), starts)
        for label, starts in spans(windows)
    )
    by_length = dict(zip(map(str, windows.lengths), late, strict=True))
    figures = {"row": name, "seed": seed, "steps": steps, "early": early, "late": by_length}
    write_json(m.folder / DRIFT / f"{name}-seed{seed}.json", figures)


def spans(windows: Windows) -> list[tuple[str, list[int]]]:
    """Name and first frames of the windows at the beginning, and of those at the end of each length."""
    return [("early", windows.early), *((f"late{length}", windows.late(length)) for length in windows.lengths)]


def roll_out(m: Measures, windows: Windows, real: LongSet, name: str, row: DriftRow, seed: int) -> Clips:
    """The kept frames of a model's rollouts, uint8 `[N, K, H, W, 3]`; a part that is there is not made again."""
    model = m.workplace.model(row.variant, seed, m.world.preset.train.steps)
    parts = [
        m.array("samples", f"{name}-part{first // PART}", partial(roll_part, m, windows, real, model, row, first))
        for first in range(0, len(real.given), PART)
    ]
    return np.concatenate(parts)


def roll_part(m: Measures, windows: Windows, real: LongSet, model: Path, row: DriftRow, first: int) -> Clips:
    """`PART` rollouts from the given frames of the videos `first`, …, under the keys that are held, if there are any.

    A frame is dropped as soon as no window wants it.
    """
    pipe = m.load(model)
    given, length, wanted = real.given[first : first + PART], windows.lengths[-1], set(windows.frames)
    actions_TNA = real.actions_for(list(pipe.config.action_names))
    display = m.workplace.watched
    display.stage(f"{m.world.name}: rollouts {first + 1}…{first + len(given)} of {row.variant}", length)
    stream = pipe.stream(
        video=given,
        num_frames=length,
        interval=m.world.interval,
        actions=None if actions_TNA is None else actions_TNA[:length, first : first + len(given)],
        generator=[torch.Generator().manual_seed(first + place) for place in range(len(given))],
        **row.sampling,
    )
    kept: list[np.ndarray] = []
    for number, frame_BHWC in enumerate(stream):
        if number in wanted:
            kept.append((np.asarray(frame_BHWC) * 255).round().astype(np.uint8))
        display.advance(number + 1)
    return np.stack(kept, axis=1)


def score_windows(
    m: Measures,
    windows: Windows,
    real: LongSet,
    name: str,
    clips_at: Callable[[Sequence[int]], Clips],
    starts: Sequence[int],
) -> Scores:
    """FVD against the world's reference set and its interval, change by frame, sharpness, what the oracle reads."""

    def compute() -> Scores:
        clips = clips_at(starts)
        scores = m.frechet(name, lambda: clips, len(starts))
        scores |= {"change": round(speed(clips), 3), "sharpness": round(sharpness(clips), 3)}
        return scores | {"oracle": read_oracle(m, clips, real, starts, windows.size)}

    return m.kept_figures(f"{name}-windows", compute)


def read_oracle(m: Measures, clips: Clips, real: LongSet, starts: Sequence[int], size: int) -> Scores:
    """The oracle's scores of windows, as `Measures.oracle` gives them for continuations.

    In the world of balls the true frames of the same numbers are what is compared with; the share of keys that are read
    from the pixels is compared with those that were held.
    """
    if m.world.oracle == "balls":
        return balls(clips, cut(real.true, starts, size), 0)
    assert real.actions is not None
    held_TNA = np.concatenate([real.actions[start : start + size] for start in starts], axis=1)
    return score_keys(m.inverse_dynamics, clips, Keys.read(held_TNA.transpose(1, 0, 2), real.names), 2)


def score_references(m: Measures, windows: Windows, real: LongSet) -> Scores:
    """The rows that need no model, of the true videos as far as these go.

    Returns:
        name → {"early": scores, "late": length → scores}; of rows that do not change with time, "early" alone.
    """
    rows: dict[str, Callable[[Clips], Clips]] = {"real": lambda clips: clips}
    rows |= {name: every(change) for name, change in baselines(m.world.given, m.codec).items()}
    found: Scores = {}
    for name, change in rows.items():
        changes_with_time = name in ("real", "codec")
        m.workplace.watched.stage(f"{m.world.name}: scoring {name}")

        def clips_at(starts: Sequence[int], change: Callable[[Clips], Clips] = change, name: str = name) -> Clips:
            if name in ("still", "copy_last"):  # what they hold is from before the window
                return cut(change(real.true[:, : starts[-1] + windows.size]), starts, windows.size)
            return change(cut(real.true, starts, windows.size))

        reached = [
            (label, starts)
            for label, starts in spans(windows)
            if label == "early" or (changes_with_time and starts[-1] + windows.size <= real.true.shape[1])
        ]
        early, *late = (
            score_windows(m, windows, real, f"{DRIFT}-{name}-{label}", clips_at, starts) for label, starts in reached
        )
        lengths = [label.removeprefix("late") for label, _ in reached[1:]]
        found[name] = {"early": early, "late": dict(zip(lengths, late, strict=True))}
    return found


def cut(clips_NTHWC: Clips, starts: Sequence[int], size: int) -> Clips:
    """Windows of clips: the first window of each, then the next."""
    return np.concatenate([clips_NTHWC[:, start : start + size] for start in starts])


def collect(m: Measures, references: Scores) -> Scores:
    """The table of everything that the world's folder holds.

    Returns:
        references: as of `score_references`; rollouts; given, window, lengths, steps; oracle: its name; runs: row →
        list of what each seed left, in the order of seeds.
    """
    runs: dict[str, list[Scores]] = {}
    for name in DRIFT_ROWS:
        files = (m.folder / DRIFT).glob(f"{name}-seed*.json")
        if found := sorted((read_json(path) for path in files), key=lambda one: one["seed"]):
            runs[name] = found
    world = m.world
    return {
        "references": references,
        "rollouts": world.rollouts,
        "given": world.given,
        "window": world.frames,
        "lengths": list(world.rollout_lengths),
        "steps": world.preset.train.steps,
        "oracle": world.oracle,
        "runs": runs,
    }


def sheet_rows(m: Measures, windows: Windows, figures: Scores) -> Iterator[tuple[str, np.ndarray]]:
    """Of the first rollouts of each row some frames of the last window of each length."""
    starts = [windows.late(length)[-1] for length in windows.lengths]
    for rollout in range(SHEET_ROLLOUTS):
        for name, runs in figures["runs"].items():
            part = f"{DRIFT}-{name}-seed{runs[0]['seed']}-step{runs[0]['steps']}-part0.npy"
            path = m.folder / "samples" / part
            if path.is_file():
                kept = np.load(path, allow_pickle=False, mmap_mode="r")[rollout : rollout + 1]
                label = f"{name}, rollout {rollout}: every {SHEET_STRIDE}th frame from {', '.join(map(str, starts))}"
                yield label, np.concatenate(list(windows.cut(kept, starts)[:, ::SHEET_STRIDE]))
