"""The motion measure sees frozen, shuffled and noisy video."""

import numpy as np
import pytest

from magi_video.errors import MagiError
from magi_video.evaluation.measures import clip_motion, compare_motion


def moving_square(seed: int, frames: int = 8) -> np.ndarray:
    """A bright 6 × 6 square on black that moves one or two pixels a frame, uint8 [T, 32, 32, 3]."""
    generator = np.random.default_rng(seed)
    video = np.zeros((frames, 32, 32, 3), np.uint8)
    row, column, step = generator.integers(0, 20), generator.integers(0, 8), generator.integers(1, 3)
    for t in range(frames):
        video[t, row : row + 6, column + step * t : column + step * t + 6] = 200
    return video


def test_figures_by_hand() -> None:
    levels = np.array([0, 10, 30, 30], np.uint8)
    motion = clip_motion(np.broadcast_to(levels[:, None, None, None], (4, 5, 6, 3)))
    np.testing.assert_array_equal(motion.speed_T, [10, 20, 0])
    np.testing.assert_array_equal(motion.jerk_T, [10, 20])


def test_differences_do_not_wrap() -> None:
    levels = np.array([0, 255, 0], np.uint8)
    motion = clip_motion(np.broadcast_to(levels[:, None, None, None], (3, 2, 2, 3)))
    np.testing.assert_array_equal(motion.speed_T, [255, 255])
    np.testing.assert_array_equal(motion.jerk_T, [510])


def test_a_set_equals_itself_in_any_order() -> None:
    motions = [clip_motion(moving_square(seed)) for seed in range(6)]
    result = compare_motion(motions, motions[::-1])
    assert result["speed_distance"] == result["jerk_distance"] == 0
    assert result["speed_ratio"] == pytest.approx(1) and result["jerk_ratio"] == pytest.approx(1)


def test_frozen_shuffled_and_noisy_video_are_told_apart() -> None:
    real = [clip_motion(moving_square(seed)) for seed in range(24)]
    others = [moving_square(seed) for seed in range(24, 48)]
    generator = np.random.default_rng(0)
    sets = {
        "real": others,
        "frozen": [np.repeat(clip[:1], len(clip), 0) for clip in others],
        "shuffled": [clip[generator.permutation(len(clip))] for clip in others],
        "noise": [generator.integers(0, 256, clip.shape, dtype=np.uint8) for clip in others],
    }
    results = {name: compare_motion(real, [clip_motion(clip) for clip in clips]) for name, clips in sets.items()}
    assert results["frozen"]["fake_speed"] == results["frozen"]["speed_ratio"] == 0
    assert results["shuffled"]["jerk_ratio"] > 1.3
    assert results["noise"]["jerk_ratio"] > results["shuffled"]["jerk_ratio"]
    for name in ("frozen", "shuffled", "noise"):
        for measure in ("speed_distance", "jerk_distance"):
            assert results[name][measure] > 2 * results["real"][measure]


def test_sets_of_unequal_size_and_length() -> None:
    short, long = clip_motion(moving_square(0, frames=4)), clip_motion(moving_square(1, frames=9))
    result = compare_motion([short, long, long], [short])
    assert result["fake_speed"] == pytest.approx(short.speed_T.mean())


def test_no_ratio_where_nothing_moves() -> None:
    still = clip_motion(np.zeros((4, 2, 2, 3), np.uint8))
    assert set(compare_motion([still], [still])) == {
        f"{part}" for name in ("speed", "jerk") for part in (f"real_{name}", f"fake_{name}", f"{name}_distance")
    }


@pytest.mark.parametrize("shape, dtype", [((2, 4, 4, 3), np.uint8), ((4, 4, 3), np.uint8), ((4, 4, 4, 3), np.float32)])
def test_wrong_clips_are_refused_in_one_line(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(MagiError, match=r"^motion needs a clip of uint8 .*$"):
        clip_motion(np.zeros(shape, dtype))


def test_empty_sets_are_refused() -> None:
    with pytest.raises(MagiError, match="0 fake"):
        compare_motion([clip_motion(moving_square(0))], [])
