"""A player that walks through rooms, for games with buttons "forward" and "turn" (Doom).

It looks for places where it has not been, turns away from walls (those that the game says are near, or, where the
game cannot tell, those before which walking no longer changes the picture), stands still now and then with all keys
released, and now and then presses two keys drawn from all pairs. A model learns from it what no key does, and what keys
do together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from typing_extensions import override

from magi_video.recordings.policy import HOLD_TICS, Actions, Explorer, Surroundings

TURN_TICS = (10, 35)
REST_TICS = (15, 40)
"""With all keys released. Doom's player slides for some ten tics after a walk."""

NEAR = 2.0  # room ahead below which to turn away,
CLEAR = 6.0  # and how much it takes to walk on: less and less with every tic of turning,
FULL_TURN = 110  # none at all after a turn right round (3.5 degrees a tic in Doom), so that a narrow place is no trap
STILL_CHANGE = 1.5  # mean absolute difference of two frames (of 255) below which walking is judged to be against a wall
STILL_TICS = 5  # if it stays there for so many tics

KINDS = {"straight": 0.36, "curve": 0.28, "turn": 0.08, "strafe": 0.08, "pair": 0.12, "rest": 0.08}
"""What is held next, where the way is free, and how often."""

DIRECTIONS = np.radians([36.0, 18.0, 0.0, -18.0, -36.0])
"""Of `Surroundings.room`, from left to right, for a view of 90 degrees."""

STRIDE = 4.0
"""Side of the squares, in arm's lengths, whose visits are counted."""

BUTTONS = (
    "ATTACK", "USE", "MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "TURN_LEFT", "TURN_RIGHT",
)  # fmt: skip
"""Those that are pressed, where a game has them; others (weapons, menus) never are."""


def walks(actions: Actions) -> bool:
    """Whether a game has the buttons that a walker needs."""
    return actions.kind == "buttons" and {"MOVE_FORWARD", "TURN_LEFT", "TURN_RIGHT"} <= set(_columns(actions))


def player(actions: Actions, seed: Sequence[int], frame_skip: int = 1) -> Explorer:
    """The player that suits a game: a walker where one can walk."""
    return (Walker if walks(actions) else Explorer)(actions, seed, frame_skip)


def _columns(actions: Actions) -> dict[str, int]:
    return {name.upper(): column for column, name in enumerate(actions.names)}


class Walker(Explorer):
    """Walks, turns, strafes, rests."""

    name = "walker"
    version = 2

    def __init__(self, actions: Actions, seed: Sequence[int], frame_skip: int = 1) -> None:
        super().__init__(actions, seed, frame_skip)
        column = _columns(actions)
        self._forward = column["MOVE_FORWARD"]
        self._left, self._right = column["TURN_LEFT"], column["TURN_RIGHT"]
        self._strafes = [column[name] for name in ("MOVE_LEFT", "MOVE_RIGHT") if name in column]
        self._taps = [column[name] for name in ("ATTACK", "USE") if name in column]
        self._pairs = list(combinations([column[name] for name in BUTTONS if name in column], 2))
        self._visits: Counter[tuple[int, int]] = Counter()
        self._standing: tuple[int, int] | None = None
        self._turning_away = False
        self._turned_tics = 0
        self._still_tics = 0
        self._last_frame: np.ndarray | None = None

    @override
    def _choose(self, frame: np.ndarray, around: Surroundings | None) -> None:
        self._remember(around)
        pushing = bool(self._current[self._forward])
        if self._is_blocked(frame, around) and (pushing or self._turning_away or self._tics_left <= 0):
            if not self._turning_away:
                self._hold(self._press(self._turn(around)), TURN_TICS)
                self._turning_away, self._turned_tics = True, 0
            self._turned_tics += self._tics_a_frame
        elif self._turning_away:
            self._hold(self._press(self._forward), HOLD_TICS)
            self._turning_away = False
        elif self._tics_left <= 0:
            self._hold_next(around)

    def _remember(self, around: Surroundings | None) -> None:
        if around is None or around.place is None:
            return
        square = _square(around.place.x, around.place.y)
        if square != self._standing:
            self._visits[square] += 1
            self._standing = square

    def _is_blocked(self, frame: np.ndarray, around: Surroundings | None) -> bool:
        if around is not None:
            needed = CLEAR * max(0.0, 1 - self._turned_tics / FULL_TURN) if self._turning_away else NEAR
            return bool(around.room[len(around.room) // 2] < needed)
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

    def _hold_next(self, around: Surroundings | None) -> None:
        kind = self._random.choice(list(KINDS), p=list(KINDS.values()))
        if kind == "rest":
            self._hold(self._press(), REST_TICS)
        elif kind == "pair":
            self._hold(self._press(*self._pairs[self._random.integers(len(self._pairs))]), HOLD_TICS)
        else:
            pressed = [] if kind == "turn" else [self._forward]
            if kind in ("curve", "turn"):
                pressed.append(self._turn(around))
            if kind == "strafe" and self._strafes:
                pressed = [self._random.choice(self._strafes), *pressed[: self._random.integers(2)]]
            pressed += [tap for tap in self._taps if self._random.random() < 0.4]
            self._hold(self._press(*pressed), HOLD_TICS)

    def _turn(self, around: Surroundings | None) -> int:
        """To the left or the right: towards the side with more room that has been visited less."""
        if around is None:
            return self._left if self._random.random() < 0.5 else self._right
        worth = around.room + 0.05
        if around.place is not None:
            angles = around.place.angle + DIRECTIONS
            reach = np.minimum(around.room, 2 * STRIDE)
            xs, ys = around.place.x + reach * np.cos(angles), around.place.y + reach * np.sin(angles)
            worth = worth / (1 + np.array([self._visits[_square(x, y)] for x, y in zip(xs, ys, strict=True)]))
        left, right = float(worth[:2].sum()), float(worth[-2:].sum())
        return self._left if self._random.random() < left / (left + right) else self._right


def _square(x: float, y: float) -> tuple[int, int]:
    return int(x // STRIDE), int(y // STRIDE)
