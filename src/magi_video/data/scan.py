"""Looking through many video files: which there are, and what each holds.

Every file is decoded once to count its frames (UCF-101 takes some minutes on two cores); an index file remembers the
results, so that the next start only looks at names, sizes, times and three blocks of each file (`identity.py`).
An index of version 1 is from before frames were turned and stretched as they are shown: of a file that it names one
frame is decoded, and all only where that makes a difference. One of version 2 is from before contents were known: they
are read.
"""

from __future__ import annotations

import math
import os
import stat
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from magi_video.data.digests import DIGITS, content_digest, sample_digest
from magi_video.data.walk import Skipped
from magi_video.errors import MagiError
from magi_video.files.atomic import write_json
from magi_video.files.json import parse_json, read_text
from magi_video.files.limits import MAX_FRAMES, MAX_PIXELS
from magi_video.video.inspection import Inspector
from magi_video.video.video import VideoInfo

INDEX_VERSION = 3
UNIDENTIFIED_VERSION = 2  # keys of name, size and time alone; no digests of contents
STORED_VERSION = 1  # likewise; and sizes and frames as stored
FILES_PER_PROCESS = 8  # fewer are not worth starting another one
READERS = 16
"""Threads that wait for the blocks of files."""


@dataclass(frozen=True)
class Inspected:
    """What a file holds, and the digest of its content."""

    info: VideoInfo
    content: str


def inspect_videos(root: Path, paths: Sequence[Path], index: Path | None = None) -> list[Inspected | Skipped]:
    """What each file holds, in the order given; with `index`, remembered in that JSON file.

    A file is looked through again where its name, size, time or one of three blocks is not what the index remembers.
    """
    known, older = _read_index(index)
    keys = _keys(root, paths)
    found = dict(known)
    unknown = [(path, key) for path, key in zip(paths, keys, strict=True) if key not in known]
    processes = min(16, os.cpu_count() or 1, -(-len(unknown) // FILES_PER_PROCESS))

    stopped = threading.Event()

    def look(share: list[tuple[Path, str]]) -> dict[str, dict[str, Any]]:
        with Inspector() as inspector:
            return {
                key: _entry(inspector, path, older.get(_without_sample(key)))
                for path, key in share
                if not stopped.is_set()
            }

    if processes:
        with ThreadPoolExecutor(processes) as pool:
            try:
                for looked in pool.map(look, [unknown[i::processes] for i in range(processes)]):
                    found |= looked
            finally:
                stopped.set()  # an interruption need not wait for all the files
    entries = {key: found[key] for key in keys}
    if index is not None and entries != known:
        write_json(index, {"version": INDEX_VERSION, "videos": entries})
    return [_inspected(path, entries[key]) for path, key in zip(paths, keys, strict=True)]


@dataclass(frozen=True)
class Older:
    """An entry of an older index; it holds, `as_stored` where the file is shown as it is stored."""

    entry: dict[str, Any]
    as_stored: bool


def _inspected(path: Path, entry: dict[str, Any]) -> Inspected | Skipped:
    if "skipped" in entry:
        return Skipped(path, entry["skipped"])
    return Inspected(VideoInfo(**{name: value for name, value in entry.items() if name != "content"}), entry["content"])


def _entry(inspector: Inspector, path: Path, older: Older | None) -> dict[str, Any]:
    """What there is to remember of a file."""
    try:
        if older is None or (older.as_stored and not inspector.is_shown_as_stored(path)):
            entry = asdict(inspector.inspect(path))
        else:
            entry = older.entry
        return entry if "skipped" in entry else entry | {"content": content_digest(path)}
    except MagiError as error:
        return {"skipped": str(error).removeprefix(f"{path.absolute()}: ").removeprefix(f"{path}: ")}
    except OSError as error:
        return {"skipped": error.strerror or str(error)}


def _keys(root: Path, paths: Sequence[Path]) -> list[str]:
    """Of each file; read by some threads at once, since most of the time is waiting for a disk or a server."""
    keys = [""] * len(paths)

    def read(first: int) -> None:
        for number in range(first, len(paths), READERS):
            keys[number] = _key(root, paths[number])

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, range(READERS)))
    return keys


def _key(root: Path, path: Path) -> str:
    name = path.relative_to(root)
    try:
        status = path.stat()
    except OSError:
        return f"{name}|missing"
    sample = ""
    if stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
        with suppress(OSError):  # the inspection says why it cannot be read
            sample = sample_digest(path)
    return f"{name}|{status.st_size}|{status.st_mtime_ns}|{sample}"


def _without_sample(key: str) -> str:
    return key.rpartition("|")[0]


def _read_index(index: Path | None) -> tuple[dict[str, dict[str, Any]], dict[str, Older]]:
    """The remembered entries that are sound: those that hold, and those of an older index, by its keys. An index that
    cannot be read is simply made again."""
    if index is None:
        return {}, {}
    try:
        content = parse_json(read_text(index))
        version, entries = content["version"], content["videos"]
        if version == STORED_VERSION:  # another stream may be taken today of what could not be used then
            entries = {key: {**entry, "shown": ""} for key, entry in entries.items() if "skipped" not in entry}
        sound = {key: entry for key, entry in entries.items() if _is_sound(entry, version == INDEX_VERSION)}
    except (MagiError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}
    if version == INDEX_VERSION:
        return sound, {}
    if version not in (STORED_VERSION, UNIDENTIFIED_VERSION):
        return {}, {}
    return {}, {key: Older(entry, version == STORED_VERSION) for key, entry in sound.items()}


def _is_sound(entry: Any, identified: bool) -> bool:
    if not isinstance(entry, dict):
        return False
    if set(entry) == {"skipped"}:
        return isinstance(entry["skipped"], str)
    expected = {one.name for one in fields(VideoInfo)} | ({"content"} if identified else set())
    if set(entry) != expected:
        return False
    if identified and (not isinstance(entry["content"], str) or len(entry["content"]) != DIGITS):
        return False
    counts = [entry["num_frames"], entry["height"], entry["width"]]
    if not all(type(n) is int and n > 0 for n in counts) or type(entry["frame_rate"]) is not float:
        return False
    if not isinstance(entry["shown"], str):
        return False
    return counts[0] <= MAX_FRAMES and counts[1] * counts[2] <= MAX_PIXELS and 0 <= entry["frame_rate"] < math.inf
