"""Moving shapes with captions, for text to video that can be checked (`magi record shapes`).

A video shows one shape of one colour on a dark, plain ground, which moves in one direction at a speed of its own; what
leaves the picture at one side comes in again at the other, so no frame differs from the next but by its place. Its
caption says shape, colour and motion, in one of several wordings. Size, speed, place, ground and brightness are drawn
and not said. A sixth of the combinations is held out: `shapes` never shows them, `shapes/held-out` shows nothing else.
No package is needed beside NumPy.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.files.artifact import Record
from magi_video.recordings.environments import Game
from magi_video.recordings.policy import Actions

NAME = "shapes"
HELD_OUT_NAME = "shapes/held-out"
SIDE, FRAMES, RATE = 64, 24, 10.0
"""Pixels of a frame's side, frames of a video, frames/s."""
SIZES = (20.0, 28.0)
"""The root of a shape's area, pixels: all shapes have the same areas, so that the size does not tell the shape."""
SPEEDS = (1.5, 3.0)
"""Pixels a frame."""
GROUND, TINT = (24.0, 80.0), 10.0
"""Grey level of the ground, and how far its red, green and blue may be from that."""
BRIGHTNESS = (0.87, 1.05)
"""Of a colour."""

SHAPES = {"circle": ("circle", "disc"), "square": ("square", "box"), "triangle": ("triangle",)}
"""Name → the words for it."""
COLOURS = {
    "red": (224, 52, 52), "green": (56, 192, 72), "blue": (64, 104, 240), "yellow": (240, 208, 56),
    "purple": (176, 72, 208), "white": (236, 236, 236),
}  # fmt: skip
"""Name → red, green, blue."""
MOTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Name → direction (down, right)."""
MOTION_WORDS = {
    "left": ("left", "to the left"), "right": ("right", "to the right"), "up": ("up", "upwards"),
    "down": ("down", "downwards"),
}  # fmt: skip
WORDINGS = (
    "a {colour} {shape} moves {motion}",
    "the {shape} is {colour} and goes {motion}",
    "a {shape}, {colour}, moving {motion}",
    "moving {motion}: a {colour} {shape}",
)
LONGEST = 9
"""Words of the longest caption."""


class Scene(NamedTuple):
    """What a caption says of a video: one name each of `COLOURS`, `SHAPES` and `MOTIONS`."""

    colour: str
    shape: str
    motion: str


HELD_OUT = tuple(
    Scene(colour, shape, motion)
    for colour, pairs in {
        "red": (("circle", "left"), ("square", "up")),
        "green": (("square", "right"), ("triangle", "down")),
        "blue": (("triangle", "up"), ("circle", "right")),
        "yellow": (("circle", "down"), ("triangle", "left")),
        "purple": (("square", "left"), ("circle", "up")),
        "white": (("triangle", "right"), ("square", "down")),
    }.items()
    for shape, motion in pairs
)
"""12 of 72: every colour twice, every pair of shape and motion once, so a sixth of each name's scenes."""


def scenes(held_out: bool) -> list[Scene]:
    """The 12 scenes that are held out, or the 60 others."""
    every = [Scene(colour, shape, motion) for colour in COLOURS for shape in SHAPES for motion in MOTIONS]
    return [scene for scene in every if (scene in HELD_OUT) == held_out]


def write_caption(scene: Scene, random: np.random.Generator) -> str:
    """A caption of a scene, its wording drawn."""
    shape, motion = (str(random.choice(words)) for words in (SHAPES[scene.shape], MOTION_WORDS[scene.motion]))
    return str(random.choice(WORDINGS)).format(colour=scene.colour, shape=shape, motion=motion)


def read_caption(caption: str) -> Scene:
    """What a caption asks for.

    Raises:
        MagiError: it does not name one colour, one shape and one motion of this world.
    """
    words = set(re.findall(r"\w+", caption.lower()))
    colours = [name for name in COLOURS if name in words]
    shapes = [name for name, known in SHAPES.items() if words & set(known)]
    motions = [name for name, known in MOTION_WORDS.items() if words & set(" ".join(known).split()) - {"to", "the"}]
    if not len(colours) == len(shapes) == len(motions) == 1:
        raise MagiError(f"{caption!r:.80} does not name one colour, one shape and one motion of the world of shapes")
    return Scene(colours[0], shapes[0], motions[0])


def covered(shape: str, size: float, centre: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Which share of each pixel a shape covers, float `[side, side]`; soft by a pixel at the rim, wrapped at the sides.

    Args:
        shape: name; a triangle stands on its base, its three sides alike.
        size: root of the area, pixels.
        centre: of gravity (down, right), pixels.
        side: of the picture.
    """
    pixels = np.arange(side) + 0.5
    down, right = ((pixels - at + side / 2) % side - side / 2 for at in centre)
    down_HW, right_HW = down[:, None], right[None]
    if shape == "circle":
        inside_HW = size / np.sqrt(np.pi) - np.hypot(down_HW, right_HW)
    elif shape == "square":
        inside_HW = size / 2 - np.maximum(np.abs(down_HW), np.abs(right_HW))
    else:
        inside_HW = size * TRIANGLE - np.maximum(down_HW, np.sqrt(0.75) * np.abs(right_HW) - down_HW / 2)
    return np.clip(inside_HW + 0.5, 0, 1)


TRIANGLE = 27**-0.25
"""Radius of the circle in an equilateral triangle of area 1; the circle around it has twice that."""


def draw(scene: Scene, random: np.random.Generator, frames: int = FRAMES) -> np.ndarray:
    """A video of a scene, uint8 `[frames, SIDE, SIDE, 3]`, all that its caption does not say drawn."""
    direction = np.array(MOTIONS[scene.motion])
    size, speed = random.uniform(*SIZES), random.uniform(*SPEEDS)
    reach = size * 2 * TRIANGLE  # of the apex of a triangle, which goes farthest
    free = random.uniform(reach, SIDE - reach, 2)  # across its way the shape stays whole
    along = random.uniform(0, SIDE, 2)
    start = np.where(direction == 0, free, along)
    ground = random.uniform(*GROUND) + random.uniform(-TINT, TINT, 3)
    colour = np.minimum(255, random.uniform(*BRIGHTNESS) * np.array(COLOURS[scene.colour]))
    cover_THW = np.stack([covered(scene.shape, size, start + step * speed * direction) for step in range(frames)])
    return (ground + cover_THW[..., None] * (colour - ground)).round().astype(np.uint8)


class ShapesWorld(Game):
    """The world as a source of frames; there are no actions, and an episode is one video.

    Args:
        name: `shapes` or `shapes/held-out`.
        frame_skip: frames of the world for one recorded frame.

    Raises:
        MagiError: any other name.
    """

    def __init__(self, name: str, frame_skip: int) -> None:
        if name.lower() not in (NAME, HELD_OUT_NAME):
            raise MagiError(f"no world of shapes is called {name!r}; expected {NAME} or {HELD_OUT_NAME}")
        self._scenes = scenes(held_out=name.lower() == HELD_OUT_NAME)
        self._repeats, self.frame_rate = frame_skip, RATE / frame_skip
        self.actions = Actions((), "buttons")
        self._video = np.zeros((0, SIDE, SIDE, 3), np.uint8)
        self._next, self._caption = 0, ""

    @override
    def reset(self, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        scene = self._scenes[int(random.integers(len(self._scenes)))]
        self._caption = write_caption(scene, random)
        self._video, self._next = draw(scene, random)[:: self._repeats], 1
        return self._video[0]

    @override
    def step(self, vector: np.ndarray) -> np.ndarray | None:
        if self._next == len(self._video):
            return None
        self._next += 1
        return self._video[self._next - 1]

    @override
    def caption(self) -> str:
        return self._caption

    @override
    def facts(self) -> Record:
        """The names of the world, and the scenes that `shapes` never shows."""
        names = {"colours": list(COLOURS), "shapes": list(SHAPES), "motions": list(MOTIONS)}
        return {"world": names | {"held_out": [" ".join(scene) for scene in HELD_OUT]}}

    @override
    def close(self) -> None:
        pass
