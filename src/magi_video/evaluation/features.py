"""From clips to numbers: what each detector says about one clip, alone.

Every network sees one clip at a time, so that no feature depends on the batch or on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from magi_video.distributed import one_by_one
from magi_video.errors import MagiError
from magi_video.evaluation.protocols import MIN_FRAMES, Protocol
from magi_video.evaluation.resizing import apply_chain
from magi_video.files.atomic import replacing

Network = Callable[..., Tensor]
FEATURES = 1
"""Version of the stored features: to be raised when a network or a step computes something else."""


@dataclass
class Detectors:
    """The networks of a score; any of them may be replaced by another callable of the same form.

    Attributes:
        video: float32 `[1, 3, T, 224, 224]` in the protocol's pixel range → `[1, D]`.
        image: uint8 `[N, H, W, 3]` → `[N, D]`; None for no FID.
        perceptual: two float32 `[N, 3, H, W]` in [−1, 1] → `[N]`; None for no LPIPS.
        hashes: SHA-256 of the weights by name ("i3d", "inception", "lpips-alex"); features of a network without one
            are not kept.
        missing: why a network is not there, one line each.
    """

    video: Network
    image: Network | None = None
    perceptual: Network | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @classmethod
    def load(
        cls, device: torch.device, *, image: bool = True, perceptual: bool = True, side: int | None = None
    ) -> Detectors:
        """The pretrained networks. I3D must be there; without the others' weights their figures are left out.

        Args:
            device: where they compute.
            image: load Inception, for FID.
            perceptual: load LPIPS, unless the frames are too small for it.
            side: pixels on the shorter side of the frames that LPIPS is to compare, if known.

        Raises:
            MagiError: the weights of I3D are not to be had.
        """
        from magi_video.evaluation.detectors.i3d import I3D
        from magi_video.evaluation.detectors.lpips import MIN_SIDE

        found = cls(I3D.pretrained().eval().to(device))
        found._note("i3d")
        if image:
            found._try("image", "inception", device)
        if perceptual and side is not None and side < (least := MIN_SIDE["alex"]):
            found.missing.append(
                f"LPIPS left out: it compares frames of {least} pixels or more on each side, these have {side}"
            )
        elif perceptual:
            found._try("perceptual", "lpips-alex", device)
        return found

    def _try(self, role: str, name: str, device: torch.device) -> None:
        try:
            if name == "inception":
                from magi_video.evaluation.detectors.inception import Inception

                network: Any = Inception.pretrained()
            else:
                from magi_video.evaluation.detectors.lpips import LPIPS

                network = LPIPS.pretrained(name.removeprefix("lpips-"))
            setattr(self, role, network.eval().to(device))
            self._note(name)
        except MagiError as error:
            figure = "FID" if name == "inception" else "LPIPS"
            self.missing.append(f"{figure} left out: {error}")

    def _note(self, name: str) -> None:
        from magi_video.evaluation.weights import WEIGHTS

        self.hashes[name] = WEIGHTS[name].sha256


class FeatureStore:
    """Features on disk under the hash of all that they depend on; a damaged file counts as none.

    Args:
        folder: where they lie; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, compute: Callable[[], np.ndarray], **key: Any) -> np.ndarray:
        """The stored array of this key, else the computed one, which is then stored. A part of the key that is None is
        not known, so nothing is kept."""
        if self.folder is None or None in key.values():
            return compute()
        name = hashlib.sha256(json.dumps({"version": FEATURES, **key}, sort_keys=True).encode()).hexdigest()
        path = self.folder / name[:2] / f"{name}.safetensors"
        stored = self._read(path)
        if stored is None:
            stored = np.ascontiguousarray(compute())
            with suppress(MagiError), replacing(path) as part:  # a cache that cannot be written is only slower
                save_file({"features": stored}, part, {"sha256": _digest(stored)})
        return stored

    @staticmethod
    def _read(path: Path) -> np.ndarray | None:
        try:
            with safe_open(path, "numpy") as file:
                stored = file.get_tensor("features")
                intact = (file.metadata() or {}).get("sha256") == _digest(stored)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        return stored if intact else None


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()


@contextmanager
def full_precision() -> Any:
    """True float32 in products and convolutions, as the published figures were computed; of the whole process."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def detector_input(clip_THWC: np.ndarray, protocol: Protocol, device: torch.device | str = "cpu") -> Tensor:
    """A clip uint8 `[T, H, W, 3]` as the video detector sees it: float32 `[1, 3, T, 224, 224]` in the pixel range."""
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(clip_THWC)).to(device).permute(0, 3, 1, 2).float()
    low, high = protocol.pixel_range
    resized_TCHW = apply_chain(frames_TCHW, protocol.detector_resize)
    return (resized_TCHW * (high - low) / 255 + low).transpose(0, 1)[None].contiguous()


def video_features(
    clips: Sequence[np.ndarray] | Any,
    protocol: Protocol,
    detector: Network | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Features of clips as a protocol wants them.

    Args:
        clips: uint8 arrays [T, H, W, 3], T ≥ 10, taken whole.
        protocol: its resize chain and pixel range are used.
        detector: see `Detectors.video`; the pretrained I3D if None.
        device: of the computation.
        progress: called with (done, total).

    Returns:
        float32 [N, D], D = 400 for I3D.
    """
    detector = detector or Detectors.load(torch.device(device), image=False, perceptual=False).video

    def one(index: int) -> np.ndarray:
        with torch.no_grad():  # which each thread must say for itself
            return one_video(clips[index], protocol, detector, device)

    rows = []
    with full_precision():
        for row_D in one_by_one(one, range(len(clips)), torch.device(device)):
            rows.append(row_D)
            if progress is not None:
                progress(len(rows), len(clips))
    return np.stack(rows)


def one_video(clip_THWC: np.ndarray, protocol: Protocol, detector: Network, device: torch.device | str) -> np.ndarray:
    """Features `[D]` of one clip."""
    return prefix_features(clip_THWC, [len(clip_THWC)], protocol, detector, device)[0]


def prefix_features(
    clip_THWC: np.ndarray, lengths: Sequence[int], protocol: Protocol, detector: Network, device: torch.device | str
) -> np.ndarray:
    """Features `[L, D]` of the first so many frames of a clip, for each of L lengths."""
    if min(lengths) < MIN_FRAMES:
        raise MagiError(f"a clip has {min(lengths)} frames; I3D needs at least {MIN_FRAMES}")
    video = detector_input(clip_THWC, protocol, device)
    return np.stack([detector(video[:, :, :length].contiguous())[0].float().cpu().numpy() for length in lengths])


def prefix_lengths(frames: int) -> list[int]:
    """Lengths of the prefixes at which FVD over length is taken: 10, 12, 14, 16, or 16, 32, 48, … for long clips."""
    lengths = list(range(MIN_FRAMES, frames + 1, 2)) if frames <= 24 else list(range(16, frames + 1, 16))
    return lengths if lengths[-1] == frames else [*lengths, frames]
