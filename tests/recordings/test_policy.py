import numpy as np

from magi_video.recordings.policy import Actions, Explorer

DOOM = Actions(("ATTACK", "MOVE_FORWARD", "TURN_LEFT", "TURN_RIGHT"), "buttons")
FORWARD, TURNS = 1, [2, 3]


def play(actions: Actions, steps: int = 400, seed: int = 0, **settings: int) -> np.ndarray:
    """Actions taken while the picture always changes."""
    explorer = Explorer(actions, [seed], **settings)
    generator = np.random.default_rng(0)
    return np.stack([explorer.act(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(steps)])


def holds(taken: np.ndarray) -> list[int]:
    """Lengths of the stretches of equal actions."""
    changes = np.flatnonzero((taken[1:] != taken[:-1]).any(axis=1)) + 1
    return np.diff(changes).tolist()


def test_actions_are_held_and_depend_on_the_seed_alone() -> None:
    taken = play(DOOM)
    assert min(holds(taken)) >= 8
    assert np.array_equal(taken, play(DOOM)) and not np.array_equal(taken, play(DOOM, seed=1))
    assert taken[:, FORWARD].mean() > 0.6 and taken[:, TURNS].any()
    assert min(holds(play(DOOM, frame_skip=4))) >= 2


def test_it_turns_away_where_the_picture_stands_still() -> None:
    explorer = Explorer(DOOM, [0])
    taken = np.stack([explorer.act(np.zeros((8, 8, 3), dtype=np.uint8)) for _ in range(200)])
    assert taken[:, FORWARD].mean() < 0.5 and taken[:, TURNS].any(axis=1).mean() > 0.5


def test_it_turns_on_the_spot_until_the_way_is_clear() -> None:
    explorer = Explorer(DOOM, [0])
    frame = np.zeros((8, 8, 3), dtype=np.uint8)
    wall, open_right = np.array([0.5, 0.5, 0.5, 0.5, 9.0]), np.array([9.0] * 5)
    turning = np.stack([explorer.act(frame, wall) for _ in range(40)])
    assert not turning[:, FORWARD].any() and len(np.unique(turning, axis=0)) == 1  # one direction, no trembling
    assert turning[0, 3] == 1  # towards the side with more room
    assert explorer.act(frame, open_right)[FORWARD] == 1
    trapped = np.stack([explorer.act(frame, np.full(5, 0.1)) for _ in range(400)])
    assert trapped[:, FORWARD].any()  # a narrow place is no trap


def test_unknown_games_get_every_action() -> None:
    choice = play(Actions(("action_0", "action_1", "action_2"), "choice"), 900)
    assert (choice.sum(axis=1) == 1).all() and (choice.mean(axis=0) > 0.15).all()
    buttons = play(Actions(tuple(f"button_{i}" for i in range(6)), "buttons"), 2000)
    assert set(np.unique(buttons)) == {0, 1} and (buttons.mean(axis=0) > 0.1).all()
    axes = play(Actions(("axis_0",), "axes", -2, 2), 900)
    assert axes.min() < -1 and axes.max() > 1 and np.abs(axes).max() <= 2


def test_a_brief_episode_shows_several_actions_whenever_it_ends() -> None:
    for seed in range(20):
        taken = play(Actions(("action_0", "action_1"), "choice", brief=True), 9, seed)
        assert taken[:2].any(axis=0).all() and holds(taken)  # both at once, and a change more
    many = play(Actions(tuple(f"action_{i}" for i in range(6)), "choice", brief=True), 2000)
    order = many[[0, *(np.flatnonzero((many[1:] != many[:-1]).any(axis=1)) + 1)]].argmax(axis=1)
    assert set(order[:6]) == set(range(6)), "every action once before any again"
    assert np.median(holds(many)[-50:]) >= 8, "later they are held as ever"


def test_brevity_changes_nothing_for_games_that_last() -> None:
    """Recordings of Doom and Atari are a function of their seed, whatever becomes of other games."""
    taken = play(Actions(("NOOP", "FIRE", "RIGHT", "LEFT"), "choice"), 120, 7).argmax(axis=1)
    changes = [0, *(np.flatnonzero(np.diff(taken)) + 1).tolist()]
    assert [(change, int(taken[change])) for change in changes] == [(0, 3), (22, 2), (75, 3), (88, 0), (102, 1)]
