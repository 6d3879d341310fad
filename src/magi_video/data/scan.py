"""Looking through many video files: which there are, and what each holds.

Every file is decoded once to count its frames (UCF-101 takes some minutes on two cores); an index file remembers the
results, so that the next start only looks at names, sizes and times.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magi_video.data.files import write_json
from magi_video.data.video import VIDEO_SUFFIXES, VideoInfo, inspect_video
from magi_video.errors import MagiError

INDEX_VERSION = 1


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
    return path.resolve().is_relative_to(root.resolve())


def inspect_videos(root: Path, paths: Sequence[Path], index: Path | None = None) -> list[VideoInfo | Skipped]:
    """What each file holds, in the order given; with `index`, remembered in that JSON file."""
    known = _read_index(index)
    keys = [_key(root, path) for path in paths]

    def look(path: Path, key: str) -> dict[str, Any]:
        if key in known:
            return known[key]
        try:
            return asdict(inspect_video(path))
        except MagiError as error:
            return {"skipped": str(error).removeprefix(f"{path}: ")}

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # decoding releases the interpreter's lock
        found = list(pool.map(look, paths, keys))
    entries = dict(zip(keys, found, strict=True))
    if index is not None and entries != known:
        write_json(index, {"version": INDEX_VERSION, "videos": entries})
    return [
        Skipped(path, e["skipped"]) if "skipped" in e else VideoInfo(**e) for path, e in zip(paths, found, strict=True)
    ]


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
        stored = json.loads(index.read_text(encoding="utf-8"))
        if stored["version"] != INDEX_VERSION:
            return {}
        return {key: entry for key, entry in stored["videos"].items() if _is_sound(entry)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _is_sound(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    if set(entry) == {"skipped"}:
        return isinstance(entry["skipped"], str)
    if set(entry) != {"num_frames", "height", "width", "frame_rate"}:
        return False
    counts = [entry["num_frames"], entry["height"], entry["width"]]
    return all(type(n) is int and n > 0 for n in counts) and isinstance(entry["frame_rate"], (int, float))
