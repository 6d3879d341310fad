"""A cache of latents: what a codec makes of a data set, encoded once, so that training never runs the codec again.

    index.json            what the cache holds and how it was made; each shard's size and SHA-256; statistics
    videos.safetensors    the data set: names, lengths, classes, actions, captions
    codec/, recipe.json   the codec and the recipe (`magi encode` writes them)
    mirrored/             the same of the videos' mirror images, where training flips clips: codecs do not commute with
                          mirroring, so latents cannot be flipped
    shards/00000.safetensors …    one float16 tensor "latents" [rows, …] each, the videos one after the other

A codec that encodes each frame by itself has a row [C, h, w] a frame, and any clip can be read. One that compresses
time has a row [T, C, h, w] a clip of a `ClipGrid`. Where a video's rows lie follows from the videos' lengths alone, so
the index names shards, not videos. `encoding.encode_latents` writes a cache, `LatentCache` reads one; shards are mapped
into memory, and only the rows asked for are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from magi_video.data.folder import VideoFolder
from magi_video.data.identity import DataIdentity
from magi_video.errors import MagiError
from magi_video.files.json import read_json
from magi_video.latents.grid import ClipGrid
from magi_video.latents.shards import AGAIN, Layout, Shard, check_size, file_sha256, map_shard, shard_path
from magi_video.latents.table import CachedVideos, VideoTable
from magi_video.settings import Items, from_json, settings

VERSION = 1
INDEX_FILE, TABLE_FILE, CODEC_FOLDER, MIRRORED_FOLDER = "index.json", "videos.safetensors", "codec", "mirrored"
MOST_NUMBERS = 2**32  # of a row


@settings
class Index:
    """The content of `index.json`.

    Attributes:
        version: of this layout.
        codec: fingerprint of the codec.
        height: of the frames before encoding, in pixels; see `fit_frames`.
        width: of the frames before encoding, in pixels.
        row: shape of a row, [C, h, w] or [T, C, h, w].
        clip_length: as `ClipGrid.length`; 0 if every frame is encoded by itself.
        intervals: as `ClipGrid.intervals`; none if every frame is encoded by itself.
        stride: as `ClipGrid.stride`; 0 if every frame is encoded by itself.
        shard_bytes: a shard takes no further video that would make it larger than this.
        table_sha256: of the table of videos.
        shards: in order; none in a cache that is not finished.
        videos: how many there are.
        frames: of all videos.
        rows: of all shards.
        mean: of the latents of each channel.
        std: of the latents of each channel.
        mirrored: whether the frames were mirrored left to right before encoding.
    """

    version: int = 0
    codec: str = ""
    height: int = 0
    width: int = 0
    row: Annotated[tuple[int, ...], Items] = ()
    clip_length: int = 0
    intervals: Annotated[tuple[int, ...], Items] = ()
    stride: int = 0
    shard_bytes: int = 0
    table_sha256: str = ""
    shards: Annotated[tuple[Shard, ...], Items] = ()
    videos: int = 0
    frames: int = 0
    rows: int = 0
    mean: Annotated[tuple[float, ...], Items] = ()
    std: Annotated[tuple[float, ...], Items] = ()
    mirrored: bool = False

    @classmethod
    def read(cls, directory: Path) -> Index:
        """Reads and checks an index; `MagiError` if it is not one of this version."""
        path = directory / INDEX_FILE
        content = read_json(path)
        if content.get("version") != VERSION:
            raise MagiError(
                f"{path}: version {str(content.get('version'))[:20]} of the latent cache; expected {VERSION}: "
                "encode into another folder, or remove this one"
            )
        index: Index = from_json(cls, content, str(path))
        counts = [index.height, index.width, index.shard_bytes, *index.row]
        if min(counts) < 1 or len(index.row) != (4 if index.intervals else 3) or math.prod(index.row) > MOST_NUMBERS:
            raise MagiError(f"{path}: sizes that no latents have")
        if index.intervals or index.clip_length or index.stride:
            ClipGrid(index.clip_length, index.intervals, index.stride)
        return index

    @property
    def grid(self) -> ClipGrid | None:
        """Which clips there are; None if every frame is encoded by itself."""
        return ClipGrid(self.clip_length, self.intervals, self.stride) if self.intervals else None


class LatentCache:
    """A finished cache; a `FrameReader` of its latents.

    Args:
        directory: of the cache.

    Attributes:
        directory: of the cache.
        index: what it holds.
        table: its data set.
        grid: which clips can be read; None if any can.

    Raises:
        MagiError: no cache of this version, unfinished, or damaged in a way that needs no reading of the shards;
            what else is wrong with a shard is found when it is read, or by `magi encode --verify`.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not (self.directory / INDEX_FILE).is_file():
            raise MagiError(f"{directory}: no latent cache; expected the folder that magi encode wrote")
        self.index = Index.read(self.directory)
        self.grid = self.index.grid
        if not self.index.shards:
            raise MagiError(f"{directory}: an unfinished latent cache; {AGAIN}")
        path = self.directory / TABLE_FILE
        if file_sha256(path) != self.index.table_sha256:
            raise MagiError(f"{path}: damaged; {AGAIN}")
        self.table = VideoTable.read(path)
        self._layout = Layout(self.table.columns["frames"].tolist(), self.index.row, self.grid, self.index.shard_bytes)
        sizes = [shard.bytes for shard in self.index.shards]
        if len(sizes) != len(self._layout.rows) or any(self._layout.bytes(n) != size for n, size in enumerate(sizes)):
            raise MagiError(f"{self.directory / INDEX_FILE}: lists other shards than its videos fill")
        for shard, size in enumerate(sizes):
            check_size(shard_path(self.directory, shard), size)
        self._tensors: dict[int, torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For a loader's process that is started again: it maps the shards itself."""
        return self.__dict__ | {"_tensors": {}}

    def videos(self) -> CachedVideos:
        """The data set, as far as the cache knows it."""
        return CachedVideos(self.table, self.directory)

    def check_data(self, folder: VideoFolder) -> None:
        """`MagiError` if the cache is of another data set than this: other names, lengths or contents."""
        difference = self.identity().difference(DataIdentity.of(folder).without_actions())
        if difference is None and self.table.names != folder.names:
            difference = "the same videos in another order"
        if difference is None and not self.table.contents:
            sizes = [video.path.stat().st_size for video in folder.videos]
            others = np.flatnonzero(self.table.columns["bytes"] != sizes)
            difference = f"another size of {self.table.names[others[0]]}" if len(others) else None
        if difference:
            raise MagiError(
                f"{self.directory}: latents of another data set than {folder.root}: {difference}; "
                "magi encode brings them up to date"
            )

    def identity(self) -> DataIdentity:
        """Of the videos that the latents were made of."""
        return DataIdentity.of(self.videos()).without_actions()

    @cached_property
    def mirror(self) -> LatentCache:
        """The cache of the mirror images.

        Raises:
            MagiError: it is missing, unfinished or damaged, or of other videos.
        """
        folder = self.directory / MIRRORED_FOLDER
        if not (folder / INDEX_FILE).is_file():
            raise MagiError(
                f"{self.directory}: no latents of mirrored videos, which training with flips needs; "
                "magi encode with --flip 0.5 adds them, and --flip 0 does without"
            )
        mirror = LatentCache(folder)
        facts = [
            (index.codec, index.row, index.table_sha256, str(index.grid), index.shard_bytes)
            for index in (self.index, mirror.index)
        ]
        if not mirror.index.mirrored or facts[0] != facts[1]:
            raise MagiError(f"{folder}: not the mirrored latents of {self.directory}; {AGAIN}")
        return mirror

    def read(self, video: int, frames: Sequence[int], mirrored: bool = False) -> torch.Tensor:
        """Latents of frames of a video, float32.

        Args:
            video: number of the video.
            frames: any frames in any order; of a cache with a grid, the frames of one of its clips.
            mirrored: of the video's mirror image.

        Returns:
            [len(frames), C, h, w], or [T, C, h, w] of the clip.

        Raises:
            MagiError: frames or a clip that the cache does not hold, or a damaged shard.
        """
        if mirrored:
            return self.mirror.read(video, frames)
        shard, first, count = self._layout.place[video]
        if self.grid is not None:
            rows: int | slice | list[int] = first + self._clip(video, frames)
        else:
            if len(frames) and not 0 <= min(frames) <= max(frames) < count:
                raise MagiError(
                    f"{self.directory}: frames {min(frames)} to {max(frames)} of {self.table.names[video]} asked for; "
                    f"expected 0 to {count - 1}"
                )
            rows = _rows(first, frames)
        latents = self._mapped(shard)[rows].float()
        if not latents.sum().isfinite():  # one infinite or undefined number makes the sum so; a sum of finite ones is
            raise MagiError(f"{shard_path(self.directory, shard)}: latents that are not finite; encode it again")
        return latents

    def _clip(self, video: int, frames: Sequence[int]) -> int:
        assert self.grid is not None
        interval = frames[1] - frames[0] if len(frames) > 1 else self.grid.intervals[0]
        clip = list(range(frames[0], frames[0] + interval * self.grid.length, interval)) if interval > 0 else []
        rows = self.grid.rows(int(self.table.columns["frames"][video]))
        if list(frames) != clip or (interval, frames[0]) not in rows:
            raise MagiError(
                f"{self.directory}: {len(frames)} frames from {frames[0]} at interval {interval} of "
                f"{self.table.names[video]} asked for; expected {self.grid}"
            )
        return rows[interval, frames[0]]

    def _mapped(self, shard: int) -> torch.Tensor:
        if shard not in self._tensors:
            self._tensors[shard] = map_shard(shard_path(self.directory, shard), self._layout, shard)
        return self._tensors[shard]


def _rows(first: int, frames: Sequence[int]) -> slice | list[int]:
    """Rows of frames; a slice where they are evenly spaced, which reads three times as fast."""
    if len(frames) > 1 and frames[1] > frames[0]:
        even = range(frames[0], frames[-1] + 1, frames[1] - frames[0])
        if len(even) == len(frames) and all(a == b for a, b in zip(even, frames, strict=True)):
            return slice(first + even.start, first + even.stop, even.step)
    return [first + frame for frame in frames]
