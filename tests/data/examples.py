"""Small videos whose pixels tell which frame they are."""

import json
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from magi_video.video.video import read_frames, write_video

BLOCKS = 12  # bits


def numbered_frames(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """uint8 [count, H, W, 3]: the frame number as black and white columns, one bit each, safe from any compression."""
    frames = np.zeros((count, height, width, 3), dtype=np.uint8)
    for i in range(count):
        for bit in range(BLOCKS):
            left, right = bit * width // BLOCKS, (bit + 1) * width // BLOCKS
            frames[i, :, left:right] = 255 * (i >> bit & 1)
    return frames


def frame_numbers(frames: np.ndarray) -> list[int]:
    """Reads the numbers back from frames [T, H, W, 3], of any size, uint8."""
    width = frames.shape[2]
    centres = [(2 * bit + 1) * width // (2 * BLOCKS) for bit in range(BLOCKS)]
    bits = frames[:, frames.shape[1] // 2, centres].mean(axis=-1) > 127
    return [int(sum(1 << bit for bit in range(BLOCKS) if row[bit])) for row in bits]


def write_numbered(path: Path, count: int, rate: float = 25.0, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, numbered_frames(count, **size), rate)
    return path


def write_actions(video: Path, rows: list[dict]) -> Path:
    """Writes rows (dictionaries, or anything for a broken file) beside a video."""
    path = video.with_name(f"{video.stem}.actions.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    pixel: Fraction | None = None,
    options: dict[str, str] | None = None,
    **settings: int,
) -> Path:
    """A file of another codec than our own writer's, with B-frames for instance, or pixels `pixel` times as wide as
    high."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def set_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """Makes an mp4 file show a point x, y of its frames at a·x + c·y, b·x + d·y."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # of a header of version 0, up to its matrix
    unit = 2**16
    fixed = [round(value * unit) for value in (a, b, 0, c, d, 0, 0, 0)]
    content[at : at + 36] = struct.pack(">9i", *fixed, 2**30)
    path.write_bytes(content)
    return path


def replace_unseen(path: Path) -> None:
    """Put another video of the same name, length, size in bytes and time in a video's place."""
    status, frames = path.stat(), read_frames(path)
    write_video(path, np.full_like(frames, 90), 10.0, crf=51)
    missing = status.st_size - path.stat().st_size
    assert missing >= 8, "the replacement is filled up by an empty box, as muxers leave them"
    with path.open("ab") as file:
        file.write(missing.to_bytes(4, "big") + b"free" + bytes(missing - 8))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns
