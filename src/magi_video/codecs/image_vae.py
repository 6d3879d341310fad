"""Any diffusers 2D VAE as a codec: each frame is encoded by itself.

`scaling_factor` and `shift_factor` of a VAE are one number for all channels; here per-channel statistics replace them.
They are the starting values until statistics are measured on data (`codecs.statistics.measure_statistics`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from typing_extensions import override

from magi_video.codecs.autoencoder_tiny import AutoencoderTiny
from magi_video.codecs.base import register
from magi_video.codecs.vae import VAECodec
from magi_video.errors import MagiError

PIXELS_ON_CPU = 1 << 16
"""Pixels of one pass, 16 frames of 64 by 64: with more, a CPU's caches no longer hold what the layers hand on."""
PIXELS_ELSEWHERE = 1 << 18
"""The same on an accelerator."""


@register
class ImageVAECodec(VAECodec):
    """A diffusers image VAE; without measured statistics, its own scaling (SD-1.4: mean 0, deviation 1 / 0.18215)."""

    name = "image_vae"
    title = "a diffusers 2D VAE"
    latent_channels = 4
    spatial_factor = 8
    temporal_factor = 1

    vae_modules: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "AutoencoderKL": "diffusers.models.autoencoders.autoencoder_kl",
            "AutoencoderTiny": "magi_video.codecs.autoencoder_tiny",
        }
    )
    memory_format = torch.channels_last
    max_pixels_at_once: int | None = None
    """Pixels of one pass through the VAE, which bounds memory, whatever the video; None for what suits the device."""

    @staticmethod
    @override
    def factors(vae_class: str, settings: Any) -> tuple[int, int, int, int]:
        return settings.latent_channels, _spatial_factor(vae_class, settings), 1, 3

    @classmethod
    @override
    def from_weights(cls, config: Mapping[str, Any], files: Sequence[Path], dtype: torch.dtype, where: str) -> Self:
        """The weights get the layout that coding is fastest in."""
        codec = super().from_weights(config, files, dtype, where)
        codec.vae.to(memory_format=cls.memory_format)
        return codec

    @override
    def encode_raw(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        """Encode each frame; `AutoencoderKL` gives the mode of its posterior."""
        height, width = video_BTCHW.shape[3:]
        parts = [self._encode_frames(part) for part in self._sub_batches(video_BTCHW, height * width)]
        return torch.cat(parts).contiguous().unflatten(0, video_BTCHW.shape[:2])

    @override
    def decode_raw(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        """Decode each frame."""
        height, width = (side * self.spatial_factor for side in latents_BTCHW.shape[3:])
        parts = [self._decode_latents(part) for part in self._sub_batches(latents_BTCHW, height * width)]
        return torch.cat(parts).contiguous().unflatten(0, latents_BTCHW.shape[:2])

    def _encode_frames(self, frames_NCHW: torch.Tensor) -> torch.Tensor:
        encoded = self.vae.encode(frames_NCHW)
        return encoded if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()

    def _decode_latents(self, latents_NCHW: torch.Tensor) -> torch.Tensor:
        decoded = self.vae.decode(latents_NCHW)
        return decoded if isinstance(self.vae, AutoencoderTiny) else decoded.sample

    def _sub_batches(self, frames_BTCHW: torch.Tensor, pixels: int) -> tuple[torch.Tensor, ...]:
        """Frames one after another, as many at once as `max_pixels_at_once` allows at `pixels` each."""
        dtype = next(self.vae.parameters()).dtype  # diffusers' own `dtype` looks at every module: 5 % of a small decode
        return split_frames(frames_BTCHW, pixels, dtype, self.max_pixels_at_once)


def split_frames(
    frames_BTCHW: torch.Tensor, pixels: int, dtype: torch.dtype, most: int | None = None
) -> tuple[torch.Tensor, ...]:
    """Frames one after another `[n, C, H, W]`, as many at once as suits the device at `pixels` each.

    Args:
        frames_BTCHW: pixels or latents.
        pixels: of a frame.
        dtype: of the result.
        most: pixels of one pass, in place of what suits the device.
    """
    frames_NCHW = frames_BTCHW.flatten(0, 1).to(dtype, memory_format=torch.channels_last)
    suited = PIXELS_ON_CPU if frames_NCHW.device.type == "cpu" else PIXELS_ELSEWHERE
    return frames_NCHW.split(max(1, (most or suited) // pixels))


def _spatial_factor(vae_class: str, settings: Any) -> int:
    if vae_class == "AutoencoderKL":
        return 2 ** (len(settings.block_out_channels) - 1)
    levels = len(settings.encoder_block_out_channels)
    if len(settings.decoder_block_out_channels) != levels or settings.upsampling_scaling_factor != 2:
        raise MagiError("the VAE's decoder does not undo its encoder's down-sampling: their levels differ")
    return 2 ** (levels - 1)
