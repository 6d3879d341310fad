"""The policy that plays while a game is recorded: it holds actions for a while.

It knows nothing of any game but the names of its buttons. Where "forward" and "turn" buttons exist, `Walker` plays:
it walks through rooms (`walker.py`). Elsewhere `Explorer` holds random actions, as often as the game's own weights say
where it has any. Where an episode may be over after ten steps (CartPole), it holds none for longer than the episode
has lasted, so that however soon it ends, it has shown several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

HOLD_TICS = (8, 30)  # an action is held for a uniformly drawn number of tics of this range


@dataclass(frozen=True)
class Actions:
    """The columns of a game's action vector.

    kind: "choice" (one-hot: exactly one entry is 1), "buttons" (each 0 or 1, together as you like) or "axes" (floats
    in [low, high]).
    brief: nothing promises that an episode outlasts a single hold (`hold`).
    weights: of a "choice", how often each action is held in proportion to the others; empty: all alike.
    hold: the least and the most steps of the game for which an action is held.
    """

    names: tuple[str, ...]
    kind: Literal["choice", "buttons", "axes"]
    low: float = 0.0
    high: float = 1.0
    brief: bool = False
    weights: tuple[float, ...] = ()
    hold: tuple[int, int] = HOLD_TICS


@dataclass(frozen=True)
class Place:
    """Where the player stands and looks.

    x, y: in arm's lengths.
    angle: of the view, in radians, counter-clockwise from the x axis.
    """

    x: float
    y: float
    angle: float


@dataclass(frozen=True)
class Surroundings:
    """What a game knows of the way ahead.

    room: how far the way is free in five directions from left to right, float [5]; 1 is an arm's length.
    place: None where the game does not know.
    """

    room: np.ndarray
    place: Place | None = None


class Explorer:
    """Draws action vectors float32 [A]; a pure function of the seed and of what it is shown.

    Attributes:
        name: of the player, in recordings.
        version: one more with every change by which it plays anything else than before.
    """

    name: ClassVar[str] = "explorer"
    version: ClassVar[int] = 1

    def __init__(self, actions: Actions, seed: Sequence[int], frame_skip: int = 1) -> None:
        self._actions = actions
        self._random = np.random.default_rng(list(seed))
        self._tics_a_frame = frame_skip
        self._current = np.zeros(len(actions.names), dtype=np.float32)
        self._tics_left = 0
        self._tics_played = 0
        self._chosen = np.zeros(len(actions.names), dtype=np.int64)  # how often each

    @property
    def identity(self) -> str:
        """Who plays by what settings: "walker 2". Episodes of different players do not mix in a recording."""
        hold, weights = self._actions.hold, self._actions.weights
        held = "" if hold == HOLD_TICS else f", holds of {hold[0]} to {hold[1]} steps"
        weighted = f", weights {' '.join(f'{one:g}' for one in weights)}" if weights else ""
        return f"{self.name} {self.version}{held}{weighted}"

    def act(self, frame: np.ndarray, around: Surroundings | None = None) -> np.ndarray:
        """Chooses the next action.

        Args:
            frame: what the game shows, uint8 [H, W, 3], any size.
            around: None where the game cannot tell.

        Returns:
            float32 [A].
        """
        self._choose(frame, around)
        self._tics_left -= self._tics_a_frame
        self._tics_played += self._tics_a_frame
        return self._current.copy()

    def _choose(self, frame: np.ndarray, around: Surroundings | None) -> None:
        if self._tics_left <= 0:
            self._hold(self._anything(), self._actions.hold)

    def _hold(self, vector: np.ndarray, tics: tuple[int, int]) -> None:
        self._current = vector
        self._tics_left = int(self._random.integers(*tics, endpoint=True))
        if self._actions.brief and self._tics_left > self._tics_played:
            self._tics_left = int(self._random.integers(1, max(1, self._tics_played), endpoint=True))

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
