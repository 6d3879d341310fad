"""Encoding one video: its frames, or its clips of a grid, as rows of a latent cache."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from magi_video.errors import MagiError
from magi_video.latents.grid import ClipGrid
from magi_video.video.image import fit_frames, to_model_range
from magi_video.video.video import read_in_order

FRAMES_AT_ONCE = 64
"""Frames of a video that are encoded together."""


class Encoder(Protocol):
    """What encoding needs of a codec."""

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


def encode_video(
    path: Path,
    num_frames: int,
    codec: Encoder,
    size: tuple[int, int],
    grid: ClipGrid | None,
    lock: Any,
    mirrored: bool,
) -> Iterator[np.ndarray]:
    """The rows of a video in order, float16 [n, *row], a few at a time. `lock` guards codecs that keep a state, and
    devices that do one thing at a time."""

    def encode(frames_THWC: np.ndarray) -> np.ndarray:
        pixels_TCHW = to_model_range(frames_THWC).to(codec.device)
        with lock, torch.inference_mode():
            latents_TCHW = codec.encode(pixels_TCHW[None])[0].half()
        array = latents_TCHW.cpu().numpy()
        if not np.isfinite(array).all():
            raise MagiError(f"{path}: the codec gave latents beyond float16; expected unit variance")
        return array

    count = 0
    pieces = (fit_frames(frames, *size) for frames in read_in_order(path, FRAMES_AT_ONCE))
    if mirrored:
        pieces = (np.ascontiguousarray(frames_THWC[:, :, ::-1]) for frames_THWC in pieces)
    if grid is None:
        for frames_THWC in pieces:
            count += len(frames_THWC)
            yield encode(frames_THWC)
    else:
        # Clips in the order of their ends: only the frames of the longest clip need to be kept.
        clips = deque(grid.rows(num_frames))
        recent: deque[np.ndarray] = deque(maxlen=1 + (grid.length - 1) * grid.intervals[-1])
        for frame in (frame for frames_THWC in pieces for frame in frames_THWC):
            recent.append(frame)
            count += 1
            while clips and clips[0][1] + (grid.length - 1) * clips[0][0] == count - 1:
                interval, start = clips.popleft()
                first = start - count + len(recent)
                yield encode(np.stack([recent[first + interval * t] for t in range(grid.length)]))[None]
    if count != num_frames:
        raise MagiError(f"{path}: {count} frames; expected {num_frames}, as it held when it was looked through")


def row_shape(codec: Encoder, height: int, width: int, grid: ClipGrid | None) -> tuple[int, ...]:
    """Shape of a row, as a black clip tells."""
    with torch.inference_mode():
        latents = codec.encode(torch.full((1, grid.length if grid else 1, 3, height, width), -1.0, device=codec.device))
    return tuple(latents.shape[1:] if grid else latents.shape[2:])
