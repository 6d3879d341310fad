"""Small videos whose pixels tell which frame they are."""

from pathlib import Path

import numpy as np

from magi_video.data import write_video

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
    import json

    path = video.with_name(f"{video.stem}.actions.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
