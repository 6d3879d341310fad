"""Latents of every frame of a data set, encoded once, so that training never runs the codec again.

Only for codecs that encode each frame by itself: the latents of a codec that compresses time depend on the interval
between the frames. The cache is a folder: one float16 `.npy` file [frames, C, h, w] a video, and `index.json`,
written last. A file's name is a digest of everything its content depends on (codec, size, video), so building again
keeps what is still right and encodes the rest, after an interruption as well as after a change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch

from magi_video.data.files import growing_array, write_json
from magi_video.data.folder import VideoFolder
from magi_video.data.image import fit_frames, to_model_range
from magi_video.data.video import read_in_order
from magi_video.errors import MagiError

INDEX_FILE = "index.json"
OWN_NAME = re.compile(r"[0-9a-f]{24}\.npy")


class FrameCodec(Protocol):
    """What the cache needs of a codec."""

    temporal_factor: int

    @property
    def device(self) -> torch.device:
        """Where the codec's weights are."""
        ...

    def encode(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1] to normalised latents, [B, T, C, h, w]."""
        ...

    def fingerprint(self) -> str:
        """A digest of the codec's weights and settings."""
        ...


class LatentCache:
    """A `FrameReader` of cached latents; made by `LatentCache.build`."""

    def __init__(self, directory: Path, files: Sequence[str]) -> None:
        self.directory, self._files = directory, list(files)

    @classmethod
    def build(
        cls,
        folder: VideoFolder,
        codec: FrameCodec,
        directory: str | Path,
        height: int,
        width: int,
        *,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Encodes what is not cached yet and opens the cache.

        Args:
            folder: the videos; a cache belongs to one folder, and files of videos that are no longer in it are removed.
            codec: encodes on its own device.
            directory: of the cache; made if needed.
            height: of the frames before encoding, in pixels; see `fit_frames`.
            width: of the frames before encoding, in pixels.
            batch_size: frames encoded at a time.
            progress: called after each video with (videos done, videos in all).

        Raises:
            MagiError: a codec that compresses time, an unreadable video, latents that float16 cannot hold, or a
                directory that cannot be written.
        """
        if codec.temporal_factor != 1:
            raise MagiError(
                f"the codec compresses time by {codec.temporal_factor}, so its latents depend on the interval between "
                "the frames and cannot be cached; expected a codec with temporal factor 1, or encoding while training"
            )
        if batch_size < 1:
            raise MagiError(f"batch size {batch_size}; expected 1 or more")
        directory = Path(directory)
        fingerprint = codec.fingerprint()
        # A black frame tells the shape of the latents before any file is checked against it.
        shape = tuple(codec.encode(torch.full((1, 1, 3, height, width), -1.0, device=codec.device)).shape[2:])
        index: dict[str, Any] = {"codec": fingerprint, "height": height, "width": width, "videos": {}}
        files: list[str] = []
        for number, video in enumerate(folder.videos):
            name = f"{_digest(folder, number, fingerprint, height, width)}.npy"
            path, full_shape = directory / name, (video.num_frames, *shape)
            if not _is_complete(path, full_shape):
                _encode_video(video.path, codec, (height, width), path, full_shape, batch_size)
            files.append(name)
            index["videos"][_relative(folder, number)] = {"file": name, "shape": list(full_shape)}
            if progress is not None:
                progress(number + 1, len(folder.videos))
        write_json(directory / INDEX_FILE, index)
        for path in directory.iterdir():
            if OWN_NAME.fullmatch(path.name) and path.name not in files:
                path.unlink()
        return cls(directory, files)

    def read(self, video: int, frames: Sequence[int]) -> torch.Tensor:
        """Latents of frames of a video in the order asked for, float32 [T, C, h, w]."""
        path = self.directory / self._files[video]
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            if len(frames) and not 0 <= min(frames) <= max(frames) < len(stored):
                raise MagiError(
                    f"{path}: frames {min(frames)} to {max(frames)} asked for; expected 0 to {len(stored) - 1}"
                )
            return torch.from_numpy(stored[list(frames)].astype(np.float32))
        except (OSError, ValueError, EOFError) as error:
            raise MagiError(
                f"{path}: unreadable latents ({error}); expected the cache as it was built: build it again"
            ) from error


def _encode_video(
    video: Path, codec: FrameCodec, size: tuple[int, int], path: Path, shape: tuple[int, ...], batch_size: int
) -> None:
    count = 0
    with growing_array(path, shape, np.float16) as append:
        for frames_THWC in read_in_order(video, batch_size):
            pixels_TCHW = to_model_range(fit_frames(frames_THWC, *size))
            with torch.inference_mode():
                encoded = codec.encode(pixels_TCHW[None].to(codec.device))[0]
            latents = encoded.half().cpu().numpy()
            if not np.isfinite(latents).all():
                raise MagiError(f"{video}: the codec gave latents beyond float16; expected unit variance")
            append(latents)
            count += len(latents)
        if count != shape[0]:
            raise MagiError(f"{video}: {count} frames; expected {shape[0]}, as it held when it was looked through")


def _is_complete(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file is a whole float16 array of this shape; its name already vouches for what was encoded."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # refuses a file shorter than its header says
    except (OSError, ValueError, EOFError):
        return False
    return stored.shape == shape and stored.dtype == np.float16


def _relative(folder: VideoFolder, number: int) -> str:
    return folder.videos[number].path.relative_to(folder.root).as_posix()


def _digest(folder: VideoFolder, number: int, fingerprint: str, height: int, width: int) -> str:
    video = folder.videos[number]
    status = video.path.stat()
    parts = [
        fingerprint,
        height,
        width,
        _relative(folder, number),
        status.st_size,
        status.st_mtime_ns,
        video.num_frames,
    ]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]
