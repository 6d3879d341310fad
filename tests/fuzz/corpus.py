"""Real small files in folders, a reader for each folder, and one file at a time damaged and mended."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import mutate_bytes, mutate_json


@dataclass(frozen=True)
class Reader:
    """Something that reads files of others.

    Attributes:
        files: those that are damaged, relative to the folder, in turn.
        read: reads from the folder; is told which file is damaged.
    """

    files: tuple[str, ...]
    read: Callable[[Path, str], None]


def damage(folder: Path, reader: Reader, seed: int) -> str:
    """Replace one file of a reader by a damaged copy of it; returns its name."""
    random = np.random.default_rng(seed)
    name, source = (reader.files[int(i)] for i in random.integers(len(reader.files), size=2))
    data, other = (_original(folder, one) for one in (name, source))
    change = mutate_json if name.endswith(".json") else mutate_bytes
    # A new file, not the old one written over: some readers remember a file by its number and time.
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(change(data, other, random))
    return name


def mend(folder: Path, name: str) -> None:
    """Undo `damage`."""
    shutil.copyfile(_copy(folder, name), folder / name)


@cache
def _original(folder: Path, name: str) -> bytes:
    return _copy(folder, name).read_bytes()


@cache
def _copy(folder: Path, name: str) -> Path:
    copy = folder.with_name(folder.name + ".whole") / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / name, copy)
    return copy
