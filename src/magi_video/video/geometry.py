"""How a player shows a video's frames: made of square pixels, then turned and mirrored.

A file stores frames as its camera had them, and beside them the shape of a pixel (sample aspect ratio) and a matrix
that says how to hold the picture. Players follow both, and so does all that is read here: sizes are those shown.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magi_video.errors import MagiError
from magi_video.files.limits import MAX_PIXELS

NAMES = {
    (False, False, False): "",
    (False, False, True): "mirrored",
    (False, True, False): "mirrored, turned 180 degrees",
    (False, True, True): "turned 180 degrees",
    (True, False, False): "mirrored, turned 90 degrees anticlockwise",
    (True, False, True): "turned 90 degrees clockwise",
    (True, True, False): "turned 90 degrees anticlockwise",
    (True, True, True): "mirrored, turned 90 degrees clockwise",
}


@dataclass(frozen=True)
class Geometry:
    """What makes shown frames of decoded ones; that of a file is that of its first frame.

    Attributes:
        stored: (height, width) of the decoded frames, in pixels.
        stretched: (height, width) with square pixels: the height stays, the width follows.
        swapped: then rows become columns,
        flip_rows: then the last row becomes the first,
        flip_columns: and the last column.
    """

    stored: tuple[int, int]
    stretched: tuple[int, int]
    swapped: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) of the frames that a player shows, in pixels."""
        height, width = self.stretched
        return (width, height) if self.swapped else (height, width)

    def turn(self, frame: np.ndarray) -> np.ndarray:
        """A stretched frame [H, W, C] the way it is shown, contiguous."""
        frame = frame.swapaxes(0, 1) if self.swapped else frame
        frame = frame[::-1] if self.flip_rows else frame
        return np.ascontiguousarray(frame[:, ::-1] if self.flip_columns else frame)

    def __str__(self) -> str:
        """What is done to the decoded frames, in words; empty if nothing."""
        (height, width), (_, wide) = self.stored, self.stretched
        stretched = f"{width} x {height} stretched to {wide} x {height}" if wide != width else ""
        return ", ".join(filter(None, (stretched, NAMES[self.swapped, self.flip_rows, self.flip_columns])))


def find_geometry(path: Path, stream: Any, frame: Any) -> Geometry:
    """The geometry of a file, from its stream and its first decoded frame.

    Raises:
        MagiError: stretched frames would be less than a pixel wide, or more than 2**25 pixels.
    """
    stored = height, width = frame.height, frame.width
    pixel = stream.sample_aspect_ratio or 1  # the container's, as players do; None where nothing sensible is said
    wide = int(width * pixel + 0.5)
    if wide < 1 or wide * height > MAX_PIXELS:
        raise MagiError(
            f"{path}: frames of {width} x {height} pixels that are shown {float(pixel):g} times as wide as high; "
            f"expected a width of at least 1 and at most {MAX_PIXELS} pixels a frame"
        )
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return Geometry(stored, (height, wide), *find_orientation(b"" if matrix is None else bytes(matrix)))


def find_orientation(matrix: bytes) -> tuple[bool, bool, bool]:
    """Of FFmpeg's display matrix, nine int32, the nearest of the eight ways to hold a picture without scaling it.

    Returns:
        `swapped`, `flip_rows` and `flip_columns` of a `Geometry`; as stored for anything that is no such matrix.
    """
    if len(matrix) != 36:
        return False, False, False
    # A point x, y of the stored picture is shown at a·x + c·y, b·x + d·y; both y go down.
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0
