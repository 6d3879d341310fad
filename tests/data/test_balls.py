import numpy as np
import pytest

from magi_video.data import VideoFolder, record

pytest.importorskip("gymnasium")

from magi_video.data.digits import BouncingDigits
from magi_video.data.games import open_game


def frames(seed: int, count: int = 40) -> np.ndarray:
    env = BouncingDigits()
    first, _ = env.reset(seed=seed)
    return np.stack([first] + [env.step(np.int64(0))[0] for _ in range(count - 1)])


def test_the_seed_decides_the_video() -> None:
    assert np.array_equal(frames(3), frames(3))
    assert not np.array_equal(frames(3), frames(4))


def test_digits_stay_whole_and_keep_their_speed_between_bounces() -> None:
    env = BouncingDigits(num_digits=1)
    env.reset(seed=1)
    ink = env._picture().astype(int).sum()
    bounces = 0
    for _ in range(200):
        place, velocity = env.place_N2.copy(), env.velocity_N2.copy()
        picture = env.step(np.int64(0))[0]
        assert picture.astype(int).sum() == ink  # never cut off by a border
        assert np.allclose(np.abs(env.velocity_N2), np.abs(velocity))
        if np.array_equal(env.velocity_N2, velocity):
            assert np.allclose(env.place_N2, place + velocity)
        else:
            bounces += 1
    assert bounces > 5


def test_recorded_by_its_name(tmp_path) -> None:
    game = open_game("magi/BouncingDigits-v0")
    assert game.reset(0).shape == (64, 64, 3)
    record("magi/BouncingDigits-v0", tmp_path, episodes=2, max_frames=12)
    videos = VideoFolder(tmp_path)
    assert [video.num_frames for video in videos.videos] == [12, 12]
