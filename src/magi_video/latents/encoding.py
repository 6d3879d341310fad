"""Encoding a data set into a `LatentCache`: in parallel, to be continued after a stop, the same on any machine.

A shard is the unit of work. Which videos it holds follows from their lengths; which process encodes it changes
nothing; and once it is whole on the disk, a note beside it (its `Shard` as JSON) says so. The last step gathers the
notes into the index. So a kill loses the shards in work, one a process, and the same call goes on with the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from magi_video.data.folder import VideoFolder
from magi_video.distributed import Processes, run_ahead
from magi_video.errors import MagiError
from magi_video.files.artifact import differences
from magi_video.files.atomic import write_bytes, write_json
from magi_video.files.folders import make_folder
from magi_video.files.json import read_json
from magi_video.latents.cache import INDEX_FILE, MIRRORED_FOLDER, TABLE_FILE, VERSION, Index, LatentCache
from magi_video.latents.encoder import Encoder, encode_video, row_shape
from magi_video.latents.grid import ClipGrid
from magi_video.latents.shards import SHARD_FOLDER, Layout, Shard, file_sha256, shard_path, writing_shard
from magi_video.latents.table import VideoTable
from magi_video.settings import from_json, settings

SHARD_BYTES = 256_000_000


@dataclass(frozen=True)
class Encoded:
    """What a call of `encode_latents` did.

    Attributes:
        cache: as it is now.
        shards: that were encoded.
        damaged: those of them that were there, but damaged.
        mirror: the same of the mirror images; None if they were not asked for.
    """

    cache: LatentCache
    shards: list[int]
    damaged: list[int]
    mirror: Encoded | None = None

    def figures(self) -> dict[str, Any]:
        """What there is and what was done, as JSON values."""
        index = self.cache.index
        ways = [self] if self.mirror is None else [self, self.mirror]
        return {
            "videos": index.videos,
            "frames": index.frames,
            "clips": index.rows if index.intervals else None,
            "captions": sum(caption is not None for caption in self.cache.table.captions),
            "bytes": sum(shard.bytes for way in ways for shard in way.cache.index.shards),
            "shards": len(index.shards) * len(ways),
            "encoded_shards": sum(len(way.shards) for way in ways),
            "damaged_shards": self.damaged,
            "damaged_mirrored_shards": [] if self.mirror is None else self.mirror.damaged,
            "mirrored": self.mirror is not None,
            "codec": index.codec,
            "mean": index.mean,
            "std": index.std,
        }


@settings
class Writing:
    """How a cache is written."""

    shard_bytes: Annotated[int, Field(ge=1)] = SHARD_BYTES
    """See `Index`."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Threads that read, decode and (on a CPU) encode, a video each; this process's share of the cores if not given."""
    verify: bool = False
    """Read the finished shards and compare their SHA-256, instead of their sizes alone."""


def encode_latents(
    folder: VideoFolder,
    codec: Encoder,
    directory: str | Path,
    height: int,
    width: int,
    *,
    grid: ClipGrid | None = None,
    captions: Sequence[str | None] = (),
    processes: Processes | None = None,
    progress: Callable[[int, int], None] | None = None,
    flips: bool = False,
    **writing: Any,
) -> Encoded:
    """Encodes what is not in the cache yet and opens it.

    Every process calls this with the same arguments; `directory` is one folder that all of them see. A video is known
    by name, length and content: where the data set has changed, the shards concerned are encoded again.

    Args:
        folder: the videos.
        codec: encodes on its own device.
        directory: of the cache; made if needed.
        height: of the frames before encoding, in pixels; see `fit_frames`.
        width: of the frames before encoding, in pixels.
        grid: which clips to encode; needed exactly where the codec compresses time.
        captions: of the videos, to lie in the cache beside the latents, none of which depends on them.
        processes: of this run; this one alone if not given.
        progress: called in each process after each video with (videos done, videos in all), the other processes taken
            to be as far as this one; with `flips` a video counts twice.
        flips: encode the mirror images of the videos as well, into a cache of their own in the folder `mirrored`.
        writing: fields of `Writing`.

    Raises:
        MagiError: the directory holds another cache or cannot be written, a video is unreadable or no longer as long
            as it was, no video is long enough for a clip, or the latents are beyond float16.
    """
    processes, how = processes or Processes(codec.device), Writing(**writing)
    directory = Path(directory)
    if (codec.temporal_factor == 1) != (grid is None):
        raise MagiError(
            "every frame is encoded by itself; expected no grid of clips"
            if grid
            else f"the codec compresses time by {codec.temporal_factor}, so its latents depend on the interval between "
            "the frames; expected the intervals to encode"
        )
    index = Index(
        version=VERSION,
        codec=codec.fingerprint(),
        height=height,
        width=width,
        row=row_shape(codec, height, width, grid),
        clip_length=grid.length if grid else 0,
        intervals=grid.intervals if grid else (),
        stride=grid.stride if grid else 0,
        shard_bytes=how.shard_bytes,
    )
    total = len(folder.videos) * (1 + flips)

    def one_way(directory: Path, index: Index, before: int) -> Encoded:
        report = None if progress is None else lambda done, _: progress(before + done, total)
        work = _Work(folder, codec, directory, index, captions)
        return _bring_up(work, how.workers or _cores(), processes, how.verify, report)

    encoded = one_way(directory, index, 0)
    if not flips:
        return encoded
    mirror = one_way(directory / MIRRORED_FOLDER, replace(index, mirrored=True), len(folder.videos))
    return replace(encoded, mirror=mirror)


def _bring_up(
    work: _Work, workers: int, processes: Processes, verify: bool, progress: Callable[[int, int], None] | None
) -> Encoded:
    """Encodes what of one cache is missing or damaged; arguments as of `encode_latents`."""
    videos = len(work.folder.videos)
    work.known = processes.once(work.take_up)
    damaged: list[int] = []
    if verify:
        there = sorted(work.known)
        mine = [there[i] for i in processes.mine(len(there))]
        damaged = sorted(number for found in processes.each(lambda: work.damaged(mine)) for number in found)
    missing = [n for n in range(len(work.layout.rows)) if n not in work.known or n in damaged]
    if missing:
        processes.once(lambda: work.begin(missing))
        share = [missing[i] for i in processes.mine(len(missing))]
        report = _scaled(progress, videos, work.videos_of(missing), processes.count)
        processes.each(lambda: work.encode(share, workers, report))
    processes.once(lambda: work.finish(missing))
    cache = processes.together(lambda: LatentCache(work.directory))
    if progress is not None:
        progress(videos, videos)
    return Encoded(cache, missing, damaged)


class _Work:
    """One cache in the making."""

    def __init__(
        self, folder: VideoFolder, codec: Encoder, directory: Path, index: Index, captions: Sequence[str | None]
    ) -> None:
        self.folder, self.codec, self.directory = folder, codec, directory
        self.table = VideoTable.of(folder, captions)
        self.table_bytes = self.table.to_bytes()
        lengths = self.table.columns["frames"].tolist()
        self.layout = Layout(lengths, index.row, index.grid, index.shard_bytes)
        if not sum(self.layout.rows):
            wanted = index.grid or "a frame"
            raise MagiError(f"{folder.root}: no video ({folder.summary()}) is long enough for {wanted}")
        self.videos: list[list[int]] = [[] for _ in self.layout.rows]
        for video, (shard, _, _) in enumerate(self.layout.place):
            self.videos[shard].append(video)
        self.index = replace(
            index,
            table_sha256=hashlib.sha256(self.table_bytes).hexdigest(),
            videos=len(lengths),
            frames=sum(lengths),
            rows=sum(self.layout.rows),
        )
        self.known: dict[int, Shard] = {}
        self.keys = [self._key(shard) for shard in range(len(self.layout.rows))]

    def _key(self, shard: int, with_contents: bool = True) -> str:
        """A digest of all that a shard's content depends on; without the videos' contents, as older caches have it."""
        made = [self.index.codec, self.index.height, self.index.width, self.index.row, str(self.index.grid)]
        made += ["mirrored"] if self.index.mirrored else []
        size, frames = self.table.columns["bytes"], self.table.columns["frames"]
        shown = self.table.shown or [""] * len(self.table.names)  # a video shown as stored has the key it always had
        videos: list[Any] = [
            (self.table.names[v], int(size[v]), int(frames[v]), *filter(None, [shown[v]])) for v in self.videos[shard]
        ]
        if with_contents and self.table.contents:
            videos.append([self.table.contents[v] for v in self.videos[shard]])
        return hashlib.sha256(json.dumps([made, videos]).encode()).hexdigest()

    def videos_of(self, shards: Sequence[int]) -> int:
        """How many videos these shards hold."""
        return sum(len(self.videos[shard]) for shard in shards)

    # --- the main process -----------------------------------------------------------------------------------------

    def take_up(self) -> dict[int, Shard]:
        """The shards that are on the disk already, complete as far as their sizes tell."""
        known: dict[int, Shard] = {}
        if (self.directory / INDEX_FILE).exists():
            before = Index.read(self.directory)
            if changes := differences(_identity(before), _identity(self.index)):
                raise MagiError(
                    f"{self.directory} holds another latent cache ({'; '.join(changes)}); use another --out"
                )
            known = dict(enumerate(before.shards))
        for shard in range(len(self.keys)):
            if (path := _note_path(self.directory, shard)).is_file():
                with suppress(MagiError):  # one that a power cut has damaged says nothing
                    known[shard] = _read_note(path)
        known = {number: self._identified(number, one) for number, one in sorted(known.items())}
        return {number: one for number, one in known.items() if self._is_whole(number, one)}

    def _identified(self, shard: int, known: Shard) -> Shard:
        """A shard of an older cache, which did not record what its videos held, is taken for one of these."""
        if shard < len(self.keys) and known.key == self._key(shard, with_contents=False):
            return replace(known, key=self.keys[shard])
        return known

    def _is_whole(self, shard: int, known: Shard) -> bool:
        if shard >= len(self.keys) or known.key != self.keys[shard] or known.bytes != self.layout.bytes(shard):
            return False
        try:
            return shard_path(self.directory, shard).stat().st_size == known.bytes
        except OSError:
            return False

    def begin(self, missing: Sequence[int]) -> None:
        """Makes the cache an unfinished one, in which a kill at any moment leaves what is whole."""
        shards = self.directory / SHARD_FOLDER
        make_folder(shards)
        for number, known in self.known.items():
            if number not in missing:
                write_json(_note_path(self.directory, number), asdict(known))
        write_bytes(self.directory / TABLE_FILE, self.table_bytes)
        write_json(self.directory / INDEX_FILE, asdict(self.index))
        for path in (*shards.glob(".*.part"), *(_note_path(self.directory, number) for number in missing)):
            path.unlink(missing_ok=True)  # of a process that was killed; of a shard that no longer holds

    def finish(self, encoded: Sequence[int]) -> None:
        """Gathers the notes into the index, and removes them: also those that a process killed in between has left."""
        if encoded or not self._is_finished():
            self._write_index()
        wanted = {shard_path(self.directory, shard).name for shard in range(len(self.keys))}
        for path in (self.directory / SHARD_FOLDER).iterdir():
            if path.name not in wanted and path.suffix in (".json", ".safetensors"):
                path.unlink()

    def _write_index(self) -> None:
        notes = [_note_path(self.directory, shard) for shard in range(len(self.keys))]
        shards = tuple(self.known[n] if not notes[n].is_file() else _read_note(notes[n]) for n in range(len(notes)))
        sums, squares = (np.array([getattr(shard, name) for shard in shards]) for name in ("sums", "squares"))
        count = self.index.rows * (np.prod(self.index.row) // self.index.row[-3])
        mean = sums.sum(0) / count
        std = np.sqrt(np.maximum(squares.sum(0) / count - mean**2, 0))
        write_bytes(self.directory / TABLE_FILE, self.table_bytes)
        index = replace(self.index, shards=shards, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        write_json(self.directory / INDEX_FILE, asdict(index))

    def _is_finished(self) -> bool:
        try:
            return LatentCache(self.directory).index.table_sha256 == self.index.table_sha256
        except MagiError:
            return False

    # --- every process --------------------------------------------------------------------------------------------

    def damaged(self, shards: Sequence[int]) -> list[int]:
        """Which of these shards no longer have the SHA-256 that they were written with."""
        return [n for n in shards if file_sha256(shard_path(self.directory, n)) != self.known[n].sha256]

    def encode(self, shards: Sequence[int], workers: int, progress: Callable[[int], None]) -> None:
        """Encodes shards, one after the other; their videos are decoded ahead."""
        lock = threading.Lock() if self.codec.temporal_factor > 1 or self.codec.device.type != "cpu" else nullcontext()

        def job(video: int) -> Callable[[], Iterator[np.ndarray]]:
            path, frames = self.folder.videos[video].path, self.folder.videos[video].num_frames
            size = (self.index.height, self.index.width)
            return lambda: encode_video(path, frames, self.codec, size, self.index.grid, lock, self.index.mirrored)

        videos = [video for shard in shards for video in self.videos[shard]]
        encoded = run_ahead((job(video) for video in videos), workers)
        done = 0
        try:
            for shard in shards:
                with writing_shard(shard_path(self.directory, shard), self.layout, shard) as writer:
                    for _ in self.videos[shard]:
                        for piece in next(encoded):
                            writer.append(piece)
                        done += 1
                        progress(done)
                write_json(_note_path(self.directory, shard), asdict(writer.shard(self.keys[shard])))
        finally:
            encoded.close()


def _identity(index: Index) -> dict[str, Any]:
    """What stays the same as long as it is the same cache."""
    names = ("codec", "height", "width", "row", "clip_length", "intervals", "stride", "shard_bytes", "mirrored")
    return {name: getattr(index, name) for name in names}


def _note_path(directory: Path, shard: int) -> Path:
    return shard_path(directory, shard).with_suffix(".json")


def _read_note(path: Path) -> Shard:
    note: Shard = from_json(Shard, read_json(path), str(path))
    return note


def _cores() -> int:
    """This process's share of the cores that it may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # set by whatever started the processes


def _scaled(
    progress: Callable[[int, int], None] | None, total: int, missing: int, processes: int
) -> Callable[[int], None]:
    """Progress of all from the number of videos that this process has done."""

    def tell(done: int) -> None:
        if progress is not None:
            progress(total - missing + min(missing, done * processes), total)

    return tell
