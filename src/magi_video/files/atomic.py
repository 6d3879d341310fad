"""Files written completely or not at all: under a temporary name first, then renamed.

A process that is killed leaves such a name behind. The next one that writes into the same folder removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from magi_video.errors import MagiError
from magi_video.files.folders import ensure_folder

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""Stands in temporary names: a process of another machine, which may share the folder, is not dead for being unknown
here."""
PART = re.compile(rf"\..+\.{HOST}\.(\d+)\.part")
_swept: set[Path] = set()
_lock = threading.Lock()


def part_beside(path: Path) -> Path:
    """A temporary name for what will lie at `path`, file or folder: this process's own, in the same folder.

    In each folder the first call removes what killed processes of this machine have left there.
    """
    with _lock:
        folder = path.parent.absolute()
        if folder not in _swept:
            _swept.add(folder)
            remove_orphans(folder)
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")


def remove_orphans(folder: Path) -> None:
    """Remove temporary files and folders of processes of this machine that are no more."""
    try:
        found = [(Path(entry.path), match) for entry in os.scandir(folder) if (match := PART.fullmatch(entry.name))]
    except OSError:
        return
    for path, match in found:
        if not _is_running(int(match[1])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # it has not written here yet: a process of the same number has
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's
    return True


@contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """A folder among the system's temporary ones, removed afterwards; what killed processes left there is as well."""
    folder = part_beside(Path(tempfile.gettempdir(), f"magi-{what}"))
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def set_usual_mode(part: Path) -> None:
    """Give a file that is about to get its name the mode of any new file, 0o666 without the process's umask.

    safetensors renames a temporary file of its own, which its owner alone may read.

    Args:
        part: the file, under a name of this process's own or in such a folder.
    """
    if stat.S_IMODE(part.stat().st_mode) != 0o600:
        return
    fresh = part.with_name(f"{part.name}.mode")
    try:
        fresh.touch()  # to ask for the umask is to change it, for all threads
        part.chmod(stat.S_IMODE(fresh.stat().st_mode))
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; renames it on success, removes it otherwise. An OSError
    becomes a MagiError."""
    part = part_beside(path)
    try:
        ensure_folder(path.parent)
        yield part
        set_usual_mode(part)
        part.replace(path)
    except OSError as error:
        raise MagiError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if part.exists():
            part.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a dictionary as JSON."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def files_sha256(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over names below `root`, sizes and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A second name for a file that is never changed in place; a copy where the file system knows no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an array as `.npy`, without loss; nothing is pickled."""
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, array, allow_pickle=False)


@contextmanager
def growing_array(path: Path, shape: Sequence[int], dtype: DTypeLike) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives a function that appends pieces [n, *shape[1:]] to an `.npy` file; no more than a piece is held in memory.

    The file is there, with the bytes of `write_array`, once all of `shape` is written. It grows by ordinary writes: in
    a memory map, a full disk would kill the process instead of raising an error.

    Raises:
        MagiError: the file cannot be written, or the pieces do not make up an array of this shape and type.
    """
    element, row, length = np.dtype(dtype), tuple(shape[1:]), 0
    header = {"descr": np.lib.format.dtype_to_descr(element), "fortran_order": False, "shape": tuple(shape)}
    with replacing(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)

        def append(piece: np.ndarray) -> None:
            nonlocal length
            if piece.dtype != element or piece.shape[1:] != row:
                raise MagiError(f"{path}: a piece is {piece.dtype} {piece.shape}; expected {element} [n, *{row}]")
            file.write(piece.tobytes())
            length += len(piece)

        yield append
        if length != shape[0]:
            raise MagiError(f"{path}: {length} rows were written; expected {shape[0]}")
