"""What is scored: a list of videos or finished clips, each with a stable name, its frames read when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magi_video.data.scan import inspect_videos
from magi_video.data.walk import Skipped, find_videos
from magi_video.errors import MagiError
from magi_video.video.video import read_frames


@dataclass(frozen=True)
class Origin:
    """What a clip was before it was prepared for a score.

    Attributes:
        frame_rate: frames/s that it shows; None where nobody says so, as of an array.
        size: height and width in pixels.
    """

    frame_rate: float | None
    size: tuple[int, int]


class Clips:
    """A list of clips or videos.

    Args:
        names: one for each; the order is part of every result, so the list must be sorted by its maker.
        lengths: frames of each.
        read: `read(i, frames)` gives those frames of the i-th, uint8 `[T, H, W, 3]`.
        where: what the list is, for messages: a path, or "the generated clips".
        origins: of each.
        left_out: files that could not be used.
    """

    def __init__(
        self,
        names: Sequence[str],
        lengths: Sequence[int],
        read: Callable[[int, Sequence[int]], np.ndarray],
        where: str,
        origins: Sequence[Origin],
        *,
        left_out: int = 0,
    ) -> None:
        self.names, self.lengths, self.read = list(names), list(lengths), read
        self.where, self.origins, self.left_out = where, list(origins), left_out

    def __len__(self) -> int:
        return len(self.names)


def as_clips(source: Clips | Sequence[np.ndarray] | np.ndarray | str | Path, what: str = "clip") -> Clips:
    """A list of clips from whatever holds them.

    Args:
        source: arrays in memory (a list, or one array [N, T, H, W, 3]); a folder of `.npy` files or of videos; one
            `.npy` file [N, T, H, W, 3].
        what: what an array in memory is called in messages.

    Raises:
        MagiError: nothing there, arrays of another shape or dtype, pickled objects, or arrays of different sizes.
    """
    if isinstance(source, Clips):
        return source
    if isinstance(source, str | Path):
        return _from_path(Path(source))
    arrays = [check_clip(array, f"{what} {index}") for index, array in enumerate(source)]
    if not arrays:
        raise MagiError(f"no {what}s were given; expected at least two")
    names = [f"{index:06d}" for index in range(len(arrays))]
    _check_one_size([f"{what} {index}" for index in range(len(arrays))], arrays)
    lengths, origins = [len(one) for one in arrays], [_origin(one) for one in arrays]
    return Clips(names, lengths, lambda i, frames: _pick(arrays[i], frames), f"{what}s", origins)


def check_clip(array: Any, name: str) -> np.ndarray:
    """The array, if it is a clip."""
    if not isinstance(array, np.ndarray):
        raise MagiError(f"{name} is a {type(array).__name__}; expected a uint8 array [frames, height, width, 3]")
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise MagiError(
            f"{name} is {array.dtype} {list(array.shape)}; expected uint8 [frames, height, width, 3], none of them 0"
        )
    return array


def load_array(path: Path) -> np.ndarray:
    """A `.npy` file, mapped into memory; nothing is unpickled."""
    if not path.is_file():
        raise MagiError(f"{path}: {'not a regular' if path.exists() else 'no such'} file")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's reader raises whatever a damaged header makes it stumble over
        pickled = "Python objects" in str(error)
        reason = "it holds pickled objects" if pickled else " ".join(str(error).split())[:200]
        raise MagiError(f"{path}: not a .npy file of numbers ({reason})") from None


def hash_clip(clip_THWC: np.ndarray) -> str:
    """SHA-256 of a clip's shape and pixels."""
    digest = hashlib.sha256(str(clip_THWC.shape).encode())
    digest.update(np.ascontiguousarray(clip_THWC).data)
    return digest.hexdigest()


def _from_path(path: Path) -> Clips:
    if path.suffix == ".npy" and not path.is_dir():
        clips_NTHWC = load_array(path)
        if clips_NTHWC.dtype != np.uint8 or clips_NTHWC.ndim != 5 or clips_NTHWC.shape[-1] != 3 or not clips_NTHWC.size:
            raise MagiError(
                f"{path} is {clips_NTHWC.dtype} {list(clips_NTHWC.shape)}; "
                "expected uint8 [clips, frames, height, width, 3], none of them 0"
            )
        count, length = clips_NTHWC.shape[:2]
        names = [f"{index:06d}" for index in range(count)]
        origins = [_origin(clips_NTHWC[0])] * count
        return Clips(names, [length] * count, lambda i, frames: _pick(clips_NTHWC[i], frames), str(path), origins)
    if not path.is_dir():
        raise MagiError(f"{path}: no such folder; expected a folder of videos or .npy files, or one .npy file")
    arrays = sorted(one for one in path.rglob("*.npy") if not one.name.startswith("."))
    found = find_videos(path)
    videos = found.videos
    if arrays and videos:
        raise MagiError(f"{path}: holds {videos[0].name} and {arrays[0].name}; expected either videos or .npy files")
    if arrays:
        return _from_arrays(path, arrays)
    if videos:
        return _from_videos(path, videos, len(found.skipped))
    raise MagiError(f"{path}: nothing to score in it; expected videos or .npy files")


def _from_arrays(folder: Path, paths: list[Path]) -> Clips:
    lengths, origins, first = [], [], None
    for path in paths:  # one by one: a map is an open file
        clip = check_clip(load_array(path), str(path))
        first = clip if first is None else first
        _check_one_size([str(paths[0]), str(path)], [first, clip])
        lengths.append(len(clip))
        origins.append(_origin(clip))
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    return Clips(names, lengths, lambda i, frames: _pick(load_array(paths[i]), frames), str(folder), origins)


def _from_videos(folder: Path, paths: list[Path], left_out: int) -> Clips:
    looked = inspect_videos(folder, paths)
    usable = [(path, one.info) for path, one in zip(paths, looked, strict=True) if not isinstance(one, Skipped)]
    if not usable:
        reason = looked[0].reason if isinstance(looked[0], Skipped) else ""
        raise MagiError(f"{folder}: none of its {len(paths)} videos can be read ({paths[0].name}: {reason})")
    return Clips(
        [path.relative_to(folder).with_suffix("").as_posix() for path, _ in usable],
        [info.num_frames for _, info in usable],
        lambda i, frames: read_frames(usable[i][0], frames, num_frames=usable[i][1].num_frames),
        str(folder),
        [Origin(info.frame_rate or None, (info.height, info.width)) for _, info in usable],
        left_out=left_out + len(paths) - len(usable),
    )


def _origin(clip_THWC: np.ndarray) -> Origin:
    height, width = clip_THWC.shape[1:3]
    return Origin(None, (height, width))


def _pick(array: np.ndarray, frames: Sequence[int]) -> np.ndarray:
    return np.array(array[list(frames)])


def _check_one_size(names: list[str], clips: list[np.ndarray]) -> None:
    for name, clip in zip(names, clips, strict=True):
        if clip.shape[1:3] != clips[0].shape[1:3]:
            (h, w), (height, width) = clip.shape[1:3], clips[0].shape[1:3]
            raise MagiError(f"{name} has {h} × {w} pixels, {names[0]} {height} × {width}; expected one size")
