"""Rollouts far longer than a clip, and windows of them: made in parts, scored against the world's reference clips.

Everything lies in files under OUT/WORLD/, whose names begin with the recipe's; a stopped call goes on where it was.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_video.errors import MagiError
from magi_video.evaluation.baselines import baselines
from magi_video.evaluation.measures import clip_motion
from magi_video.experiments.clips import Clips, every
from magi_video.experiments.inverse import Keys, score_keys
from magi_video.experiments.long import LongSet, long_set
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.oracle import balls
from magi_video.experiments.worlds import World
from magi_video.files.json import read_json

WINDOWS = 2
"""Of a rollout, one after the other, at its beginning and at each end."""
EARLY = "early"
SHEET_ROLLOUTS, SHEET_STRIDE = 2, 4
Keep = Callable[[Scores], None]
PART = 8
"""Rollouts that are made together and kept in one file."""
UNTIL_NOW = ("still", "copy_last")
"""References whose frames are all from before the window."""
WITH_TIME = ("real", "codec", *UNTIL_NOW)
"""References that are followed by the world's own time; shuffled frames are as wrong at any time."""


class Windows:
    """Which frames of a rollout are scored.

    Args:
        size: frames of a window.
        spans: label → first frames of the windows that are scored together.
    """

    def __init__(self, size: int, spans: Mapping[str, Sequence[int]]) -> None:
        self.size = size
        self.spans = {label: tuple(starts) for label, starts in spans.items()}

    @property
    def frames(self) -> list[int]:
        """Frames of all windows."""
        starts = {start for span in self.spans.values() for start in span}
        return sorted({frame for start in starts for frame in range(start, start + self.size)})

    def end(self, label: str) -> int:
        """The frame behind the last one of a span."""
        return max(self.spans[label]) + self.size

    def cut(self, kept_NKHWC: Clips, label: str) -> Clips:
        """Windows of rollouts of which `frames` were kept, as clips: the first window of each, then the next."""
        return cut(kept_NKHWC, [self.frames.index(start) for start in self.spans[label]], self.size)


class Rollouts:
    """The rollouts of one recipe in one world.

    Args:
        m: the world's measures.
        recipe: its name, with which those of its files begin.
        windows: what is scored.
        count: rollouts of each model.
        length: frames of a rollout, given ones included.
        least_true: frames that every true video must have.
    """

    def __init__(self, m: Measures, recipe: str, windows: Windows, *, count: int, length: int, least_true: int) -> None:
        self.m, self.recipe, self.windows, self.length = m, recipe, windows, length
        self.real: LongSet = long_set(m.workplace, count, length, least_true)

    def score(self, name: str, model: Callable[[], Path], sampling: Mapping[str, Any] | None = None) -> Scores:
        """Roll a model out and score its windows; what is there already is kept.

        Args:
            name: of the rollouts, in file names.
            model: gives the model, trained if need be.
            sampling: settings of `MagiVideoPipeline.stream`.

        Returns:
            label → scores, as of `score_windows`.
        """
        made = partial(self.frames_of, name, model, dict(sampling or {}))
        return {
            label: self.score_windows(f"{name}-{label}", lambda label: self.windows.cut(made(), label), label)
            for label in self.windows.spans
        }

    def frames_of(self, name: str, model: Callable[[], Path], sampling: dict[str, Any]) -> Clips:
        """The kept frames of a model's rollouts, uint8 `[N, K, H, W, 3]`; a part that is there is not made again.

        Raises:
            MagiError: a part that is there holds other windows or rollouts.
        """
        parts = []
        for first in range(0, len(self.real.given), PART):
            file = self.part(name, first)
            part = self.m.array("samples", file, partial(self.roll_part, name, model, sampling, first))
            count, frames = len(self.real.given[first : first + PART]), len(self.windows.frames)
            if part.shape[:2] != (count, frames):
                raise MagiError(
                    f"{self.m.folder / 'samples' / file}.npy: {part.shape[1]} frames of {part.shape[0]} rollouts; "
                    f"expected {frames} of {count}: another version has made it, take it away"
                )
            parts.append(part)
        return np.concatenate(parts)

    def part(self, name: str, first: int = 0) -> str:
        """Name of the file with the rollouts `first`, …"""
        return f"{self.recipe}-{name}-part{first // PART}"

    def roll_part(self, name: str, model: Callable[[], Path], sampling: dict[str, Any], first: int) -> Clips:
        """`PART` rollouts from the given frames of the videos `first`, …, under the keys that are held, if there are
        any. A frame is dropped as soon as no window wants it."""
        m, pipe = self.m, self.m.load(model())
        given, wanted = self.real.given[first : first + PART], set(self.windows.frames)
        actions_TNA = self.real.actions_for(list(pipe.config.action_names))
        display = m.workplace.watched
        display.stage(f"{m.world.name}: rollouts {first + 1}…{first + len(given)} of {name}", self.length)
        stream = pipe.stream(
            video=given,
            num_frames=self.length,
            interval=m.world.interval,
            actions=None if actions_TNA is None else actions_TNA[: self.length, first : first + len(given)],
            generator=[torch.Generator().manual_seed(first + place) for place in range(len(given))],
            **sampling,
        )
        kept: list[np.ndarray] = []
        for number, frame_BHWC in enumerate(stream):
            if number in wanted:
                kept.append((np.asarray(frame_BHWC) * 255).round().astype(np.uint8))
            display.advance(number + 1)
        return np.stack(kept, axis=1)

    def score_windows(self, name: str, clips_at: Callable[[str], Clips], label: str) -> Scores:
        """FVD against the world's reference set and its interval, change by frame, sharpness, what the oracle reads."""
        m, name, starts = self.m, f"{self.recipe}-{name}", self.windows.spans[label]

        def compute() -> Scores:
            clips = clips_at(label)
            scores = m.frechet(name, lambda: clips, len(starts))
            scores |= {"change": round(speed(clips), 3), "sharpness": round(sharpness(clips), 3)}
            return scores | {"oracle": self.read_oracle(clips, starts)}

        return m.kept_figures(f"{name}-windows", compute)

    def read_oracle(self, clips: Clips, starts: Sequence[int]) -> Scores:
        """The oracle's scores of windows, as `Measures.oracle` gives them for continuations.

        In the world of balls the true frames of the same numbers are what is compared with; the share of keys that are
        read from the pixels is compared with those that were held.
        """
        size, real = self.windows.size, self.real
        if self.m.world.oracle == "balls":
            return balls(clips, cut(real.true, starts, size), 0)
        assert real.actions is not None
        held_TNA = np.concatenate([real.actions[start : start + size] for start in starts], axis=1)
        return score_keys(self.m.inverse_dynamics, clips, Keys.read(held_TNA.transpose(1, 0, 2), real.names), 2)

    def references(self) -> Scores:
        """The rows that need no model, of the true videos as far as these go.

        Returns:
            name → label → scores; of shuffled frames the first span alone.
        """
        m, true = self.m, self.real.true
        rows: dict[str, Callable[[Clips], Clips]] = {"real": lambda clips: clips}
        rows |= {name: every(change) for name, change in baselines(m.world.given, m.codec).items()}
        found: Scores = {}
        for name, change in rows.items():
            m.workplace.watched.stage(f"{m.world.name}: scoring {name}")

            def clips_at(label: str, change: Callable[[Clips], Clips] = change, name: str = name) -> Clips:
                starts, size = self.windows.spans[label], self.windows.size
                if name in UNTIL_NOW:
                    return cut(change(true[:, : self.windows.end(label)]), starts, size)
                return change(cut(true, starts, size))

            labels = [label for label in self.windows.spans if self.windows.end(label) <= true.shape[1]]
            found[name] = {
                label: self.score_windows(f"{name}-{label}", clips_at, label)
                for label in (labels if name in WITH_TIME else labels[:1])
            }
        return found


def cut(clips_NTHWC: Clips, starts: Sequence[int], size: int) -> Clips:
    """Windows of clips: the first window of each, then the next."""
    return np.concatenate([clips_NTHWC[:, start : start + size] for start in starts])


def speed(clips_NTHWC: Clips) -> float:
    """Mean absolute change from frame to frame, in grey levels."""
    return float(np.mean([clip_motion(clip).speed_T.mean() for clip in clips_NTHWC]))


def sharpness(clips_NTHWC: Clips) -> float:
    """Mean absolute difference of neighbouring pixels, in grey levels: blur lowers it, noise raises it."""
    values = clips_NTHWC.astype(np.int16)
    return float((np.abs(np.diff(values, axis=2)).mean() + np.abs(np.diff(values, axis=3)).mean()) / 2)


def kept_runs(folder: Path, rows: Iterable[str], steps: int) -> dict[str, list[Scores]]:
    """Row → what each seed left in a folder after so many training steps, in the order of seeds; rows that have left
    something."""
    found: dict[str, list[Scores]] = {}
    for name in rows:
        read = (read_json(path) for path in folder.glob(f"{name}-seed*.json"))
        if runs := sorted((run for run in read if run["steps"] == steps), key=lambda one: one["seed"]):
            found[name] = runs
    return found


def windows_of(given: int, size: int, lengths: Sequence[int]) -> Windows:
    """Two windows behind the given frames, and two at the end of each length, or one where two do not fit."""
    return Windows(size, {EARLY: [given + place * size for place in range(WINDOWS)]} | ends(size, lengths))


def ends(size: int, lengths: Sequence[int]) -> dict[str, list[int]]:
    """First frames of the windows at the end of each length, under its name."""
    places = range(WINDOWS, 0, -1)
    return {str(length): [start for place in places if (start := length - place * size) >= 0] for length in lengths}


def split(scores: Scores) -> Scores:
    """Scores by label as those of the beginning and those at the end of each length."""
    return {"early": scores[EARLY], "late": {label: one for label, one in scores.items() if label != EARLY}}


def run_name(name: str, seed: int, steps: int) -> str:
    """Of a row's rollouts, in file names."""
    return f"{name}-seed{seed}-step{steps}"


def described(world: World) -> Scores:
    """What the figures of every recipe of rollouts say of themselves."""
    return {
        "given": world.given,
        "window": world.frames,
        "steps": world.preset.train.steps,
        "oracle": world.oracle,
    }
