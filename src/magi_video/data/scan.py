"""Looking through many video files: which there are, and what each holds.

Every file is decoded once to count its frames (UCF-101 takes some minutes on two cores); an index file remembers the
results, so that the next start only looks at names, sizes and times.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magi_video.data.files import write_json
from magi_video.data.inspection import Inspector
from magi_video.data.video import VIDEO_SUFFIXES, VideoInfo
from magi_video.errors import MagiError
from magi_video.limits import MAX_FRAMES, MAX_PIXELS
from magi_video.textfiles import parse_json, read_text

INDEX_VERSION = 1
FILES_PER_PROCESS = 8  # fewer are not worth starting another one


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and why, in a few words."""

    path: Path
    reason: str


def find_videos(root: Path) -> Iterator[Path | Skipped]:
    """All files below `root` with the suffix of a video, in sorted order; hidden ones are ignored, and nothing is
    followed out of the folder."""
    unreadable: list[Skipped] = []

    def note(error: OSError) -> None:
        unreadable.append(Skipped(Path(error.filename), "folder cannot be read"))

    for folder, folders, files in os.walk(root, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(folder) / name).is_symlink():
                yield Skipped(Path(folder) / name, "link to a folder")  # os.walk does not follow it
        for name in sorted(files):
            path = Path(folder) / name
            if not name.startswith(".") and path.suffix.lower() in VIDEO_SUFFIXES:
                yield path if is_inside(path, root) else Skipped(path, "link out of the folder")
    yield from unreadable


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


def inspect_videos(root: Path, paths: Sequence[Path], index: Path | None = None) -> list[VideoInfo | Skipped]:
    """What each file holds, in the order given; with `index`, remembered in that JSON file."""
    known = _read_index(index)
    keys = [_key(root, path) for path in paths]
    unknown = [(path, key) for path, key in zip(paths, keys, strict=True) if key not in known]
    processes = min(16, os.cpu_count() or 1, -(-len(unknown) // FILES_PER_PROCESS))

    stopped = threading.Event()

    def look(share: list[tuple[Path, str]]) -> dict[str, dict[str, Any]]:
        with Inspector() as inspector:
            return {key: _entry(inspector, path) for path, key in share if not stopped.is_set()}

    found = dict(known)
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
    return [
        Skipped(path, entries[key]["skipped"]) if "skipped" in entries[key] else VideoInfo(**entries[key])
        for path, key in zip(paths, keys, strict=True)
    ]


def _entry(inspector: Inspector, path: Path) -> dict[str, Any]:
    try:
        return asdict(inspector.inspect(path))
    except MagiError as error:
        return {"skipped": str(error).removeprefix(f"{path.absolute()}: ").removeprefix(f"{path}: ")}


def _key(root: Path, path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path.relative_to(root)}|missing"
    return f"{path.relative_to(root)}|{status.st_size}|{status.st_mtime_ns}"


def _read_index(index: Path | None) -> dict[str, dict[str, Any]]:
    """The remembered entries that are sound; an index that cannot be read is simply made anew."""
    if index is None:
        return {}
    try:
        stored = parse_json(read_text(index))
        if stored["version"] != INDEX_VERSION:
            return {}
        return {key: entry for key, entry in stored["videos"].items() if _is_sound(entry)}
    except (MagiError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_sound(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    if set(entry) == {"skipped"}:
        return isinstance(entry["skipped"], str)
    if set(entry) != {"num_frames", "height", "width", "frame_rate"}:
        return False
    counts = [entry["num_frames"], entry["height"], entry["width"]]
    if not all(type(n) is int and n > 0 for n in counts) or type(entry["frame_rate"]) is not float:
        return False
    return counts[0] <= MAX_FRAMES and counts[1] * counts[2] <= MAX_PIXELS and 0 <= entry["frame_rate"] < math.inf
