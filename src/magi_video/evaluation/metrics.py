"""The measures as `torchmetrics` classes, for training loops and notebooks, on any number of processes.

Every clip is measured alone and kept with its index; `compute` gathers all, drops repeated ones (samplers of
distributed runs repeat clips to fill the last batch), sorts by index and only then computes. So the result is the same,
to the last bit, for every batch size, order and number of processes. An index is the clip's place in its set, not in
its batch.

Call `update`, not the metric itself: the distance within one batch means nothing.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from magi_video.errors import MagiError
from magi_video.evaluation.features import Network, full_precision, one_video
from magi_video.evaluation.frechet import Moments, Root, frechet_distance
from magi_video.evaluation.measures import Motion, clip_motion, compare_motion
from magi_video.evaluation.paired import paired_errors
from magi_video.evaluation.protocols import Protocol, find_protocol

Indices = Iterable[int] | Tensor


class ClipMetric(Metric):
    """A metric that keeps one array [rows, columns] a clip, on one or more sides ("real", "fake").

    A side's state is a list of flat float64 tensors, each `index, rows, columns, values…`: one-dimensional and of one
    type whatever is inside, so that a process without any clip can take part in the gathering.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, *sides: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.set_dtype(torch.float64)
        for side in sides:
            self.add_state(side, default=[], dist_reduce_fx="cat")

    def _keep(self, side: str, index: int, values_RC: np.ndarray) -> None:
        record = np.concatenate([[index, *values_RC.shape], values_RC.ravel()])
        getattr(self, side).append(torch.from_numpy(record).to(self.device, torch.float64))

    def _kept(self, side: str) -> list[np.ndarray]:
        """The arrays of all clips in the order of their indices, each once; `MagiError` if there is none."""
        state = getattr(self, side)  # a list, or one tensor after the processes' states were gathered
        parts = [part.cpu().numpy() for part in (state if isinstance(state, list) else [state])]
        values = np.concatenate([np.empty(0), *parts])
        clips: dict[int, np.ndarray] = {}
        start = 0
        while start < len(values):
            index, rows, columns = (int(number) for number in values[start : start + 3])
            start += 3 + rows * columns
            clip_RC = values[start - rows * columns : start].reshape(rows, columns)
            known_RC = clips.setdefault(index, clip_RC)
            if known_RC.shape != clip_RC.shape or not np.allclose(known_RC, clip_RC, rtol=1e-3, equal_nan=True):
                raise MagiError(f"two different {side} clips have the index {index}; every clip of a set needs its own")
        if not clips:
            raise MagiError(f"no {side} clips were given to {type(self).__name__}")
        if len({clip_RC.shape for clip_RC in clips.values()}) > 1:
            raise MagiError(f"the {side} clips differ in length; {type(self).__name__} needs one length")
        return [clips[index] for index in sorted(clips)]


class FrechetVideoDistance(ClipMetric):
    """FVD: the Fréchet distance of clips' features.

    With fewer clips than features (400 for I3D) covariances are rank-deficient and the distance is strongly biased
    upwards: compare figures of equal numbers of clips only.

    Args:
        protocol: name or `Protocol`; of it, the detector's resize and pixel range, `ddof` and `root` are used. Which
            frames and how many clips it gets is the caller's.
        detector: float32 [1, 3, T, 224, 224] → [1, D]; the pretrained I3D if None.
        settings: of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def __init__(self, protocol: str | Protocol, detector: Network | None = None, **settings: Any) -> None:
        super().__init__("real", "fake", **settings)
        self.protocol = find_protocol(protocol)
        if detector is None:
            from magi_video.evaluation.detectors.i3d import I3D

            detector = I3D.pretrained().eval()
        self.detector = detector

    def update(self, videos: Tensor, real: bool, index: Indices) -> None:
        """Add clips, uint8 [B, T ≥ 10, H, W, 3], of the real or the generated set, with their indices [B]."""
        with full_precision():
            for number, clip_THWC in _clips(videos, index):
                features_D = one_video(clip_THWC, self.protocol, self.detector, self.device)
                self._keep("real" if real else "fake", number, features_D[None])

    def compute(self) -> Tensor:
        """The distance, a float64 scalar."""
        real, fake = (Moments.from_features(np.concatenate(self._kept(side))) for side in ("real", "fake"))
        distance = frechet_distance(real, fake, ddof=self.protocol.ddof, root=self.protocol.root)
        return torch.tensor(distance.value, dtype=torch.float64)


class FrechetImageDistance(ClipMetric):
    """FID of the frames of clips of one length, of all frames together and by frame index.

    Per frame index there are as many samples as clips. With fewer than the 2048 features the covariances are
    rank-deficient and the distance is biased upwards: the course over the frames can be read, the figures compare only
    with those of as many clips.

    Args:
        detector: uint8 [N, H, W, 3] → [N, D]; the pretrained Inception if None.
        ddof: as for `frechet_distance`.
        root: as for `frechet_distance`.
        settings: of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def __init__(self, detector: Network | None = None, *, ddof: int = 1, root: Root = "eigh", **settings: Any) -> None:
        super().__init__("real", "fake", **settings)
        self.ddof, self.root = ddof, root
        if detector is None:
            from magi_video.evaluation.detectors.inception import Inception

            detector = Inception.pretrained().eval()
        self.detector = detector

    def update(self, videos: Tensor, real: bool, index: Indices) -> None:
        """Add clips, uint8 [B, T, H, W, 3], of the real or the generated set, with their indices [B]."""
        with full_precision():
            for number, clip_THWC in _clips(videos, index):
                features_TD = self.detector(torch.from_numpy(clip_THWC).to(self.device))
                self._keep("real" if real else "fake", number, features_TD.double().cpu().numpy())

    def compute(self) -> dict[str, Tensor]:
        """`fid`: a float64 scalar over all frames; `per_frame`: [T], one for each frame index."""
        real_NTD, fake_NTD = np.stack(self._kept("real")), np.stack(self._kept("fake"))
        if real_NTD.shape[1] != fake_NTD.shape[1]:
            raise MagiError(f"real clips have {real_NTD.shape[1]} frames, fake ones {fake_NTD.shape[1]}")
        per_frame = [self._distance(real_NTD[:, t], fake_NTD[:, t]) for t in range(real_NTD.shape[1])]
        fid = self._distance(*(side.reshape(-1, side.shape[-1]) for side in (real_NTD, fake_NTD)))
        return {
            "fid": torch.tensor(fid, dtype=torch.float64),
            "per_frame": torch.tensor(per_frame, dtype=torch.float64),
        }

    def _distance(self, real_ND: np.ndarray, fake_ND: np.ndarray) -> float:
        real, fake = Moments.from_features(real_ND), Moments.from_features(fake_ND)
        return frechet_distance(real, fake, ddof=self.ddof, root=self.root).value


class PairedError(ClipMetric):
    """PSNR (dB), SSIM and LPIPS of generated frames against the true continuation, by frame index.

    Args:
        perceptual: two float32 [N, 3, H, W] in [−1, 1] → [N], as `LPIPS.pretrained("alex")`; no LPIPS if None.
        settings: of `torchmetrics.Metric`.
    """

    def __init__(self, perceptual: Network | None = None, **settings: Any) -> None:
        super().__init__("clips", **settings)
        self.perceptual = perceptual

    def update(self, fake: Tensor, real: Tensor, index: Indices) -> None:
        """Add generated clips and their true continuations, both uint8 [B, T, H, W, 3] without given frames."""
        index = [int(number) for number in index]
        with full_precision():
            for (number, fake_THWC), (_, real_THWC) in zip(_clips(fake, index), _clips(real, index), strict=True):
                errors = paired_errors(real_THWC, fake_THWC, self.perceptual, self.device)
                self._keep("clips", number, np.stack([errors[name] for name in self._names]))

    def compute(self) -> dict[str, Tensor]:
        """`psnr`, `ssim` and, with a network, `lpips`: means over clips, float64 [T]."""
        means_MT = np.mean(self._kept("clips"), axis=0)
        return {name: torch.from_numpy(mean_T) for name, mean_T in zip(self._names, means_MT, strict=True)}

    @property
    def _names(self) -> list[str]:
        return ["psnr", "ssim"] if self.perceptual is None else ["psnr", "ssim", "lpips"]


class MotionStatistic(ClipMetric):
    """How much moves in generated clips against real ones, without a network; see `motion.compare_motion`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("real", "fake", **settings)

    def update(self, videos: Tensor, real: bool, index: Indices) -> None:
        """Add clips, uint8 [B, T ≥ 3, H, W, 3], of the real or the generated set, with their indices [B]."""
        for number, clip_THWC in _clips(videos, index):
            motion = clip_motion(clip_THWC)
            # One jerk fewer than speeds: a last one fills the row.
            self._keep("real" if real else "fake", number, np.stack([motion.speed_T, np.append(motion.jerk_T, 0)]))

    def compute(self) -> dict[str, Tensor]:
        """What `compare_motion` gives, as float64 scalars."""
        real, fake = ([Motion(clip[0], clip[1, :-1]) for clip in self._kept(side)] for side in ("real", "fake"))
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in compare_motion(real, fake).items()}


def _clips(videos_BTHWC: Tensor, index_B: Indices) -> list[tuple[int, np.ndarray]]:
    """Single clips with their indices; `MagiError` for anything but uint8 [B, T, H, W, 3] and B indices."""
    videos_BTHWC = torch.as_tensor(videos_BTHWC)
    if videos_BTHWC.dtype != torch.uint8 or videos_BTHWC.ndim != 5 or videos_BTHWC.shape[-1] != 3:
        got = f"{str(videos_BTHWC.dtype).removeprefix('torch.')} {list(videos_BTHWC.shape)}"
        raise MagiError(f"videos must be uint8 [clips, frames, height, width, 3], got {got}")
    numbers = [int(number) for number in index_B]
    if len(numbers) != len(videos_BTHWC):
        raise MagiError(f"{len(videos_BTHWC)} clips came with {len(numbers)} indices; each needs its own")
    return list(zip(numbers, videos_BTHWC.cpu().numpy(), strict=True))
