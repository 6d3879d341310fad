"""Folders of results: made when something is written, gone again when a command that failed left nothing in them."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from magi_video.errors import MagiError

LOCK_FILE = ".lock"
"""Of a folder that one run at a time works in (`files/lock.py`); empty."""
_made: list[Path] = []


def check_folder(folder: Path) -> None:
    """Refuse a folder of results that cannot be, because a file is in its place or above it; nothing is written.

    Raises:
        MagiError: which file.
    """
    place = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
    if place is not None and not os.path.isdir(place):
        what = "it" if place == folder else str(place)
        raise MagiError(f"{folder}: results cannot be written there ({what} is a file, not a folder)")


def check_file(path: Path) -> None:
    """Refuse a file of results that cannot be, because it is a folder, or its folder a file.

    Raises:
        MagiError: which.
    """
    check_folder(path.parent)
    if path.is_dir():
        raise MagiError(f"{path}: results cannot be written there (it is a folder, not a file)")


def ensure_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, unless it is there.

    Raises:
        OSError: it cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _made.extend(reversed(missing))


def make_folder(folder: Path) -> None:
    """Make the folder of results before the work, so that one that cannot be written is reported then, not hours later.

    Raises:
        MagiError: it cannot be made, or nothing can be written there.
    """
    check_folder(folder)
    try:
        ensure_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MagiError(f"{folder}: results cannot be written there ({error.strerror})") from None


@contextmanager
def no_empty_folders() -> Iterator[None]:
    """If what is done meanwhile fails, remove the folders that it made and left empty."""
    begun = len(_made)
    try:
        yield
    except BaseException:
        for folder in reversed(_made[begun:]):
            _remove_empty(folder)
        raise
    finally:
        del _made[begun:]


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        if os.listdir(folder) == [LOCK_FILE]:
            lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where another run has begun to work there
                (folder / LOCK_FILE).unlink()
            finally:
                os.close(lock)
        folder.rmdir()  # fails where there is anything
