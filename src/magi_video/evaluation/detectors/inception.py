"""InceptionV3 of FID (Heusel et al. 2017, arXiv:1706.08500): 2048 pooled features of an image.

Weights and arithmetic are those of the network that StyleGAN3 and its descendants use: TensorFlow's
`inception-2015-12-05`, which differs from torchvision's network of that name in its weights and in the pooling of its
blocks. Frames are resized to 299 × 299 as TensorFlow 1 does it (bilinear, pixel i of the result at i · in/out), and
grey level v becomes (v − 128) / 128. Batch normalisation (eps 1e-3, no scale) is folded into the convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.errors import MagiError
from magi_video.evaluation.detectors.folding import fold_normalisation
from magi_video.evaluation.resizing import resize_tf1_bilinear
from magi_video.evaluation.weights import load_weights

SIDE = 299
BATCH_NORM_EPS = 1e-3
CHUNK = 32
"""Frames at a time, which bounds the memory of long clips."""

Size = int | tuple[int, int]


class ConvUnit(nn.Conv2d):
    """Convolution, then ReLU."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """[N, C, H, W] → [N, out_channels, H', W']."""
        return F.relu(super().forward(images_NCHW), inplace=True)


class Branches(nn.ModuleDict):
    """Modules side by side: their channels one after the other."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """[N, C, H, W] → [N, sum of the branches' channels, H', W']."""
        return torch.cat([branch(images_NCHW) for branch in self.values()], 1)


def row(*modules: nn.Module) -> nn.Sequential:
    """Modules one after the other; convolutions are called conv, conv_1, conv_2, … as the weights are."""
    sequence = nn.Sequential()
    for module in modules:
        number = sum(isinstance(one, ConvUnit) for one in sequence)
        name = (f"conv_{number}" if number else "conv") if isinstance(module, ConvUnit) else "mixed"
        sequence.add_module("pool" if isinstance(module, nn.AvgPool2d | nn.MaxPool2d) else name, module)
    return sequence


def conv(inputs: int, outputs: int, kernel: Size = 1, stride: int = 1, *, same: bool = True) -> ConvUnit:
    """A convolution; `same` keeps height and width."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return ConvUnit(inputs, outputs, kernel, stride, (height // 2, width // 2) if same else 0)


def average() -> nn.AvgPool2d:
    """Average of 3 × 3 neighbours; those outside the image do not count."""
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


def block_a(inputs: int, pooled: int) -> Branches:
    """35 × 35."""
    return Branches(
        {
            "conv": conv(inputs, 64),
            "tower": row(conv(inputs, 48), conv(48, 64, 5)),
            "tower_1": row(conv(inputs, 64), conv(64, 96, 3), conv(96, 96, 3)),
            "tower_2": row(average(), conv(inputs, pooled)),
        }
    )


def block_b(inputs: int) -> Branches:
    """35 × 35 → 17 × 17."""
    return Branches(
        {
            "conv": conv(inputs, 384, 3, 2, same=False),
            "tower": row(conv(inputs, 64), conv(64, 96, 3), conv(96, 96, 3, 2, same=False)),
            "pool": nn.MaxPool2d(3, 2),
        }
    )


def block_c(inputs: int, middle: int) -> Branches:
    """17 × 17, convolutions of 7 in a line."""
    across, down = (1, 7), (7, 1)
    return Branches(
        {
            "conv": conv(inputs, 192),
            "tower": row(conv(inputs, middle), conv(middle, middle, across), conv(middle, 192, down)),
            "tower_1": row(
                conv(inputs, middle),
                conv(middle, middle, down),
                conv(middle, middle, across),
                conv(middle, middle, down),
                conv(middle, 192, across),
            ),
            "tower_2": row(average(), conv(inputs, 192)),
        }
    )


def block_d(inputs: int) -> Branches:
    """17 × 17 → 8 × 8."""
    return Branches(
        {
            "tower": row(conv(inputs, 192), conv(192, 320, 3, 2, same=False)),
            "tower_1": row(
                conv(inputs, 192), conv(192, 192, (1, 7)), conv(192, 192, (7, 1)), conv(192, 192, 3, 2, same=False)
            ),
            "pool": nn.MaxPool2d(3, 2),
        }
    )


def block_e(inputs: int, pool: nn.Module) -> Branches:
    """8 × 8, convolutions of 3 in a line, side by side. The last block pools by the maximum: FID's network does."""

    def cross() -> Branches:
        return Branches({"conv": conv(384, 384, (1, 3)), "conv_1": conv(384, 384, (3, 1))})

    return Branches(
        {
            "conv": conv(inputs, 320),
            "tower": row(conv(inputs, 384), cross()),
            "tower_1": row(conv(inputs, 448), conv(448, 384, 3), cross()),
            "tower_2": row(pool, conv(inputs, 192)),
        }
    )


class Inception(nn.Module):
    """Pooled features of images. Untrained as constructed: use `Inception.pretrained()`."""

    def __init__(self) -> None:
        super().__init__()
        layers = {
            "conv": conv(3, 32, 3, 2, same=False),
            "conv_1": conv(32, 32, 3, same=False),
            "conv_2": conv(32, 64, 3),
            "pool0": nn.MaxPool2d(3, 2),
            "conv_3": conv(64, 80),
            "conv_4": conv(80, 192, 3, same=False),
            "pool1": nn.MaxPool2d(3, 2),
            "mixed": block_a(192, 32),
            "mixed_1": block_a(256, 64),
            "mixed_2": block_a(288, 64),
            "mixed_3": block_b(288),
            "mixed_4": block_c(768, 128),
            "mixed_5": block_c(768, 160),
            "mixed_6": block_c(768, 160),
            "mixed_7": block_c(768, 192),
            "mixed_8": block_d(768),
            "mixed_9": block_e(1280, average()),
            "mixed_10": block_e(2048, nn.MaxPool2d(3, 1, 1)),
        }
        self.layers = nn.Sequential()
        for name, layer in layers.items():
            self.layers.add_module(name, layer)

    @classmethod
    def pretrained(cls) -> Inception:
        """The network of FID, in evaluation mode on the CPU; its weights are fetched if need be.

        Raises:
            MagiError: the weights are not to be had.
        """
        model = cls()
        source = load_weights("inception")
        units = {name: unit for name, unit in model.layers.named_modules() if isinstance(unit, ConvUnit)}
        try:
            for name, unit in units.items():
                block, _, inner = name.partition(".")
                # The source has modules in modules, but in the last two blocks one level with longer names.
                nested, flat = name.replace(".", "/"), f"{block}/{inner.replace('.', '_')}"
                place = "net/layers/" + (nested if f"net/layers/{nested}/weight" in source else flat)
                weight, mean, variance, beta = (source[f"{place}/{p}"] for p in ("weight", "mean", "var", "beta"))
                weight, bias = fold_normalisation(weight, mean, variance, beta, BATCH_NORM_EPS)
                unit.load_state_dict({"weight": weight, "bias": bias})
        except (KeyError, RuntimeError) as error:
            raise MagiError(f"the inception weights do not fit the network ({error})") from None
        # Channels last: a quarter less time on CPUs.
        return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames_NHWC: Tensor) -> Tensor:
        """Features before the classifier, averaged over the image.

        Args:
            frames_NHWC: uint8 [N, H, W, 3].

        Returns:
            float32 [N, 2048].
        """
        if frames_NHWC.ndim != 4 or frames_NHWC.shape[-1] != 3 or frames_NHWC.dtype != torch.uint8:
            raise MagiError(
                f"Inception takes frames uint8 [N, H, W, 3], not {frames_NHWC.dtype} {list(frames_NHWC.shape)}"
            )
        return torch.cat([self._features(chunk_NHWC) for chunk_NHWC in frames_NHWC.split(CHUNK)])

    def _features(self, frames_NHWC: Tensor) -> Tensor:
        pixels_NCHW = resize_tf1_bilinear(frames_NHWC.permute(0, 3, 1, 2).float(), SIDE, SIDE)
        scaled_NCHW = ((pixels_NCHW - 128) / 128).contiguous(memory_format=torch.channels_last)
        return self.layers(scaled_NCHW).mean((2, 3))
