"""Which files are videos, by their names; and whether a folder has any. Does not import PyTorch or PyAV."""

import os
from pathlib import Path

from magi_video.errors import MagiError
from magi_video.files.limits import follows_links

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe",
    ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".wmv", ".asf", ".flv", ".ogv", ".ogm", ".y4m", ".gif",
))
# fmt: on


def is_video(path: str | Path) -> bool:
    """Whether a file is a video by its name."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def check_videos(root: Path) -> None:
    """Refuse what is no folder, or one without a single file that is a video by its name.

    Raises:
        MagiError: there is none.
    """
    if not root.is_dir():
        raise MagiError(f"{root}: {'a file' if root.exists() else 'no such folder'}; expected a folder of videos")
    if follows_links():  # it may hold nothing but links, some of them in circles: the search itself knows how
        return
    walked = os.walk(root)
    if not any(is_video(name) for _, _, files in walked for name in files if not name.startswith(".")):
        raise MagiError(f"{root}: no usable video (no file below it is a video by its name)")
