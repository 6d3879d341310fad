"""The policy that plays while a game is recorded: it holds actions for a while and prefers those that move the camera.

It knows nothing of any game but the names of its buttons. Where "forward" and "turn" buttons exist it walks, mostly
straight on, often in a curve, sometimes turning on the spot, and it turns away from walls: from those the game says
are near, or, where the game cannot tell, when walking no longer changes the picture. Elsewhere it holds random
actions, as often as the game's own weights say where it has any. Where an episode may be over after ten steps
(CartPole), it holds none for longer than the episode has lasted, so that however soon it ends, it has shown several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

HOLD_TICS = (8, 30)  # an action is held for a uniformly drawn number of tics of this range
TURN_TICS = (10, 35)
NEAR = 2.0  # room ahead below which to turn away,
CLEAR = 6.0  # and how much it takes to walk on: less and less with every tic of turning,
FULL_TURN = (
    110  # none at all after a turn right round (Doom turns 3.5 degrees a tic), so that a narrow place is no trap
)
STILL_CHANGE = (
    1.5  # mean absolute difference of two frames (of 255) below which walking is judged to be against a wall,
)
STILL_TICS = 5  # if it stays there for so many tics


@dataclass(frozen=True)
class Actions:
    """The columns of a game's action vector.

    kind: "choice" (one-hot: exactly one entry is 1), "buttons" (each 0 or 1, together as you like) or "axes" (floats
    in [low, high]).
    brief: nothing promises that an episode outlasts a single hold (`HOLD_TICS`).
    weights: of a "choice", how often each action is held in proportion to the others; empty: all alike.
    """

    names: tuple[str, ...]
    kind: Literal["choice", "buttons", "axes"]
    low: float = 0.0
    high: float = 1.0
    brief: bool = False
    weights: tuple[float, ...] = ()


class Explorer:
    """Draws action vectors float32 [A]; a pure function of the seed and of the frames it is shown."""

    def __init__(self, actions: Actions, seed: Sequence[int], frame_skip: int = 1) -> None:
        self._actions = actions
        self._random = np.random.default_rng(list(seed))
        self._tics_a_frame = frame_skip
        self._current = np.zeros(len(actions.names), dtype=np.float32)
        self._tics_left = 0
        self._tics_played = 0
        self._chosen = np.zeros(len(actions.names), dtype=np.int64)  # how often each
        self._turning_away = False
        self._turned_tics = 0
        self._still_tics = 0
        self._last_frame: np.ndarray | None = None
        column = {name.upper(): i for i, name in enumerate(actions.names)}
        self._forward = column.get("MOVE_FORWARD", -1)
        self._turns = [column[name] for name in ("TURN_LEFT", "TURN_RIGHT") if name in column]
        self._strafes = [column[name] for name in ("MOVE_LEFT", "MOVE_RIGHT") if name in column]
        self._walks = actions.kind == "buttons" and self._forward >= 0 and len(self._turns) == 2
        self._taps = [column[name] for name in ("ATTACK", "USE") if name in column]

    def act(self, frame: np.ndarray, room: np.ndarray | None = None) -> np.ndarray:
        """Chooses the next action.

        Args:
            frame: what the game shows, uint8 [H, W, 3], any size.
            room: how far the way is free in five directions from left to right, 1 being an arm's length; None where
                the game cannot tell.

        Returns:
            float32 [A].
        """
        if not self._walks:
            if self._tics_left <= 0:
                self._hold(self._anything(), HOLD_TICS)
        elif self._is_blocked(frame, room):
            if not self._turning_away:
                self._hold(self._press(self._random.choice(self._turns, p=self._lean(room))), TURN_TICS)
                self._turning_away, self._turned_tics = True, 0
            self._turned_tics += self._tics_a_frame
        elif self._turning_away:
            self._hold(self._press(self._forward), HOLD_TICS)
            self._turning_away = False
        elif self._tics_left <= 0:
            self._hold(self._walk(room), HOLD_TICS)
        self._tics_left -= self._tics_a_frame
        self._tics_played += self._tics_a_frame
        return self._current.copy()

    def _hold(self, vector: np.ndarray, tics: tuple[int, int]) -> None:
        self._current = vector
        self._tics_left = int(self._random.integers(*tics, endpoint=True))
        if self._actions.brief and self._tics_left > self._tics_played:
            self._tics_left = int(self._random.integers(1, max(1, self._tics_played), endpoint=True))

    def _is_blocked(self, frame: np.ndarray, room: np.ndarray | None) -> bool:
        if room is not None:
            needed = CLEAR * max(0.0, 1 - self._turned_tics / FULL_TURN) if self._turning_away else NEAR
            return bool(room[len(room) // 2] < needed)
        if self._turning_away and self._tics_left > 0:
            return True
        small = frame[::4, ::4].astype(np.float32)
        walking = self._current[self._forward] > 0
        still = (
            walking and self._last_frame is not None and float(np.abs(small - self._last_frame).mean()) < STILL_CHANGE
        )
        self._still_tics = self._still_tics + self._tics_a_frame if still else 0
        self._last_frame = small
        return self._still_tics >= STILL_TICS

    def _lean(self, room: np.ndarray | None) -> list[float]:
        """Probabilities of turning left and right: towards the side with more room."""
        if room is None:
            return [0.5, 0.5]
        left, right = float(room[:2].sum()) + 0.1, float(room[-2:].sum()) + 0.1
        return [left / (left + right), right / (left + right)]

    def _walk(self, room: np.ndarray | None) -> np.ndarray:
        kind = self._random.choice(["straight", "curve", "turn", "strafe"], p=[0.5, 0.32, 0.1, 0.08])
        pressed = [] if kind == "turn" else [self._forward]
        if kind in ("curve", "turn"):
            pressed.append(self._random.choice(self._turns, p=self._lean(room)))
        if kind == "strafe" and self._strafes:
            pressed.append(self._random.choice(self._strafes))
        pressed += [tap for tap in self._taps if self._random.random() < 0.4]
        return self._press(*pressed)

    def _anything(self) -> np.ndarray:
        count = len(self._actions.names)
        if self._actions.weights:
            weights = np.array(self._actions.weights)
            return self._press(self._random.choice(count, p=weights / weights.sum()))
        if self._actions.kind == "choice" and self._actions.brief:  # every action once before any again
            choice = self._random.choice(np.flatnonzero(self._chosen == self._chosen.min()))
            self._chosen[choice] += 1
            return self._press(choice)
        if self._actions.kind == "choice":
            return self._press(self._random.integers(count))
        if self._actions.kind == "axes":
            return self._random.uniform(self._actions.low, self._actions.high, size=count).astype(np.float32)
        return (self._random.random(count) < min(0.5, 2 / max(count, 1))).astype(np.float32)

    def _press(self, *columns: Any) -> np.ndarray:
        vector = np.zeros(len(self._actions.names), dtype=np.float32)
        vector[list(columns)] = 1.0
        return vector
