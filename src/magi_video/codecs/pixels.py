"""No compression: the picture is its own latent. For small worlds, baselines and tests."""

from collections.abc import Sequence

import torch
from typing_extensions import override

from magi_video.codecs.base import Codec, register
from magi_video.models.configured import capture_config


@register
class PixelCodec(Codec):
    """Pixels as latents: 3 channels, full size, every frame by itself.

    Until measured statistics are set, mean 0 and deviation 1: latents are the pixels in [-1, 1].
    """

    name = "pixels"
    title = "no compression"
    compresses = False
    latent_channels = 3
    spatial_factor = 1
    temporal_factor = 1

    @capture_config
    def __init__(self, latents_mean: Sequence[float] = (0.0,) * 3, latents_std: Sequence[float] = (1.0,) * 3) -> None:
        super().__init__()
        self.set_statistics(latents_mean, latents_std)

    @override
    def encode_raw(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        """Return the pixels."""
        return video_BTCHW

    @override
    def decode_raw(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        """Return the latents."""
        return latents_BTCHW
