"""Small fixed networks instead of the pretrained ones."""

import torch
from torch import Tensor

from magi_video.evaluation.features import Detectors


def small_video_network(video_BCTHW: Tensor) -> Tensor:
    """`[1, 3, T, 224, 224]` → 8 features that see space and time."""
    pooled = torch.nn.functional.adaptive_avg_pool3d(video_BCTHW[..., ::14, ::14], (4, 4, 4)).flatten(1)
    weight = torch.randn(pooled.shape[1], 8, generator=torch.Generator().manual_seed(0))
    return pooled @ weight


def small_image_network(frames_NHWC: Tensor) -> Tensor:
    pooled = torch.nn.functional.adaptive_avg_pool2d(frames_NHWC.permute(0, 3, 1, 2).float() / 255, (2, 2)).flatten(1)
    return pooled @ torch.randn(pooled.shape[1], 6, generator=torch.Generator().manual_seed(1))


def small_perceptual_network(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    return (a_NCHW - b_NCHW).abs().mean((1, 2, 3))


def small_detectors() -> Detectors:
    """All three, with names in place of hashes."""
    hashes = {"i3d": "small video network", "inception": "small image network"}
    return Detectors(small_video_network, small_image_network, small_perceptual_network, hashes)
