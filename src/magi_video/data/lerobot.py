"""LeRobot data sets, layouts v2.0 to v3.0: `meta/info.json`, actions in Parquet, a video file for each camera.

In v2 each episode has its own Parquet and video files; in v3 many share one, and `meta/episodes/` says where each
begins. Row t of the actions is the one taken at frame t, as in our recordings. Needs pyarrow; its Parquet reader
unpickles nothing, and every path that the data set names is checked to lie inside it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from magi_video.data.importing import Source, check_names, check_rate, check_size, choose_camera
from magi_video.data.scan import is_file, is_inside
from magi_video.data.video import read_frames
from magi_video.errors import MagiError
from magi_video.limits import MAX_FRAMES, MAX_READ_BYTES
from magi_video.textfiles import read_json

FIELD = re.compile(r"\{(\w+)(?::0?(\d))?(?:d)?\}")
FRAMES_AT_ONCE = 128
MAX_PATH = 500  # characters


@dataclass(frozen=True)
class Place:
    """Where an episode lies: its Parquet file, its video, and the first frame of it there."""

    data: Path
    video: Path
    first_frame: int


class LeRobotSource(Source):
    """See the module. Arguments and errors as `open_source`."""

    def __init__(self, root: Path, camera: str | None, frame_rate: float | None) -> None:
        self.root = root
        path = root / "meta" / "info.json"
        info = read_json(path)
        version = str(info.get("codebase_version"))
        if not re.fullmatch(r"v[23]\.\d+", version):
            raise MagiError(f"{path}: layout {version[:20]!r}; expected v2.0 to v3.0")
        self.shared_files = version.startswith("v3")
        features = info.get("features")
        if not isinstance(features, dict) or not all(isinstance(one, dict) for one in features.values()):
            raise MagiError(f"{path}: expected features, an object of objects")
        shape = features.get("action", {}).get("shape")
        if not isinstance(shape, list) or len(shape) != 1:
            raise MagiError(f"{path}: actions of shape {str(shape)[:40]}; expected one dimension")
        self.action_names = check_names(features["action"].get("names"), check_size(shape[0], path))
        cameras = [name for name, feature in features.items() if feature.get("dtype") == "video"]
        if not cameras and any(feature.get("dtype") == "image" for feature in features.values()):
            raise MagiError(f"{path}: pictures inside the Parquet files; expected a data set with videos")
        self.camera = choose_camera(cameras, camera, path)
        self.frame_rate = check_rate(info.get("fps") if frame_rate is None else frame_rate, path)
        self.stored_rate = check_rate(info.get("fps"), path)
        self.num_episodes = _count(info.get("total_episodes"), path, "total_episodes")
        self.chunk = max(1, _count(info.get("chunks_size", 1000), path, "chunks_size"))
        self.data_path, self.video_path = (str(info.get(key)) for key in ("data_path", "video_path"))
        self.index = self._read_index() if self.shared_files else {}

    def actions(self, episode: int) -> np.ndarray:
        """See `Source.actions`."""
        place = self._place(episode)
        episodes_N, frames_N, actions_NA = read_actions_table(place.data, len(self.action_names))
        rows = np.flatnonzero(episodes_N == episode)
        rows = rows[np.argsort(frames_N[rows], kind="stable")]
        if not (frames_N[rows] == np.arange(len(rows))).all():
            raise MagiError(f"{place.data}: episode {episode} has not one row for every frame")
        return actions_NA[rows]

    def frames(self, episode: int, count: int) -> Iterator[np.ndarray]:
        """See `Source.frames`."""
        place = self._place(episode)
        for first in range(0, count, FRAMES_AT_ONCE):
            start = place.first_frame + first
            yield read_frames(place.video, range(start, start + min(FRAMES_AT_ONCE, count - first)))

    def _place(self, episode: int) -> Place:
        if not self.shared_files:
            fields = {"episode_chunk": episode // self.chunk, "episode_index": episode, "video_key": self.camera}
            return Place(self._file(self.data_path, fields), self._file(self.video_path, fields), 0)
        if episode not in self.index:
            raise MagiError(f"{self.root / 'meta' / 'episodes'}: no episode {episode}")
        data, video, seconds = self.index[episode]
        key = {"video_key": self.camera}
        return Place(
            self._file(self.data_path, {"chunk_index": data[0], "file_index": data[1]} | key),
            self._file(self.video_path, {"chunk_index": video[0], "file_index": video[1]} | key),
            round(seconds * self.stored_rate),
        )

    def _file(self, template: str, fields: dict[str, Any]) -> Path:
        """A file that the data set names by a pattern; nothing but known fields is put in, and no path leads out."""
        path = self.root / fill(template, fields)
        if not is_inside(path, self.root):
            raise MagiError(f"{self.root}: names {str(path)[-60:]!r}, outside the data set")
        if not is_file(path):
            raise MagiError(f"{path}: no such file")
        return path

    def _read_index(self) -> dict[int, tuple[tuple[int, int], tuple[int, int], float]]:
        """v3: for each episode the numbers of its Parquet and video files, and the seconds at which it begins."""
        key = f"videos/{self.camera}"
        names = ["episode_index", "data/chunk_index", "data/file_index"]
        names += [f"{key}/{end}" for end in ("chunk_index", "file_index", "from_timestamp")]
        found = {}
        for file in sorted((self.root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
            if not is_inside(file, self.root):
                raise MagiError(f"{file}: link out of the folder")
            columns = read_columns(file, names)
            for row in zip(*(columns[name].to_pylist() for name in names), strict=True):
                *numbers, seconds = row
                whole = all(type(one) is int and 0 <= one < 10**9 for one in numbers)
                if not whole or not isinstance(seconds, float) or not 0 <= seconds < 10**7:
                    raise MagiError(f"{file}: an episode at {str(row)[:60]}; expected numbers of files and seconds")
                episode, *files = numbers
                found[episode] = ((files[0], files[1]), (files[2], files[3]), seconds)
        return found


def open_source(root: Path, camera: str | None, frame_rate: float | None) -> LeRobotSource:
    """See `importing.open_source`."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MagiError('LeRobot data sets need pyarrow: pip install "magi-video[datasets]"') from None
    return LeRobotSource(root, camera, frame_rate)


def fill(template: str, fields: dict[str, Any]) -> str:
    """A path pattern such as "data/chunk-{episode_chunk:03d}/…" with its fields; not `str.format`, which can do more.

    Raises:
        MagiError: anything else in braces, or a field that there is not.
    """
    if len(template) > MAX_PATH or "{" in FIELD.sub("", template):
        raise MagiError(f"path {template[:60]!r}; expected fields such as {{episode_index:06d}}")

    def value(match: re.Match[str]) -> str:
        if match[1] not in fields:
            raise MagiError(f"path {template[:60]!r}: unknown field {match[1]!r}")
        return str(fields[match[1]]).zfill(int(match[2] or 0))

    return FIELD.sub(value, template)


def read_columns(file: Path, names: list[str]) -> dict[str, Any]:
    """Columns of a Parquet file, as pyarrow arrays.

    Raises:
        MagiError: no such file or column, damaged, or too large.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file, memory_map=False)
        if missing := [name for name in names if name not in opened.schema_arrow.names]:
            raise MagiError(f"{file}: no column {missing[0]!r}")
        groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        if opened.metadata.num_rows > 100 * MAX_FRAMES or size > MAX_READ_BYTES:
            raise MagiError(f"{file}: {opened.metadata.num_rows} rows of {size} bytes; too large")
        table = opened.read(columns=names, use_threads=False)
        return {name: table.column(name).combine_chunks() for name in names}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise MagiError(f"{file}: unreadable Parquet ({str(error).splitlines()[0][:150]})") from None


@lru_cache(maxsize=2)  # v3: many episodes share a file
def read_actions_table(file: Path, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Episode numbers `[N]`, frame numbers `[N]` and actions float32 `[N, size]` of a data file."""
    columns = read_columns(file, ["episode_index", "frame_index", "action"])
    try:
        numbers = [columns[name].to_numpy(zero_copy_only=False) for name in ("episode_index", "frame_index")]
        column, rows = columns["action"], len(numbers[0])
        alone = size == 1 and not hasattr(column, "value_lengths")  # actions of one number are no lists
        lengths = np.ones(rows) if alone else column.value_lengths().to_numpy(zero_copy_only=False)
        if not (lengths == size).all() or any(one.dtype.kind not in "iu" for one in numbers):
            raise ValueError("rows of other sizes, or without a number")
        actions = (column if alone else column.flatten()).to_numpy(zero_copy_only=False).astype(np.float32)
        return numbers[0], numbers[1], actions.reshape(rows, size)
    except (AttributeError, TypeError, ValueError) as error:
        raise MagiError(f"{file}: expected actions of {size} numbers ({str(error)[:80]})") from None


def _count(value: Any, path: Path, name: str) -> int:
    if type(value) is not int or value < 0:
        raise MagiError(f"{path}: {name} {str(value)[:20]!r}; expected a whole number")
    return value
