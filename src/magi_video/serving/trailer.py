"""What the page shows before anybody plays: seconds of the model's own, made once, and the keys that led to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from magi_video.serving.keys import Control, Controls
from magi_video.serving.media import as_uint8, jpeg
from magi_video.serving.worker import Task

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline

WALK = (("up", 14), ("left", 12), ("up", 8), ("right", 14))
"""Places of controls, and frames for which they are held."""
HOLD = 8
"""Frames for which each control is held, where there are no such places."""
MOST_FRAMES = 48
COLUMNS = 8


def walk(controls: list[Control]) -> list[str]:
    """The control that is held for each frame."""
    by_place = {control.place: control.name for control in reversed(controls)}
    steps = [(by_place[place], frames) for place, frames in WALK if place in by_place]
    steps = steps or [(control.name, HOLD) for control in controls]
    return [name for name, frames in steps for _ in range(frames)][:MOST_FRAMES]


class Trailer(Task):
    """Frames that are made while the model has nothing else to do.

    Args:
        pipe: the model.
        controls: of its actions.
        first: the first frame, uint8 [H, W, 3].
        arguments: of `MagiVideoPipeline.stream`: interval, sampling.
        is_quiet: whether nobody else wants the model.

    Attributes:
        held: for each frame the names of the controls that led to it.
        failed: they cannot be made.
        sheet: all frames as one JPEG, `COLUMNS` in a row; None until they are made.
    """

    def __init__(
        self,
        pipe: MagiVideoPipeline,
        controls: Controls,
        first: np.ndarray,
        arguments: dict[str, Any],
        is_quiet: Callable[[], bool],
    ) -> None:
        self.held: list[list[str]] = [[], *([name] for name in walk(controls.controls))]
        self.failed = False
        self.sheet: bytes | None = None
        self._pipe, self._is_quiet = pipe, is_quiet
        self._frames: list[np.ndarray] = []
        self._arguments = arguments | {"image": first, "actions": [controls.action(names) for names in self.held]}
        self._stream: Iterator[np.ndarray] | None = None

    @override
    def due(self, now: float) -> float:
        """Whenever it is quiet."""
        return now if self._is_quiet() else math.inf

    @override
    def step(self) -> bool:
        """One more frame; after the last, the sheet."""
        if self._stream is None:
            generator = torch.Generator().manual_seed(0)
            self._stream = self._pipe.stream(**self._arguments, num_frames=len(self.held), generator=generator)
        self._frames.append(as_uint8(next(self._stream)))
        if len(self._frames) < len(self.held):
            return True
        self.sheet = jpeg(sheet(self._frames))
        return False

    @override
    def fail(self, reason: str) -> None:
        """There is no trailer."""
        self.failed = True

    @override
    def close(self) -> None:
        """Free what the rollout holds."""
        self._stream = None
        self._frames = []


def sheet(frames: list[np.ndarray]) -> np.ndarray:
    """Frames uint8 [H, W, 3] in rows of `COLUMNS`; black where there are none."""
    height, width, _ = frames[0].shape
    rows = -(-len(frames) // COLUMNS)
    made = np.zeros((rows * height, COLUMNS * width, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // COLUMNS * height, number % COLUMNS * width
        made[top : top + height, left : left + width] = frame
    return made
