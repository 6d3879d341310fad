"""Contact sheets: the same clips by every row, one below the other."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from magi_video.video.image import contact_sheet, write_image

SHEET_CLIPS, SHEET_FRAMES = 2, 16
SHEET_SIDE = 64  # pixels of a small frame's short side


def write_sheet(path: Path, rows: Iterable[tuple[str, np.ndarray]], frames: int = SHEET_FRAMES) -> None:
    """A row of pictures for each video, under its label; nothing where there is no row.

    Args:
        path: of the picture.
        rows: label and video, uint8 [T, H, W, 3].
        frames: of a video, at most.
    """
    found = list(rows)
    if found:
        labels, videos = zip(*found, strict=True)
        sheet = contact_sheet(videos, columns=frames, max_frames=frames, labels=labels, min_side=SHEET_SIDE)
        write_image(path, sheet)
