"""Looking for video files below a folder. Does not import PyTorch or PyAV."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from magi_video.errors import MagiError
from magi_video.files.limits import follows_links
from magi_video.video.names import is_video


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and why, in a few words."""

    path: Path
    reason: str


COMPANIONS = frozenset((".txt", ".json", ".jsonl", ".csv", ".md"))
"""Suffixes of captions, actions, lists and notes, which belong beside videos."""


@dataclass
class Found:
    """What lies below a folder: videos in sorted order; what cannot be used; how many other files by suffix."""

    videos: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


NO_VIDEO = "no video by its name"
UNREADABLE = "folder cannot be read"


def walk(root: Path, follow_links: bool) -> Iterator[tuple[Path, str | None]]:
    """What lies below a folder: files in sorted order, and folders that are not looked into; hidden ones are ignored.

    Args:
        root: a folder.
        follow_links: use links out of the folder and links to folders too, each folder once; see `VideoFolder`.

    Yields:
        A path, and why it is no video to be used; None of one that is.
    """
    unreadable: list[Path] = []
    entered = {_identity(root)}
    for folder, folders, files in os.walk(
        root, onerror=lambda error: unreadable.append(Path(error.filename)), followlinks=follow_links
    ):
        kept = []
        for path in (Path(folder) / name for name in sorted(folders) if not name.startswith(".")):
            if not follow_links and path.is_symlink():
                yield path, "link to a folder"
            elif follow_links and (identity := _identity(path)) in entered:
                yield path, "folder that is there already"
            else:
                entered |= {identity} if follow_links else set()
                kept.append(path.name)
        folders[:] = kept
        for path in (Path(folder) / name for name in sorted(files) if not name.startswith(".")):
            if not is_video(path):
                yield path, NO_VIDEO
            else:
                yield path, None if follow_links or is_inside(path, root) else "link out of the folder"
    yield from ((path, UNREADABLE) for path in unreadable)


def find_videos(root: Path, follow_links: bool | None = None) -> Found:
    """All files below `root` with the suffix of a video: see `walk`.

    Args:
        root: a folder.
        follow_links: as of `walk`; if not given, what the command line says.
    """
    found = Found()
    for path, reason in walk(root, follows_links() if follow_links is None else follow_links):
        if reason is None:
            found.videos.append(path)
        elif reason == NO_VIDEO:
            suffix = path.suffix.lower()
            found.ignored[suffix] += suffix not in COMPANIONS
        else:
            found.skipped.append(Skipped(path, reason))
    return found


def check_videos(root: Path) -> None:
    """Refuse what is no folder, or one without a single file that is a video by its name.

    Raises:
        MagiError: there is none, or the folder, or all there is below it, cannot be read.
    """
    try:
        is_folder = root.is_dir()
    except OSError as error:
        raise MagiError(f"{root}: cannot be read ({error.strerror})") from None
    if not is_folder:
        raise MagiError(f"{root}: {'a file' if root.exists() else 'no such folder'}; expected a folder of videos")
    reasons: Counter[str] = Counter()
    for path, reason in walk(root, follows_links()):
        if reason is None:
            return
        if reason == UNREADABLE and path == root:
            raise MagiError(f"{root}: this folder cannot be read")
        reasons[reason] += reason != NO_VIDEO
    unused = ", ".join(f"{count} × {reason}" for reason, count in reasons.items() if count)
    raise MagiError(f"{root}: no usable video ({unused or 'no file below it is a video by its name'})")


def _identity(folder: Path) -> tuple[int, int] | str:
    try:
        status = folder.stat()
        return status.st_dev, status.st_ino
    except OSError:
        return str(folder)


def tell_ignored(ignored: Counter[str]) -> str:
    """ "31 files are no videos by their names (20 .jpg, 9 .mxf, 2 others)"; empty where there are none."""
    count = ignored.total()
    if not count:
        return ""
    common = ignored.most_common(3)
    words = [f"{number} {suffix or 'without a suffix'}" for suffix, number in common if number]
    rest = count - sum(number for _, number in common)
    words += [f"{rest} others"] if rest else []
    files = "1 file is no video by its name" if count == 1 else f"{count} files are no videos by their names"
    return f"{files} ({', '.join(words)})"


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, links followed, lies below `root`."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # a name too long, a zero byte in it, links in a circle
        return False


def is_file(path: Path) -> bool:
    """Whether there is such a regular file; also for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
