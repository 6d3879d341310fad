"""Locks on folders: one run at a time works in each."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magi_video.errors import MagiError
from magi_video.files.atomic import remove_orphans
from magi_video.files.folders import LOCK_FILE, check_folder, ensure_folder, make_folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While entered, no other process can be; a lock of the system, which ends with this one, however that ends.

    Children, which may outlive this process, do not hold the lock with it, as they would that of `flock`. What a killed
    process has left half-written is removed.

    Raises:
        MagiError: another process is, or a file is in the folder's place.
    """
    check_folder(folder)
    try:
        ensure_folder(folder)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:  # a read-only folder needs no lock: the write itself will fail
        yield
        return
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink == 0:  # a run that failed is removing its empty folder
                raise BlockingIOError
        except (BlockingIOError, PermissionError):
            raise MagiError(f"{folder}: another run is at work there; wait for its end, or use another --out") from None
        except OSError:  # a file system without locks
            pass
        else:
            remove_left_over(folder)
        yield
    finally:
        os.close(lock)


def remove_left_over(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder, and in those inside that have no lock."""
    for place, inside, _ in os.walk(folder):
        inside[:] = [name for name in inside if not os.path.lexists(os.path.join(place, name, LOCK_FILE))]
        remove_orphans(Path(place))


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """As `alone`, for a folder of results that shall hold nothing else: the lock is on the folder itself, no file.

    Raises:
        MagiError: another process writes there, or the folder cannot be made.
    """
    make_folder(folder)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MagiError(f"{folder}: another run is at work there; wait for its end, or use another --out") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(lock)
