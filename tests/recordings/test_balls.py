import numpy as np
import pytest

from magi_video.data.folder import VideoFolder
from magi_video.recordings.record import record

pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")

from magi_video.recordings.ball_looks import RADIUS
from magi_video.recordings.balls import BouncingBalls
from magi_video.recordings.environments import open_game


def frames(seed: int, count: int = 40) -> np.ndarray:
    env = BouncingBalls()
    first, _ = env.reset(seed=seed)
    return np.stack([first] + [env.step(np.int64(0))[0] for _ in range(count - 1)])


def test_the_seed_decides_the_video() -> None:
    assert np.array_equal(frames(3), frames(3))
    assert not np.array_equal(frames(3), frames(4))


def test_balls_stay_inside_and_keep_their_speed_between_bounces() -> None:
    env = BouncingBalls(num_balls=1)
    first, _ = env.reset(seed=1)
    ink = first.astype(int).sum()
    bounces = 0
    for _ in range(200):
        centre, velocity = env.centre_N2.copy(), env.velocity_N2.copy()
        picture = env.step(np.int64(0))[0]
        assert picture.astype(int).sum() == pytest.approx(ink, rel=0.02)  # never cut off by a border
        assert np.all((env.centre_N2 >= RADIUS) & (env.centre_N2 <= 1 - RADIUS))
        assert np.allclose(np.abs(env.velocity_N2), np.abs(velocity))
        if np.array_equal(env.velocity_N2, velocity):
            assert np.allclose(env.centre_N2, centre + velocity)
        else:
            bounces += 1
    assert bounces > 5


def test_recorded_by_its_name(tmp_path) -> None:
    game = open_game("magi/BouncingBalls-v0")
    assert game.reset(0).shape == (64, 64, 3)
    record("magi/BouncingBalls-v0", tmp_path, episodes=2, max_frames=12)
    videos = VideoFolder(tmp_path)
    assert [video.num_frames for video in videos.videos] == [12, 12]
