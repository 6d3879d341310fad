"""What a video of the world of shapes shows, read from its pixels: colour, shape and motion, each by a rule.

In each frame the ground is the median pixel, and what differs from it by more than half of the largest difference is
the shape; seen across the picture's sides, which are one in this world. Its *colour* is the nearest of the world's to
the mean of its pixels; its *shape* is the one that covers it best when drawn with the same area and centre (the overlap
of both over their union); its *motion* is where its centre goes. A video has the colour and the shape of more than half
of its frames, and the motion that its mean step shows; None where that is nothing that the world has. Nothing is
trained, and nothing is known of the caption.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from magi_video.errors import MagiError
from magi_video.recordings.shapes import COLOURS, MOTIONS, SHAPES, SPEEDS, Scene, covered

LEAST_CONTRAST = 40.0
"""Distance of a shape's colour from the ground, of 441: less is no shape."""
PEAK_SHARE = 0.03
"""Of the pixels: the most different ones say how a shape differs; the smallest shape has three times as many."""
LEAST_AREA = 0.03
"""Of the picture, that a shape has at least."""
FARTHEST_COLOUR = 90.0
"""From the nearest colour of the world, in red, green, blue; the two nearest colours are 105 apart."""
LEAST_OVERLAP = 0.75
"""Of a shape with the drawn one; of a circle and a square of the same area and centre it is 0.83, of a triangle and
either less."""
LEAST_STEP = 0.5 * SPEEDS[0]
"""Mean pixels a frame along the motion's axis."""
LEAST_STRAIGHT = 2.0
"""How many times as far it goes along this axis as across it."""


@dataclass(frozen=True)
class Seen:
    """What a video shows, by the names of the world; None where it shows none of them."""

    colour: str | None
    shape: str | None
    motion: str | None

    def agrees(self, scene: Scene) -> dict[str, bool]:
        """Whether that is what a caption asks for, by attribute, and "all" for all three."""
        right = {name: getattr(self, name) == getattr(scene, name) for name in Scene._fields}
        return right | {"all": all(right.values())}


@dataclass(frozen=True)
class Frame:
    """What a frame shows; centre (down, right) in pixels, None where there is no shape at all."""

    colour: str | None = None
    shape: str | None = None
    centre: tuple[float, float] | None = None


def read_frame(frame_HWC: np.ndarray) -> Frame:
    """Read a frame, uint8 `[side, side, 3]`."""
    side = len(frame_HWC)
    pixels_HWC = frame_HWC.astype(float)
    ground = np.median(pixels_HWC.reshape(-1, 3), axis=0)
    differs_HW = np.linalg.norm(pixels_HWC - ground, axis=-1)
    most = np.sort(differs_HW, axis=None)[-max(1, round(PEAK_SHARE * side**2)) :].mean()
    if most < LEAST_CONTRAST:
        return Frame()
    cover_HW = np.clip(differs_HW / most, 0, 1)
    shift = [side // 2 - round(_round_mean((cover_HW > 0.5).sum(1 - axis))) for axis in (0, 1)]
    cover_HW, pixels_HWC = (np.roll(one, shift, (0, 1)) for one in (cover_HW, pixels_HWC))
    parts_HW, _ = ndimage.label(cover_HW > 0.5)
    largest = np.bincount(parts_HW.ravel())[1:].argmax() + 1
    inside_HW = parts_HW == largest
    if inside_HW.sum() < LEAST_AREA * side**2:
        return Frame()
    nearby_HW = ndimage.binary_dilation(inside_HW, iterations=2)  # its rim, which is soft; no specks elsewhere
    cover_HW = np.where(nearby_HW, cover_HW, 0)
    cover_HW[cover_HW < 0.1] = 0  # noise of the ground
    places = np.arange(side) + 0.5
    area = cover_HW.sum()
    centre = np.array([(cover_HW.sum(1 - axis) * places).sum() / area for axis in (0, 1)])
    overlap = {name: _overlap(cover_HW, covered(name, np.sqrt(area), centre, side)) for name in SHAPES}
    shape = max(overlap, key=lambda name: overlap[name])
    mean = pixels_HWC[cover_HW > 0.9].mean(0) if (cover_HW > 0.9).any() else pixels_HWC[inside_HW].mean(0)
    distance = {name: float(np.linalg.norm(mean - np.array(colour))) for name, colour in COLOURS.items()}
    colour = min(distance, key=lambda name: distance[name])
    down, right = (centre - shift) % side
    return Frame(
        colour if distance[colour] <= FARTHEST_COLOUR else None,
        shape if overlap[shape] >= LEAST_OVERLAP else None,
        (float(down), float(right)),
    )


def read_video(video_THWC: np.ndarray) -> Seen:
    """Read a video, uint8 `[frames, side, side, 3]` of two frames or more.

    Raises:
        MagiError: it is none.
    """
    shape = video_THWC.shape
    if video_THWC.dtype != np.uint8 or len(shape) != 4 or shape[0] < 2 or shape[1] != shape[2] or shape[3] != 3:
        got = f"{video_THWC.dtype} {list(shape)}"
        raise MagiError(f"the world of shapes is read from uint8 [2 frames or more, side, side, 3], got {got}")
    frames = [read_frame(frame_HWC) for frame_HWC in video_THWC]
    return Seen(
        _most([frame.colour for frame in frames]),
        _most([frame.shape for frame in frames]),
        _motion([frame.centre for frame in frames], shape[1]),
    )


def _most(names: Sequence[str | None]) -> str | None:
    """The name of more than half of them."""
    name, count = Counter(names).most_common(1)[0]
    return name if 2 * count > len(names) else None


def _motion(centres: Sequence[tuple[float, float] | None], side: int) -> str | None:
    """The direction of the mean step, if it has one; None where fewer than half of the steps are between two shapes."""
    steps = [
        (np.subtract(now, before) + side / 2) % side - side / 2
        for before, now in pairwise(centres)
        if before is not None and now is not None
    ]
    if 2 * len(steps) < len(centres) - 1:
        return None
    mean = np.mean(steps, axis=0)
    along = {name: float(mean @ np.array(direction)) for name, direction in MOTIONS.items()}
    motion = max(along, key=lambda name: along[name])
    across = float(np.abs(mean).min())
    return motion if along[motion] >= max(LEAST_STEP, LEAST_STRAIGHT * across) else None


def _round_mean(weights: np.ndarray) -> float:
    """The mean place of weights on a circle of as many places."""
    angles = 2 * np.pi * (np.arange(len(weights)) + 0.5) / len(weights)
    angle = np.arctan2((weights * np.sin(angles)).sum(), (weights * np.cos(angles)).sum())
    return float(angle / (2 * np.pi) * len(weights)) % len(weights)


def _overlap(one_HW: np.ndarray, other_HW: np.ndarray) -> float:
    return float(np.minimum(one_HW, other_HW).sum() / np.maximum(one_HW, other_HW).sum())
