"""No compression: the picture is its own latent. For small worlds, baselines and tests."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config

from magi_video.codecs.base import Codec, register


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

    @register_to_config
    def __init__(self, latents_mean: Sequence[float] = (0.0,) * 3, latents_std: Sequence[float] = (1.0,) * 3) -> None:
        super().__init__()
        self.set_statistics(latents_mean, latents_std)

    def encode_raw(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        """Return the pixels."""
        return video_BTCHW

    def decode_raw(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        """Return the latents."""
        return latents_BTCHW

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, **kwargs: Any) -> Any:
        """Load from a folder or the hub as diffusers does, but from the config alone: there are no weights."""
        with_info = kwargs.pop("output_loading_info", False)
        place = {key: kwargs[key] for key in ("subfolder", "revision", "cache_dir") if key in kwargs}
        config: Any = cls.load_config(pretrained_model_name_or_path or "", **place)
        codec: Any = cls.from_config(config)
        nothing_amiss: dict[str, list[str]] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
        return (codec.eval(), nothing_amiss) if with_info else codec.eval()
