"""What is read from videos of shapes: right on real ones, also blurred and noisy, and nothing where nothing is."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from magi_video.errors import MagiError
from magi_video.experiments.shapes import Seen, read_frame, read_video
from magi_video.recordings.shapes import Scene, draw, scenes

FRAMES = 16


def test_real_videos_are_read_right() -> None:
    """200 of 200 are a share of 0.995 at least, by half a video."""
    random = np.random.default_rng(0)
    every = scenes(held_out=False) + scenes(held_out=True)
    asked = [every[index % len(every)] for index in range(200)]
    right = [read_video(draw(scene, random, frames=5)).agrees(scene) for scene in asked]
    for name in (*Scene._fields, "all"):
        assert np.mean([one[name] for one in right]) >= 0.995, name


def test_single_frames_are_read_wherever_the_shape_is_cut() -> None:
    random = np.random.default_rng(1)
    for scene in scenes(held_out=False):
        frame = read_frame(draw(scene, random, 1)[0])
        assert (frame.colour, frame.shape) == (scene.colour, scene.shape)


def test_blur_and_noise_are_borne() -> None:
    random = np.random.default_rng(2)
    for scene in scenes(held_out=True):
        video = np.stack([gaussian_filter(frame.astype(float), (1, 1, 0)) for frame in draw(scene, random, frames=6)])
        video = np.clip(video + random.normal(0, 6, video.shape), 0, 255).round().astype(np.uint8)
        assert read_video(video).agrees(scene)["all"]


def test_what_is_not_there_is_not_read() -> None:
    random = np.random.default_rng(3)
    flat = np.full((4, 64, 64, 3), 50, np.uint8)
    assert read_video(flat) == Seen(None, None, None)
    square = draw(Scene("red", "square", "left"), random, FRAMES)
    still = np.repeat(square[:1], FRAMES, axis=0)
    assert read_video(still) == Seen("red", "square", None)  # it does not move
    assert read_video(square[::-1]).motion == "right"
    half_gone = square.copy()
    half_gone[: FRAMES // 2 + 1] = 50
    assert read_video(half_gone) == Seen(None, None, None)  # in less than half of the frames is no video of it
    bar = np.full((4, 64, 64, 3), 50, np.uint8)
    bar[:, 20:28, 4:60] = (224, 52, 52)
    assert read_video(bar) == Seen("red", None, None)
    muddy = np.full((4, 64, 64, 3), 50, np.uint8)
    muddy[:, 20:42, 20:42] = (140, 140, 90)
    assert read_video(muddy).colour is None
    diagonal = np.stack([np.roll(square[0], (2 * step, 2 * step), (0, 1)) for step in range(FRAMES)])
    assert read_video(diagonal).motion is None


def test_other_arrays_are_refused() -> None:
    for shape in ((4, 64, 32, 3), (1, 64, 64, 3), (4, 64, 64)):
        with pytest.raises(MagiError, match="read from uint8"):
            read_video(np.zeros(shape, np.uint8))
    with pytest.raises(MagiError, match="read from uint8"):
        read_video(np.zeros((4, 64, 64, 3)))
