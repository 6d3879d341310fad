"""LeRobot data sets, layouts v2.0 to v3.0: `meta/info.json`, actions in Parquet, a video file for each camera.

In v2 each episode has its own Parquet and video files; in v3 many share one, and `meta/episodes/` says how long each
is: an episode begins in its video where those before it end, and its time stamp has to agree. Row t of the actions is
the one taken at frame t, as in our recordings. Needs pyarrow; its Parquet reader unpickles nothing, and every path that
the data set names is checked to lie inside it. What is wrong with an episode costs that episode.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from magi_video.data.walk import is_file, is_inside
from magi_video.errors import MagiError, first_line
from magi_video.files.json import read_json
from magi_video.files.limits import MAX_EPISODE_BYTES, MAX_FRAMES
from magi_video.installation import install_command
from magi_video.recordings.importing import Source, check_names, check_rate, check_size, choose_camera
from magi_video.video.video import read_frames

FIELD = re.compile(r"\{(\w+)(?::0?(\d))?(?:d)?\}")
FRAMES_AT_ONCE = 128
MAX_PATH = 500  # characters
STAMP_FRAMES = 0.75  # that a rounded time stamp may be off
NUMBER_BYTES = 8  # of a decoded number


@dataclass(frozen=True)
class Place:
    """Where an episode lies: its Parquet file, its video, and the first frame of it there."""

    data: Path
    video: Path
    first_frame: int


@dataclass(frozen=True)
class Entry:
    """What v3 says of an episode: chunk and number of its Parquet file and of its video, the seconds at which it begins
    there, and its frames (None where the data set does not say)."""

    data: tuple[int, int]
    video: tuple[int, int]
    seconds: float
    length: int | None


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
        self.index: dict[int, Entry | str] = self._read_index() if self.shared_files else {}
        self.first_frames = self._first_frames()

    @override
    def actions(self, episode: int) -> np.ndarray:
        place = self._place(episode)
        episodes_N, frames_N, actions_NA = read_actions_table(place.data, len(self.action_names))
        rows = np.flatnonzero(episodes_N == episode)
        rows = rows[np.argsort(frames_N[rows], kind="stable")]
        if not (frames_N[rows] == np.arange(len(rows))).all():
            raise MagiError(f"{place.data}: episode {episode} has not one row for every frame")
        entry = self.index.get(episode)
        if isinstance(entry, Entry) and entry.length not in (None, len(rows)):
            raise MagiError(f"{place.data}: episode {episode} has {len(rows)} rows for {entry.length} frames")
        return actions_NA[rows]

    @override
    def frames(self, episode: int, count: int) -> Iterator[np.ndarray]:
        place = self._place(episode)
        for first in range(0, count, FRAMES_AT_ONCE):
            start = place.first_frame + first
            yield read_frames(place.video, range(start, start + min(FRAMES_AT_ONCE, count - first)))

    def _place(self, episode: int) -> Place:
        if not self.shared_files:
            fields = {"episode_chunk": episode // self.chunk, "episode_index": episode, "video_key": self.camera}
            return Place(self._file(self.data_path, fields), self._file(self.video_path, fields), 0)
        entry = self.index.get(episode, f"{self.root / 'meta' / 'episodes'}: no episode {episode}")
        if isinstance(entry, str):
            raise MagiError(entry)
        first = self.first_frames[episode]
        if isinstance(first, str):
            raise MagiError(first)
        key = {"video_key": self.camera}
        return Place(
            self._file(self.data_path, {"chunk_index": entry.data[0], "file_index": entry.data[1]} | key),
            self._file(self.video_path, {"chunk_index": entry.video[0], "file_index": entry.video[1]} | key),
            first,
        )

    def _file(self, template: str, fields: dict[str, Any]) -> Path:
        """A file that the data set names by a pattern; nothing but known fields is put in, and no path leads out."""
        path = self.root / fill(template, fields)
        if not is_inside(path, self.root):
            raise MagiError(f"{self.root}: names {str(path)[-60:]!r}, outside the data set")
        if not is_file(path):
            raise MagiError(f"{path}: no such file")
        return path

    def _read_index(self) -> dict[int, Entry | str]:
        """v3: what is known of each episode, or what is wrong with it."""
        key = f"videos/{self.camera}"
        names = ["episode_index", "data/chunk_index", "data/file_index"]
        names += [f"{key}/{end}" for end in ("chunk_index", "file_index", "from_timestamp")]
        found: dict[int, Entry | str] = {}
        problem: MagiError | None = None
        for file in sorted((self.root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
            if not is_inside(file, self.root):
                raise MagiError(f"{file}: link out of the folder")
            try:
                columns = read_columns(file, names, optional=["length"])
            except MagiError as error:  # its episodes are missing, the others are not
                problem = error
                continue
            lengths = columns["length"].to_pylist() if "length" in columns else None
            rows = list(zip(*(columns[name].to_pylist() for name in names), strict=True))
            for row, length in zip(rows, lengths or [None] * len(rows), strict=True):
                episode, *numbers, seconds = row
                if not _is_number(episode):
                    continue  # which one it was is unknown; it is reported as missing
                message = (
                    f"{file}: an episode at {str((*row, length))[:80]}; expected numbers of files, seconds and frames"
                )
                sound = all(map(_is_number, numbers)) and isinstance(seconds, float) and 0 <= seconds < 10**7
                sound &= lengths is None or (_is_number(length) and 0 < length <= MAX_FRAMES)
                places = (numbers[0], numbers[1]), (numbers[2], numbers[3])
                found[episode] = Entry(*places, seconds, length) if sound else message
        if not found and problem is not None:
            raise problem
        return found

    def _first_frames(self) -> dict[int, int | str]:
        """v3: the frame of its video at which each episode begins, or why that is not known.

        The sum of the lengths before it in the same file, in the order of their numbers, or of their time stamps where
        these agree better.
        """
        files: dict[tuple[int, int], list[int]] = {}
        for episode, entry in sorted(self.index.items()):
            if isinstance(entry, Entry):
                files.setdefault(entry.video, []).append(episode)
        first_frames: dict[int, int | str] = {}
        for episodes in files.values():
            by_time = sorted(episodes, key=lambda episode: self._entry(episode).seconds)
            ways = [self._added_up(order) for order in (episodes, by_time)]
            wrong = [sum(isinstance(first, str) for first in way.values()) for way in ways]
            first_frames |= ways[wrong.index(min(wrong))]
        return first_frames

    def _added_up(self, order: list[int]) -> dict[int, int | str]:
        """`_first_frames` of a file's episodes in this order.

        The time stamp has to do behind a gap, which an episode leaves that is not known; where the data set names no
        lengths; and where the next episode confirms it, so that it was the length before that is wrong.
        """
        found: dict[int, int | str] = {}
        end, before = 0, -1
        for episode, after in zip(order, [*order[1:], None], strict=True):
            entry = self._entry(episode)
            stamp, length = entry.seconds * self.stored_rate, entry.length
            gap = any(not isinstance(self.index.get(one), Entry) for one in range(before + 1, episode))
            confirmed = after is not None and length is not None and self._begins_at(after, round(stamp) + length)
            agrees = self._begins_at(episode, end)
            if length is None or (gap and stamp > end) or (confirmed and not agrees):
                end = round(stamp)
            if self._begins_at(episode, end):
                found[episode] = end
            else:
                found[episode] = (
                    f"{self.root}: episode {episode} begins at {entry.seconds:g} s, frame {stamp:.0f} of its video; "
                    f"expected frame {end}, by the lengths of those before it"
                )
            end, before = end + (length or 0), episode
        return found

    def _begins_at(self, episode: int, frame: int) -> bool:
        """Whether an episode's time stamp says so, rounded as it may be."""
        return abs(self._entry(episode).seconds * self.stored_rate - frame) <= STAMP_FRAMES

    def _entry(self, episode: int) -> Entry:
        entry = self.index[episode]
        assert isinstance(entry, Entry)
        return entry


def open_source(root: Path, camera: str | None, frame_rate: float | None) -> LeRobotSource:
    """See `importing.open_source`."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MagiError(f"LeRobot data sets need pyarrow: {install_command('datasets')}") from None
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


def read_columns(file: Path, names: list[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Columns of a Parquet file, as pyarrow arrays; of the `optional` ones those that there are.

    Raises:
        MagiError: no such file or column, damaged, or larger than `MAX_EPISODE_BYTES` once it is decoded: a few bytes
            can stand for a number that is repeated without end.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file, memory_map=False)
        there = opened.schema_arrow.names
        if missing := [name for name in names if name not in there]:
            raise MagiError(f"{file}: no column {missing[0]!r}")
        wanted = [*names, *(name for name in optional if name in there)]
        size = decoded_size(opened.metadata, wanted)
        if opened.metadata.num_rows > 100 * MAX_FRAMES or size > MAX_EPISODE_BYTES:
            raise MagiError(f"{file}: {opened.metadata.num_rows} rows of {size} bytes; too large")
        table = opened.read(columns=wanted, use_threads=False)
        return {name: table.column(name).combine_chunks() for name in wanted}
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise MagiError(f"{file}: unreadable Parquet ({first_line(error)[:150]})") from None


def decoded_size(metadata: Any, names: Sequence[str]) -> int:
    """Bytes of columns of a Parquet file in memory: of their values, or of their pages if that is more."""
    total = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.split(".")[0] in names:
                total += max(column.num_values * NUMBER_BYTES, column.total_uncompressed_size)
    return total


@lru_cache(maxsize=2)  # v3: many episodes share a file
def read_actions_table(file: Path, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Episode numbers `[N]`, frame numbers `[N]` and actions float32 `[N, size]` of a data file.

    A row without a number, or with another number of actions than the data set has, belongs to no frame: −1.
    """
    columns = read_columns(file, ["episode_index", "frame_index", "action"])
    try:
        column, rows = columns["action"], len(columns["episode_index"])
        numbers = [_whole_numbers(columns[name]) for name in ("episode_index", "frame_index")]
        if size == 1 and not hasattr(column, "value_lengths"):
            values = column.to_numpy(zero_copy_only=False).astype(np.float32)  # actions of one number are no lists
            return numbers[0], numbers[1], values.reshape(rows, 1)
        lengths = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False), nan=-1)
        sound = lengths == size
        values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        actions = np.zeros((rows, size), np.float32)
        kept = np.repeat(sound, np.maximum(lengths, 0).astype(np.int64))
        actions[sound] = values[kept].reshape(int(sound.sum()), size)
        numbers[1] = np.where(sound, numbers[1], -1)
        return numbers[0], numbers[1], actions
    except (AttributeError, TypeError, ValueError) as error:
        raise MagiError(f"{file}: expected actions of {size} numbers ({str(error)[:80]})") from None


def _whole_numbers(column: Any) -> np.ndarray:
    """int64 [N], −1 where there is none."""
    values = column.to_numpy(zero_copy_only=False)
    if column.null_count:
        values = np.nan_to_num(values, nan=-1)
    elif values.dtype.kind not in "iu":
        raise ValueError("rows without a whole number")
    return values.astype(np.int64)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**9


def _count(value: Any, path: Path, name: str) -> int:
    if type(value) is not int or value < 0:
        raise MagiError(f"{path}: {name} {str(value)[:20]!r}; expected a whole number")
    return value
