"""I3D: Inception-v1 inflated to three dimensions (Carreira & Zisserman 2017, arXiv:1705.07750), RGB, Kinetics-400.

The network behind FVD (Unterthiner et al. 2018, arXiv:1812.01717): same weights and same arithmetic as TF-Hub's
`i3d-kinetics-400/1`. Two things make ports differ from it: TensorFlow's "SAME" padding, which at stride 2 puts the odd
row of zeros after the data, and batch normalisation without a scale and with eps 1e-3. Normalisation is folded into the
convolutions here: what is left is convolution, ReLU, pooling.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.errors import MagiError
from magi_video.evaluation.detectors.folding import fold_normalisation
from magi_video.evaluation.weights import load_weights

MIN_FRAMES = 9
SIDE = 224
BATCH_NORM_EPS = 1e-3

# Channels of the four branches: 1×1 | 1×1 then 3×3 | 1×1 then 3×3 | pool then 1×1.
MIXED = {
    "3b": (192, (64, 96, 128, 16, 32, 32)),
    "3c": (256, (128, 128, 192, 32, 96, 64)),
    "4b": (480, (192, 96, 208, 16, 48, 64)),
    "4c": (512, (160, 112, 224, 24, 64, 64)),
    "4d": (512, (128, 128, 256, 24, 64, 64)),
    "4e": (512, (112, 144, 288, 32, 64, 64)),
    "4f": (528, (256, 160, 320, 32, 128, 128)),
    "5b": (832, (256, 160, 320, 32, 128, 128)),
    "5c": (832, (384, 192, 384, 48, 128, 128)),
}


def same_padding(video_BCTHW: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Zeros around the data so that the output has ceil(size / stride) entries; an odd one comes after the data."""
    pads: list[int] = []
    for size, k, s in zip(video_BCTHW.shape[2:], kernel, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [total // 2, total - total // 2, *pads]  # F.pad wants the last dimension first
    return F.pad(video_BCTHW, pads) if any(pads) else video_BCTHW


class ConvUnit(nn.Conv3d):
    """Convolution with "SAME" padding, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> None:
        # At stride 1 the padding is symmetric and the convolution can do it itself.
        super().__init__(in_channels, out_channels, kernel, stride, padding=kernel // 2 if stride == 1 else 0)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """[B, C, T, H, W] → [B, out_channels, ⌈T/stride⌉, ⌈H/stride⌉, ⌈W/stride⌉]."""
        if self.stride[0] > 1:
            video_BCTHW = same_padding(video_BCTHW, self.kernel_size, self.stride)  # type: ignore[arg-type]
        return F.relu(super().forward(video_BCTHW), inplace=True)


class MaxPool(nn.Module):
    """Maximum with "SAME" padding, one dimension after the other: the same numbers as `max_pool3d`, many times as fast.

    Zeros do for minus infinity: what is pooled comes out of a ReLU.
    """

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """[B, C, T, H, W], nothing below zero, → each size divided by its stride, rounded up."""
        pooled = same_padding(video_BCTHW, self.kernel, self.stride)
        for dim, (kernel, stride) in enumerate(zip(self.kernel, self.stride, strict=True), start=2):
            last = pooled.shape[dim] - kernel + 1
            before = (slice(None),) * dim
            pooled = reduce(torch.maximum, (pooled[*before, first : first + last : stride] for first in range(kernel)))
        return pooled


class Mixed(nn.Module):
    """Inception block: four branches side by side."""

    def __init__(self, in_channels: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        a, b1, b2, c1, c2, d = channels
        self.branch_0 = ConvUnit(in_channels, a)
        self.branch_1 = nn.Sequential(ConvUnit(in_channels, b1), ConvUnit(b1, b2, 3))
        self.branch_2 = nn.Sequential(ConvUnit(in_channels, c1), ConvUnit(c1, c2, 3))
        self.branch_3 = nn.Sequential(MaxPool((3, 3, 3), (1, 1, 1)), ConvUnit(in_channels, d))

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """[B, C, T, H, W] → the branches' channels side by side, of the same T, H, W."""
        branches = (self.branch_0, self.branch_1, self.branch_2, self.branch_3)
        return torch.cat([branch(video_BCTHW) for branch in branches], 1)


class I3D(nn.Module):
    """Logits of 400 classes for a clip. Untrained as constructed: use `I3D.pretrained()`."""

    def __init__(self) -> None:
        super().__init__()
        mixed = {name: Mixed(*sizes) for name, sizes in MIXED.items()}
        self.features = nn.Sequential(
            ConvUnit(3, 64, 7, 2),
            MaxPool((1, 3, 3), (1, 2, 2)),
            ConvUnit(64, 64),
            ConvUnit(64, 192, 3),
            MaxPool((1, 3, 3), (1, 2, 2)),
            mixed["3b"],
            mixed["3c"],
            MaxPool((3, 3, 3), (2, 2, 2)),
            *(mixed[name] for name in ("4b", "4c", "4d", "4e", "4f")),
            MaxPool((2, 2, 2), (2, 2, 2)),
            mixed["5b"],
            mixed["5c"],
        )
        self.logits = nn.Conv3d(1024, 400, 1)

    @classmethod
    def pretrained(cls) -> I3D:
        """The network of FVD, in evaluation mode on the CPU; its weights are fetched if need be.

        Raises:
            MagiError: the weights are not to be had.
        """
        model = cls()
        source = load_weights("i3d")
        try:
            model.load_state_dict(
                {key: value for name, place in model._names() for key, value in _folded(source, name, place)}
            )
        except (KeyError, RuntimeError) as error:
            raise MagiError(f"the i3d weights do not fit the network ({error})") from None
        return model.eval().requires_grad_(False)

    def _names(self) -> list[tuple[str, str]]:
        """Names of the convolutions in the source and here."""
        stem = {"Conv3d_1a_7x7": 0, "Conv3d_2b_1x1": 2, "Conv3d_2c_3x3": 3}
        names = [(name, f"features.{index}") for name, index in stem.items()]
        places = [f"features.{i}" for i, layer in enumerate(self.features) if isinstance(layer, Mixed)]
        for block, place in zip(MIXED, places, strict=True):
            names += [
                (f"Mixed_{block}/Branch_0/Conv3d_0a_1x1", f"{place}.branch_0"),
                (f"Mixed_{block}/Branch_1/Conv3d_0a_1x1", f"{place}.branch_1.0"),
                (f"Mixed_{block}/Branch_1/Conv3d_0b_3x3", f"{place}.branch_1.1"),
                (f"Mixed_{block}/Branch_2/Conv3d_0a_1x1", f"{place}.branch_2.0"),
                (f"Mixed_{block}/Branch_2/Conv3d_0b_3x3", f"{place}.branch_2.1"),
                (f"Mixed_{block}/Branch_3/Conv3d_0b_1x1", f"{place}.branch_3.1"),
            ]
        return [*names, ("Logits/Conv3d_0c_1x1", "logits")]

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """Mean logits over time.

        Args:
            video_BCTHW: float32 [B, 3, T, 224, 224] in [−1, 1], T ≥ 9.

        Returns:
            [B, 400], before the softmax.
        """
        _, channels, frames, height, width = video_BCTHW.shape
        if (channels, height, width) != (3, SIDE, SIDE) or frames < MIN_FRAMES:
            raise MagiError(f"I3D takes clips [B, 3, T ≥ {MIN_FRAMES}, {SIDE}, {SIDE}], not {list(video_BCTHW.shape)}")
        features_BCTHW = self.features(video_BCTHW)
        pooled_BCT11 = F.avg_pool3d(features_BCTHW, (2, 7, 7), 1)
        return self.logits(pooled_BCT11).mean((2, 3, 4))


def _folded(source: dict[str, Tensor], name: str, place: str) -> list[tuple[str, Tensor]]:
    """Weight and bias of a convolution, with the normalisation that follows it folded in."""
    weight_OITHW = source[f"params/{name}/Conv_0/kernel"].permute(4, 3, 0, 1, 2)
    if f"params/{name}/Conv_0/bias" in source:
        bias_O = source[f"params/{name}/Conv_0/bias"]
    else:
        mean_O, variance_O = (source[f"batch_stats/{name}/BatchNorm_0/{part}"] for part in ("mean", "var"))
        beta_O = source[f"params/{name}/BatchNorm_0/bias"]
        weight_OITHW, bias_O = fold_normalisation(weight_OITHW, mean_O, variance_O, beta_O, BATCH_NORM_EPS)
    return [(f"{place}.weight", weight_OITHW), (f"{place}.bias", bias_O)]
