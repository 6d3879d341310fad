import hashlib

import numpy as np

from magi_video.recordings.policy import Actions, Explorer

PAD = Actions(("FIRE", "UP", "LEFT", "RIGHT"), "buttons")


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
    taken = play(PAD)
    assert min(holds(taken)) >= 8
    assert np.array_equal(taken, play(PAD)) and not np.array_equal(taken, play(PAD, seed=1))
    assert min(holds(play(PAD, frame_skip=4))) >= 2


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


def test_who_plays_otherwise_has_another_version() -> None:
    """A recording is continued by the player that began it alone: a change of these figures needs a new version."""
    taken = hashlib.sha256(play(PAD).tobytes()).hexdigest()[:16]
    assert (Explorer.version, taken) == (1, "bbcc4a4b41539fc3")
    held = Actions(("LEFT", "RIGHT"), "choice", weights=(1.0, 2.5), hold=(3, 16))
    assert Explorer(held, [0]).identity == "explorer 1, holds of 3 to 16 steps, weights 1 2.5"
