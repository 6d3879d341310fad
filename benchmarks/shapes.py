"""A small world whose every property can be asked for: one shape, of one colour, that moves in one direction.

The videos lie in a folder for each class (labels), each with a caption beside it (text): `warm/00012.mp4` and
`warm/00012.txt`, "a red ball moving left". Some pairs of colour and direction are held out: no video shows them.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from magi_video.video.video import write_video

SIDE, FRAMES, RATE = 16, 6, 6.0
RADIUS = 2.8  # pixels
SPEEDS = (0.7, 1.2)  # pixels a frame
SHAPES = ("ball", "square")
COLOURS = {"red": (240, 60, 60), "green": (60, 220, 80), "blue": (70, 110, 250), "yellow": (245, 220, 60)}
WARM = ("red", "yellow")
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
HELD_OUT = (("red", "left"), ("green", "up"), ("blue", "right"), ("yellow", "down"))


class Scene(NamedTuple):
    """What a video shows."""

    shape: str
    colour: str
    direction: str

    @property
    def warmth(self) -> str:
        return warmth(self.colour)

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} moving {self.direction}"


def warmth(colour: str) -> str:
    """The class of a colour."""
    return "warm" if colour in WARM else "cool"


def scenes(held_out: bool) -> list[Scene]:
    """All that are held out, or all that are not."""
    pairs = [(colour, direction) for colour in COLOURS for direction in DIRECTIONS]
    return [Scene(shape, *pair) for shape in SHAPES for pair in pairs if (pair in HELD_OUT) == held_out]


def draw(scene: Scene, random: np.random.Generator) -> np.ndarray:
    """A video of it, uint8 `[FRAMES, SIDE, SIDE, 3]`; place and speed are drawn, and it stays within the picture."""
    step = np.array(DIRECTIONS[scene.direction]) * random.uniform(*SPEEDS)
    way = step * (FRAMES - 1)
    low, high = RADIUS - np.minimum(way, 0), SIDE - RADIUS - np.maximum(way, 0)
    start = random.uniform(low, high)
    pixels = np.arange(SIDE) + 0.5
    video = np.zeros((FRAMES, SIDE, SIDE, 3))
    for index in range(FRAMES):
        top, left = start + index * step
        down, right = np.abs(pixels - top)[:, None], np.abs(pixels - left)[None]
        # The square has the ball's area, so that its size does not tell it.
        inside = RADIUS - np.hypot(down, right) if scene.shape == "ball" else RADIUS * 0.886 - np.maximum(down, right)
        video[index] = np.clip(inside + 0.5, 0, 1)[..., None] * np.array(COLOURS[scene.colour])
    return video.round().astype(np.uint8)


def write_world(folder: Path, count: int, by: str = "shape", seed: int = 0) -> None:
    """`count` videos of scenes that are not held out, each with its caption, in class folders `by` shape or warmth."""
    shown = scenes(held_out=False)
    for index in range(count):
        random = np.random.default_rng([seed, index])
        scene = shown[int(random.integers(len(shown)))]
        path = folder / getattr(scene, by) / f"{index:05d}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".txt").write_text(scene.caption + "\n", encoding="utf-8")
            write_video(path, draw(scene, random), RATE, crf=4, pixel_format="yuv444p")


def centres(videos_BTHWC: np.ndarray) -> np.ndarray:
    """Centre of brightness of every frame, pixels from the top and from the left, `[B, T, 2]`."""
    light = videos_BTHWC.max(axis=-1).astype(float)
    light *= light > 64
    total = light.sum((2, 3)) + 1e-9
    pixels = np.arange(SIDE) + 0.5
    return np.stack([(light.sum(3) * pixels).sum(2) / total, (light.sum(2) * pixels).sum(2) / total], axis=-1)


def seen_directions(videos_BTHWC: np.ndarray) -> list[str]:
    """The direction in which the bright pixels' centre goes from the first frame to the last."""
    at = centres(videos_BTHWC)
    names, steps = list(DIRECTIONS), np.array(list(DIRECTIONS.values()))
    return [names[index] for index in ((at[:, -1] - at[:, 0]) @ steps.T).argmax(axis=1)]


def seen_colours(videos_BTHWC: np.ndarray) -> list[str]:
    """The colour that the mean of the bright pixels is nearest to, in angle."""
    bright = videos_BTHWC.max(axis=-1, keepdims=True) > 128
    mean = (videos_BTHWC * bright).sum((1, 2, 3)) / (bright.sum((1, 2, 3)) + 1e-9)
    known = np.array(list(COLOURS.values()), float)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    return [list(COLOURS)[index] for index in (mean @ known.T).argmax(axis=1)]
