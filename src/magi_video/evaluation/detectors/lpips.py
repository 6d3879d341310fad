"""LPIPS: how different two images look (Zhang et al. 2018, arXiv:1801.03924), version 0.1, on AlexNet or VGG-16.

Features of both images after five of the network's ReLUs, each position's vector brought to length one, are subtracted
and squared; learned non-negative weights of the channels, the mean over positions and the sum over the five layers make
it one number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from magi_video.errors import MagiError
from magi_video.evaluation.weights import load_weights

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPS = 1e-10
MIN_SIDE = {"alex": 31, "vgg": 16}

# Convolutions as (outputs, kernel, stride, padding); a stage ends where features are taken, pooling begins the next.
Stage = tuple[tuple[int, int, int, int], ...]
STAGES: dict[str, tuple[Stage, ...]] = {
    "alex": (
        ((64, 11, 4, 2),),
        ((192, 5, 1, 2),),
        ((384, 3, 1, 1),),
        ((256, 3, 1, 1),),
        ((256, 3, 1, 1),),
    ),
    "vgg": (
        ((64, 3, 1, 1),) * 2,
        ((128, 3, 1, 1),) * 2,
        ((256, 3, 1, 1),) * 3,
        ((512, 3, 1, 1),) * 3,
        ((512, 3, 1, 1),) * 3,
    ),
}
POOLS = {
    "alex": (None, (3, 2), (3, 2), None, None),
    "vgg": (None, (2, 2), (2, 2), (2, 2), (2, 2)),
}
SOURCE = {"alex": "AlexNet_0", "vgg": "VGG16_0"}


class LPIPS(nn.Module):
    """Perceptual distance of images. Untrained as constructed: use `LPIPS.pretrained("alex")`.

    Args:
        net: "alex", which evaluations use, or "vgg", customary as a loss.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: str) -> None:
        super().__init__()
        if net not in STAGES:
            raise MagiError(f"LPIPS on {net!r}; expected one of {', '.join(STAGES)}")
        self.net = net
        self.stages = nn.ModuleList()
        channels = 3
        for convolutions, pool in zip(STAGES[net], POOLS[net], strict=True):
            stage = nn.Sequential() if pool is None else nn.Sequential(nn.MaxPool2d(*pool))
            for outputs, kernel, stride, padding in convolutions:
                stage.extend([nn.Conv2d(channels, outputs, kernel, stride, padding), nn.ReLU(inplace=True)])
                channels = outputs
            self.stages.append(stage)
        self.channel_weights = nn.ParameterList(torch.ones(stage[-1][0]) for stage in STAGES[net])
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1), persistent=False)

    @classmethod
    def pretrained(cls, net: str = "alex") -> LPIPS:
        """The published metric, in evaluation mode on the CPU; its weights are fetched if need be.

        Its parameters take no gradients; the images it compares do.

        Raises:
            MagiError: there is no such network, or its weights are not to be had.
        """
        model = cls(net)
        source = load_weights(f"lpips-{net}")
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        try:
            for number, convolution in enumerate(convolutions):
                kernel_HWIO = source[f"{SOURCE[net]}/Conv_{number}/kernel"]
                bias_O = source[f"{SOURCE[net]}/Conv_{number}/bias"]
                convolution.load_state_dict({"weight": kernel_HWIO.permute(3, 2, 0, 1), "bias": bias_O})
            weights = [source[f"NetLinLayer_{number}/Conv_0/kernel"].flatten() for number in range(len(model.stages))]
            model.channel_weights.load_state_dict({str(number): weight for number, weight in enumerate(weights)})
        except (KeyError, RuntimeError) as error:
            raise MagiError(f"the lpips-{net} weights do not fit the network ({error})") from None
        # Channels last: a tenth less time on CPUs.
        return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
        """Distances of pairs of images.

        Args:
            a_NCHW: float32 [N, 3, H, W] in [−1, 1].
            b_NCHW: of the same shape.

        Returns:
            [N], 0 for equal images.
        """
        least = MIN_SIDE[self.net]
        if a_NCHW.shape != b_NCHW.shape or a_NCHW.ndim != 4 or a_NCHW.shape[1] != 3 or min(a_NCHW.shape[2:]) < least:
            raise MagiError(
                f"LPIPS on {self.net} takes two batches [N, 3, H, W] of one shape, H and W at least {least}, "
                f"not {list(a_NCHW.shape)} and {list(b_NCHW.shape)}"
            )
        features = (torch.cat([a_NCHW, b_NCHW]) - self.shift) / self.scale
        features = features.contiguous(memory_format=torch.channels_last)
        distance_N = a_NCHW.new_zeros(len(a_NCHW))
        for stage, weight_C in zip(self.stages, self.channel_weights, strict=True):
            features = stage(features)
            a, b = unit_length(features).chunk(2)
            distance_N = distance_N + ((a - b).square() * weight_C.view(-1, 1, 1)).sum(1).mean((1, 2))
        return distance_N


def unit_length(features_NCHW: Tensor) -> Tensor:
    """Each position's vector divided by its length; a vector of zeros stays one, also in the gradient."""
    return features_NCHW / (features_NCHW.square().sum(1, keepdim=True) + EPS**2).sqrt()
