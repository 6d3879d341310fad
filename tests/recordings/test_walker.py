import hashlib
from itertools import combinations

import numpy as np
import pytest

from magi_video.recordings.policy import Actions, Place, Surroundings
from magi_video.recordings.walker import BUTTONS, Walker, walks

DOOM = Actions(("SPEED", *BUTTONS, "SELECT_WEAPON1"), "buttons")
FORWARD = DOOM.names.index("MOVE_FORWARD")
TURNS = [DOOM.names.index("TURN_LEFT"), DOOM.names.index("TURN_RIGHT")]
FRAME = np.zeros((8, 8, 3), dtype=np.uint8)
OPEN = Surroundings(np.full(5, 9.0))


def play(steps: int, around: Surroundings | None = OPEN, seed: int = 0) -> np.ndarray:
    """Actions taken while nothing around changes."""
    walker = Walker(DOOM, [seed])
    return np.stack([walker.act(FRAME, around) for _ in range(steps)])


def test_which_games_can_be_walked_in() -> None:
    assert walks(DOOM) and walks(Actions(("turn_left", "Turn_Right", "move_forward"), "buttons"))
    assert not walks(Actions(("MOVE_FORWARD", "TURN_LEFT"), "buttons"))
    assert not walks(Actions(DOOM.names, "choice"))


def test_actions_are_held_and_depend_on_the_seed_alone() -> None:
    taken = play(600)
    changes = np.flatnonzero((taken[1:] != taken[:-1]).any(axis=1)) + 1
    assert np.diff(changes).min() >= 8
    assert np.array_equal(taken, play(600)) and not np.array_equal(taken, play(600, seed=1))


def test_in_the_open_it_walks_rests_and_presses_every_pair_of_keys() -> None:
    taken = play(30_000)
    assert taken[:, FORWARD].mean() > 0.5 and taken[:, TURNS].any(axis=1).mean() > 0.2
    assert 0.05 < (~taken.any(axis=1)).mean() < 0.2, "all keys released"
    pairs = {tuple(np.flatnonzero(row)) for row in np.unique(taken, axis=0) if row.sum() == 2}
    buttons = [DOOM.names.index(name) for name in BUTTONS]
    assert pairs >= set(combinations(sorted(buttons), 2))
    assert not np.delete(taken, buttons, axis=1).any(), "no weapon is changed"


def test_it_turns_away_where_the_picture_stands_still() -> None:
    taken = play(600, around=None)
    assert taken[:, TURNS].any(axis=1).mean() > 0.4 > taken[:, FORWARD].mean()


def test_it_turns_on_the_spot_until_the_way_is_clear() -> None:
    walker = Walker(DOOM, [0])
    wall = Surroundings(np.array([0.5, 0.5, 0.5, 0.5, 9.0]))
    turning = np.stack([walker.act(FRAME, wall) for _ in range(40)])
    assert not turning[:, FORWARD].any() and len(np.unique(turning, axis=0)) == 1  # one direction, no trembling
    assert turning[0, TURNS[1]] == 1  # towards the side with more room
    assert walker.act(FRAME, OPEN)[FORWARD] == 1
    trapped = np.stack([walker.act(FRAME, Surroundings(np.full(5, 0.1))) for _ in range(400)])
    assert trapped[:, FORWARD].any()  # a narrow place is no trap


def test_a_wall_does_not_wake_one_who_rests() -> None:
    walker = Walker(DOOM, [0])
    while walker.act(FRAME, OPEN).any():
        pass
    assert not walker.act(FRAME, Surroundings(np.full(5, 0.1))).any()


@pytest.mark.parametrize(("seen_to_the", "turn"), [("left", TURNS[1]), ("right", TURNS[0])])
def test_it_prefers_where_it_has_not_been(seen_to_the: str, turn: int) -> None:
    """It stands at a wall and looks along x; the squares to one side of it have been visited often."""
    side = 6.0 if seen_to_the == "left" else -6.0
    wall = Surroundings(np.array([9.0, 9.0, 0.5, 9.0, 9.0]), Place(2.0, 2.0, 0.0))
    turned = []
    for seed in range(40):
        walker = Walker(DOOM, [seed])
        for step in range(60):
            for y in (side, side * 0.6):
                walker.act(FRAME, Surroundings(OPEN.room, Place(7.0 + 3 * (step % 2), 2.0 + y, 0.0)))
        while not (taken := walker.act(FRAME, wall))[TURNS].any():
            pass
        turned.append(bool(taken[turn]))
    assert np.mean(turned) > 0.8


def test_who_plays_otherwise_has_another_version() -> None:
    """A recording is continued by the player that began it alone: a change of these figures needs a new version."""
    taken = hashlib.sha256(play(600).tobytes()).hexdigest()[:16]
    assert (Walker.version, taken) == (2, "ae3c5d40764ab7e3")
