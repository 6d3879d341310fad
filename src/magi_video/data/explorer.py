"""The policy that plays while a game is recorded: it holds actions for a while and prefers those that move the camera.

It knows nothing of any game but the names of its buttons. Where "forward" and "turn" buttons exist it walks, mostly straight on, often in a curve,
sometimes turning on the spot, and it turns away when walking no longer changes the picture (a wall). Elsewhere it holds random actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

HOLD_TICS = (8, 30)  # an action is held for a uniformly drawn number of tics of this range
STUCK_CHANGE = 1.5  # mean absolute difference of two frames (of 255) below which walking is judged to be against a wall
STUCK_TICS = 5  # for so many tics in a row


@dataclass(frozen=True)
class Actions:
    """The columns of a game's action vector.

    kind: "choice" (one-hot: exactly one entry is 1), "buttons" (each 0 or 1, together as you like) or "axes" (floats in [low, high]).
    """

    names: tuple[str, ...]
    kind: Literal["choice", "buttons", "axes"]
    low: float = 0.0
    high: float = 1.0


class Explorer:
    """Draws action vectors float32 [A]; a pure function of the seed and of the frames it is shown."""

    def __init__(self, actions: Actions, seed: Sequence[int], frame_skip: int = 1) -> None:
        self._actions = actions
        self._random = np.random.default_rng(list(seed))
        self._tics_a_frame = frame_skip
        self._current = np.zeros(len(actions.names), dtype=np.float32)
        self._tics_left = 0
        self._still_tics = 0
        self._last_frame: np.ndarray | None = None
        column = {name.upper(): i for i, name in enumerate(actions.names)}
        self._forward = column.get("MOVE_FORWARD")
        self._turns = [column[name] for name in ("TURN_LEFT", "TURN_RIGHT") if name in column]
        self._strafes = [column[name] for name in ("MOVE_LEFT", "MOVE_RIGHT") if name in column]
        self._taps = [column[name] for name in ("ATTACK", "USE") if name in column]

    def act(self, frame: np.ndarray) -> np.ndarray:
        """The action vector, float32 [A], to take after `frame` (uint8 [H, W, 3], any size)."""
        walks = self._actions.kind == "buttons" and self._forward is not None and len(self._turns) == 2
        if walks and self._is_stuck(frame):
            self._current = self._press(self._random.choice(self._turns))
            self._tics_left = int(self._random.integers(10, 36))
        elif self._tics_left <= 0:
            self._current = self._walk() if walks else self._anything()
            self._tics_left = int(self._random.integers(*HOLD_TICS, endpoint=True))
        self._tics_left -= self._tics_a_frame
        return self._current.copy()

    def _is_stuck(self, frame: np.ndarray) -> bool:
        small = frame[::4, ::4].astype(np.float32)
        moving = self._forward is not None and self._current[self._forward] > 0
        still = moving and self._last_frame is not None and float(np.abs(small - self._last_frame).mean()) < STUCK_CHANGE
        self._still_tics = self._still_tics + self._tics_a_frame if still else 0
        self._last_frame = small
        if self._still_tics < STUCK_TICS:
            return False
        self._still_tics = 0
        return True

    def _walk(self) -> np.ndarray:
        kind = self._random.choice(["straight", "curve", "turn", "strafe"], p=[0.45, 0.3, 0.17, 0.08])
        pressed = [] if kind == "turn" else [self._forward]
        if kind in ("curve", "turn"):
            pressed.append(self._random.choice(self._turns))
        if kind == "strafe" and self._strafes:
            pressed.append(self._random.choice(self._strafes))
        pressed += [tap for tap in self._taps if self._random.random() < 0.4]
        return self._press(*pressed)

    def _anything(self) -> np.ndarray:
        count = len(self._actions.names)
        if self._actions.kind == "choice":
            return self._press(self._random.integers(count))
        if self._actions.kind == "axes":
            return self._random.uniform(self._actions.low, self._actions.high, size=count).astype(np.float32)
        return (self._random.random(count) < min(0.5, 2 / max(count, 1))).astype(np.float32)

    def _press(self, *columns: int | None) -> np.ndarray:
        vector = np.zeros(len(self._actions.names), dtype=np.float32)
        vector[[c for c in columns if c is not None]] = 1.0
        return vector
