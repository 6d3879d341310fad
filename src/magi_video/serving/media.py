"""Frames as the page gets them: JPEG, and the files to take home."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from magi_video.video.image import contact_sheet, spread_frames, write_image
from magi_video.video.video import enlarge, write_video

JPEG_QUALITY = 92
VIEW_SIDE = 256
"""Small videos are enlarged, by a whole number, until their short side has this many pixels."""
SHEET_FRAMES = 30


def as_uint8(frame_BHWC: np.ndarray) -> np.ndarray:
    """The only video of a pipeline's output, floats in [0, 1], as uint8 [H, W, 3]."""
    return (frame_BHWC[0] * 255).round().astype(np.uint8)


def jpeg(frame: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as JPEG with full colour resolution."""
    encoded = io.BytesIO()
    Image.fromarray(frame).save(encoded, format="jpeg", quality=JPEG_QUALITY, subsampling=0)
    return encoded.getvalue()


def write_mp4(path: Path, frames: Sequence[np.ndarray], rate: float) -> None:
    """The video as H.264."""
    write_video(path, np.stack(frames), rate, min_side=VIEW_SIDE)


def write_gif(path: Path, frames: Sequence[np.ndarray], rate: float) -> None:
    """The video as an endless GIF; its clock ticks in 1/100 s, so each frame's time is rounded where the sum is not."""
    pictures = [Image.fromarray(enlarge(frame, VIEW_SIDE // 2)) for frame in frames]
    ticks = np.diff(np.round(np.arange(len(frames) + 1) * 100 / rate)).astype(int)
    durations: Any = [10 * max(2, int(tick)) for tick in ticks]  # faster ones are slowed down by what shows them
    pictures[0].save(path, format="gif", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def write_sheet(path: Path, frames: Sequence[np.ndarray], rate: float) -> None:
    """At most 30 frames as one picture, numbered."""
    numbers = spread_frames(len(frames), SHEET_FRAMES)
    kept = np.stack([frames[number] for number in numbers])
    write_image(path, contact_sheet([kept], columns=10, max_frames=SHEET_FRAMES, numbers=numbers))


FILES = {"video.mp4": write_mp4, "video.gif": write_gif, "contact.png": write_sheet}
"""What can be downloaded of a video, by name."""
