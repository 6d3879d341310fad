"""The shards of a latent cache: which videos lie where, and the files.

A shard is a safetensors file of one float16 tensor "latents" [rows, …], the rows of its videos one after the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from magi_video.errors import MagiError
from magi_video.files.atomic import replacing
from magi_video.latents.grid import ClipGrid
from magi_video.settings import Items, settings

SHARD_FOLDER, TENSOR = "shards", "latents"
ITEM_BYTES = 2  # float16
AGAIN = "give the cache's magi encode command again"


@settings
class Shard:
    """What is known of a finished shard: the file's size and SHA-256, a digest of all that its content depends on, and
    the sums over its latents, per channel."""

    bytes: int = 0
    sha256: str = ""
    key: str = ""
    sums: Annotated[tuple[float, ...], Items] = ()
    squares: Annotated[tuple[float, ...], Items] = ()


class Layout:
    """Which rows of which shard belong to which video: videos fill shards in order.

    Args:
        frames: of each video.
        row: shape of a row.
        grid: which clips there are; None if every frame is a row.
        shard_bytes: see `Index`.

    Attributes:
        place: of each video: shard, first row, number of rows.
        rows: of each shard.
    """

    def __init__(self, frames: Sequence[int], row: Sequence[int], grid: ClipGrid | None, shard_bytes: int) -> None:
        counts = {length: length if grid is None else grid.count(length) for length in set(frames)}
        most = shard_bytes // (ITEM_BYTES * math.prod(row))
        self.row = tuple(row)
        self.place: list[tuple[int, int, int]] = []
        self.rows = [0]
        for length in frames:
            count = counts[length]
            if self.rows[-1] and self.rows[-1] + count > most:
                self.rows.append(0)
            self.place.append((len(self.rows) - 1, self.rows[-1], count))
            self.rows[-1] += count

    def header(self, shard: int) -> bytes:
        """The beginning of a shard's file, up to its numbers."""
        shape = [self.rows[shard], *self.row]
        facts = {"dtype": "F16", "shape": shape, "data_offsets": [0, ITEM_BYTES * math.prod(shape)]}
        text = json.dumps({TENSOR: facts}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def bytes(self, shard: int) -> int:
        """Size of a shard's file."""
        return len(self.header(shard)) + ITEM_BYTES * self.rows[shard] * math.prod(self.row)


def shard_path(directory: Path, shard: int) -> Path:
    """Where a shard lies."""
    return directory / SHARD_FOLDER / f"{shard:05d}.safetensors"


@contextmanager
def writing_shard(path: Path, layout: Layout, shard: int) -> Iterator[ShardWriter]:
    """Gives what writes a shard's rows; the file appears under its name when it is whole and on the disk.

    Raises:
        MagiError: it cannot be written.
    """
    with replacing(path) as part, part.open("wb") as file:
        writer = ShardWriter(file, layout, shard)
        yield writer
        file.flush()
        os.fsync(file.fileno())


class ShardWriter:
    """A shard's file that grows row by row, by ordinary writes: in a memory map, a full disk would kill the process
    instead of raising an error."""

    def __init__(self, file: BinaryIO, layout: Layout, shard: int) -> None:
        self.file, self.digest, self.bytes = file, hashlib.sha256(), 0
        channels = layout.row[-3]
        self.sums_C, self.squares_C = np.zeros(channels), np.zeros(channels)
        self._write(layout.header(shard))

    def append(self, rows: np.ndarray) -> None:
        """Writes float16 [n, *row]."""
        self._write(rows.tobytes())
        values_CN = np.moveaxis(rows, -3, 0).reshape(rows.shape[-3], -1).astype(np.float64)
        self.sums_C += values_CN.sum(1)
        self.squares_C += np.square(values_CN).sum(1)

    def shard(self, key: str) -> Shard:
        """What is known of the file."""
        sums, squares = tuple(self.sums_C.tolist()), tuple(self.squares_C.tolist())
        return Shard(self.bytes, self.digest.hexdigest(), key, sums, squares)

    def _write(self, content: bytes) -> None:
        self.file.write(content)
        self.digest.update(content)
        self.bytes += len(content)


def check_size(path: Path, expected: int) -> None:
    """`MagiError` unless a file is there and has so many bytes."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise MagiError(f"{path}: {error.strerror}; {AGAIN}") from None
    if size != expected:
        raise MagiError(f"{path}: {size} bytes; expected {expected}; {AGAIN}")


def map_shard(path: Path, layout: Layout, shard: int) -> torch.Tensor:
    """A shard's latents, mapped into memory: only what is read of them is loaded.

    Raises:
        MagiError: not a safetensors file of a float16 tensor of this shape.
    """
    check_size(path, layout.bytes(shard))  # what is read beyond the end of a mapped file kills the process
    shape = (layout.rows[shard], *layout.row)
    try:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(TENSOR)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MagiError(f"{path}: unreadable latents ({error}); {AGAIN}") from None
    if tensor.dtype != torch.float16 or tensor.shape != shape:
        found = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        raise MagiError(f"{path}: {found}; expected float16 {list(shape)}; {AGAIN}")
    return tensor


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; `MagiError` if it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise MagiError(f"{path}: not a regular file; {AGAIN}")  # a pipe would be waited for without end
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MagiError(f"{path}: {error.strerror}; {AGAIN}") from None
