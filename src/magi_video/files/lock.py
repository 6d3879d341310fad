"""Whose a folder is: it belongs to one recipe for good, and to one run at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magi_video.errors import MagiError
from magi_video.files.atomic import make_folder, remove_orphans, write_json
from magi_video.files.json import read_json

if TYPE_CHECKING:
    from magi_video.distributed import Processes

LOCK_FILE = ".lock"
"""Empty; it stays, for a file that is removed can be locked by two."""
MOST_TOLD = 40
"""Characters of a value in a message."""


@contextmanager
def claimed(
    record: Path,
    now: dict[str, Any],
    holds: str,
    processes: Processes,
    lasting: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    carried: Callable[[dict[str, Any] | None], dict[str, Any]] = lambda saved: {},
) -> Iterator[None]:
    """Record in a folder what it was made for, and let no other run work there meanwhile: `settle`, while `alone`.

    Args:
        record, now, holds, lasting, carried: as for `settle`.
        processes: of this run; all come together, and the main one claims the folder for all.

    Raises:
        MagiError: another run works in the folder, or other settings are recorded there; raised in every process.
    """
    with ExitStack() as held:
        processes.once(lambda: held.enter_context(alone(record.parent)))
        processes.once(lambda: settle(record, now, holds, lasting, carried))
        yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While entered, no other process can be; a lock of the system, which ends with this one, however that ends.

    Children, which may outlive this process, do not hold the lock with it, as they would that of `flock`. What a killed
    process has left half-written is removed.

    Raises:
        MagiError: another process is.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:  # where nothing can be written nobody is at work, and whoever tries to is told by the file he wants
        yield
        return
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def settle(
    record: Path,
    now: dict[str, Any],
    holds: str,
    lasting: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    carried: Callable[[dict[str, Any] | None], dict[str, Any]] = lambda saved: {},
) -> None:
    """Record in a folder what it was made for.

    Args:
        record: file of the folder; `now` is written to it.
        now: recipe and seed, or whatever else what lies there depends on.
        holds: what lies in the folder, for the message: "a run", "latents".
        lasting: the part of a record that may never change.
        carried: from the record so far, what it holds besides `now`; may refuse, by a `MagiError`.

    Raises:
        MagiError: other settings are recorded there.
    """
    now = json.loads(json.dumps(now))
    saved = read_json(record) if record.exists() else None
    if saved is not None and (changes := differences(lasting(saved), lasting(now))):
        told = f"{record.parent} holds {holds} made with other settings ({'; '.join(changes)})"
        raise MagiError(f"{told}; use another --out")
    now |= json.loads(json.dumps(carried(saved)))
    if saved != now:
        write_json(record, now)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not the same in two (nested) settings: "name before → now"."""
    found = []
    for name in sorted({*before, *now}):
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b)
        elif a != b:
            found.append(f"{name} {_short(a)} → {_short(b)}")
    return found


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else str(value)
    return text if len(text) <= MOST_TOLD else f"{text[:12]}…"
