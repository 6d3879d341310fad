"""Which files are videos and which are pictures, by their names. Does not import PyTorch or PyAV."""

from pathlib import Path

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe",
    ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".wmv", ".asf", ".flv", ".ogv", ".ogm", ".y4m", ".gif",
))
PICTURE_SUFFIXES = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
))
# fmt: on
"""Of the formats that `video.image` reads. A GIF may be either."""


def is_video(path: str | Path) -> bool:
    """Whether a file is a video by its name."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def is_picture(path: str | Path) -> bool:
    """Whether a file is a picture by its name."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES
