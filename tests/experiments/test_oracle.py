import numpy as np
import pytest

from magi_video.errors import MagiError

pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")

from magi_video.experiments.oracle import balls, count_blobs, names, read_balls, score_balls
from magi_video.recordings.ball_looks import COLOURS, RADIUS
from magi_video.recordings.balls import BouncingBalls

SIDE = 64


def rollout(seed: int, frames: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Frames, and the centres that the simulator has, in sides."""
    world = BouncingBalls(side=SIDE)
    pictures, centres = [world.reset(seed=seed)[0]], [world.centre_N2]
    for _ in range(frames - 1):
        pictures.append(world.step(np.int64(0))[0])
        centres.append(world.centre_N2)
    return np.stack(pictures), np.stack(centres)


def draw(*placed: tuple[float, float, tuple[int, int, int]]) -> np.ndarray:
    """One frame with discs at (down, right) of a colour."""
    pixels = (np.arange(SIDE) + 0.5) / SIDE
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    for down, right, colour in placed:
        picture[np.hypot(pixels[:, None] - down, pixels[None] - right) < RADIUS] = colour
    return picture


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_state_that_is_read_is_the_simulators(seed: int) -> None:
    clip, centre_TK2 = rollout(seed)
    read = read_balls(clip)
    apart_T = np.linalg.norm(centre_TK2[:, 0] - centre_TK2[:, 1], axis=1) > 2 * RADIUS + 2 / SIDE
    assert apart_T.any()
    assert np.array_equal(read.blobs_T[apart_T] == 2, np.ones(apart_T.sum(), bool))
    assert np.abs(read.centre_TK2 - centre_TK2)[apart_T].max() < 0.5 / SIDE
    assert np.abs(read.area_TK[apart_T] - 1).max() < 0.05
    assert read.hue_TK[apart_T].max() < 2


def test_balls_that_touch_are_one_blob() -> None:
    yellow, blue = COLOURS[:2]
    assert read_balls(draw((0.3, 0.3, yellow), (0.3, 0.5, blue))[None]).blobs_T == [1]
    assert read_balls(draw((0.3, 0.2, yellow), (0.3, 0.8, blue))[None]).blobs_T == [2]
    assert count_blobs(np.zeros((4, 4), bool), 1) == 0


def test_the_truth_has_no_error_and_a_still_frame_has() -> None:
    clip, _ = rollout(3)
    given = 5
    own = balls(clip[None], clip[None], given)
    assert own["number"] == 1 and own["position"] == own["area"] == 0
    assert own["speed"] < 1, "bounces alone"
    held = clip.copy()
    held[given:] = clip[given - 1]
    still = balls(held[None], clip[None], given)
    assert still["position"] > 5 and still["speed"] > 2
    assert still["hue"] < 2, "a still ball has its colour"
    later = still["per_frame"]["position"]
    assert len(later) == 16 - given and later[0] < later[2] < later[4], "the truth moves away"


def test_each_fault_shows_in_its_own_score() -> None:
    yellow, blue = COLOURS[:2]
    at = ((0.3, 0.2, yellow), (0.6, 0.8, blue))
    truth = np.stack([draw(*at)] * 3)
    gone = np.stack([draw(*at), draw(at[0]), draw(at[0])])
    lost = score_balls(gone, truth, 1)
    assert lost.number_G.tolist() == lost.apart_G.tolist() == [0, 0]
    assert lost.position_G == pytest.approx([25, 25]) and lost.area_G == pytest.approx([0.5, 0.5], abs=0.02)
    moved = score_balls(np.stack([draw(*at), *[draw((0.3, 0.2, yellow), (0.6, 0.7, blue))] * 2]), truth, 1)
    assert moved.position_G == pytest.approx([5, 5], abs=0.3) and moved.number_G.tolist() == [1, 1]
    assert moved.speed_G == pytest.approx([2.5, 0], abs=0.3), "one of four speeds is off by 0.1, once"
    turned = score_balls(np.stack([draw(*at), *[draw((0.3, 0.2, (255, 128, 64)), at[1])] * 2]), truth, 1)
    assert turned.hue_G[0] > 10 and turned.position_G == pytest.approx([0, 0])
    third = score_balls(np.stack([draw(*at), *[draw(*at, (0.8, 0.2, blue))] * 2]), truth, 1)
    assert third.apart_G.tolist() == third.number_G.tolist() == [0, 0]
    nothing = balls(np.zeros_like(truth)[None], truth[None], 1)
    assert nothing["position"] == 50 and nothing["hue"] is None and nothing["speed"] is None


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(MagiError, match="square"):
        read_balls(np.zeros((2, 8, 9, 3), np.uint8))
    with pytest.raises(MagiError, match="uint8"):
        read_balls(np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(MagiError, match="cannot continue"):
        score_balls(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 3), np.uint8), 1)
    assert names({"apart": 1, "per_frame": {}, "per_clip": {}}) == ["apart"]
