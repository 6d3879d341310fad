"""Any diffusers 2D VAE as a codec: each frame is encoded by itself.

`scaling_factor` and `shift_factor` of a VAE are one number for all channels; here per-channel statistics replace them.
They are the starting values until statistics are measured on data (`codecs.statistics.measure_statistics`).
"""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from magi_video.codecs.base import Codec
from magi_video.errors import MagiError
from magi_video.loading import load_strictly, read_config

IMAGE_VAES: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
"""The diffusers classes a config may name; nothing else is ever built."""
PIXELS_ON_CPU = 1 << 16
"""Pixels of one pass, 16 frames of 64 by 64: with more, a CPU's caches no longer hold what the layers hand on."""
PIXELS_ELSEWHERE = 1 << 18
"""The same on an accelerator."""


class ImageVAECodec(Codec):
    """A diffusers image VAE with per-channel latent statistics.

    `vae_class` is a key of `IMAGE_VAES`, `vae_config` that class's constructor arguments. Without `latents_mean` and
    `latents_std` the statistics come from the VAE's own scaling (SD-1.4: mean 0, deviation 1 / 0.18215).
    """

    temporal_factor = 1
    max_pixels_at_once: int | None = None
    """Pixels of one pass through the VAE, which bounds memory, whatever the video; None for what suits the device."""

    @register_to_config
    def __init__(
        self,
        vae_class: str,
        vae_config: Mapping[str, Any],
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if vae_class not in IMAGE_VAES:
            raise MagiError(f"unknown image VAE class {vae_class!r}; expected one of {', '.join(IMAGE_VAES)}")
        try:
            self.vae = IMAGE_VAES[vae_class](**vae_config)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise MagiError(f"not a config of {vae_class}: {error}") from error
        settings = self.vae.config
        if settings.in_channels != 3 or settings.out_channels != 3:
            raise MagiError(
                f"the VAE takes {settings.in_channels} and gives {settings.out_channels} channels; expected 3 (RGB)"
            )
        self.latent_channels = settings.latent_channels
        self.spatial_factor = _spatial_factor(vae_class, settings)
        default_mean, default_std = _default_statistics(settings)
        self.set_statistics(
            default_mean if latents_mean is None else latents_mean, default_std if latents_std is None else latents_std
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, **kwargs: Any) -> Any:
        """Load from a folder or the hub as diffusers does, with the weights in the layout that coding is fastest in."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        codec = loaded[0] if isinstance(loaded, tuple) else loaded
        codec.vae.to(memory_format=torch.channels_last)
        return loaded

    @classmethod
    def from_vae(
        cls, name: str, subfolder: str | None = None, *, revision: str | None = None, variant: str | None = None
    ) -> "ImageVAECodec":
        """Wrap a pretrained VAE from a folder or the hub (of a whole pipeline, `subfolder="vae"`).

        Its class is read from its config; weights must be safetensors and are held in float32 even if saved as fp16
        (`variant="fp16"` where the file is named so). `MagiError` if it cannot be had, or is of another class.
        """
        place: dict[str, Any] = {"subfolder": subfolder, "revision": revision}
        place = {key: value for key, value in place.items() if value is not None}
        vae_class = read_config(AutoencoderKL, name, **place).get("_class_name")
        if vae_class not in IMAGE_VAES:
            raise MagiError(f"{name} holds {vae_class or 'no class name'}; expected one of {', '.join(IMAGE_VAES)}")
        vae = load_strictly(IMAGE_VAES[vae_class], name, variant=variant, **place)
        return cls.from_module(vae)

    @classmethod
    def from_module(cls, vae: AutoencoderKL | AutoencoderTiny) -> "ImageVAECodec":
        """Wrap a VAE that is already in memory (shared, not copied), with statistics from its own scaling."""
        names = inspect.signature(type(vae).__init__).parameters
        settings = {key: value for key, value in vae.config.items() if key in names}
        # A second VAE is built and dropped; its random weights must not cost the caller's global generator a draw.
        with torch.random.fork_rng(devices=[]):
            codec = cls(type(vae).__name__, settings)
        codec.vae = vae.to(memory_format=torch.channels_last)
        return codec.to(vae.device).eval()

    def encode_raw(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        """Encode each frame; `AutoencoderKL` gives the mode of its posterior."""
        height, width = video_BTCHW.shape[3:]
        parts = [self._encode_frames(part) for part in self._sub_batches(video_BTCHW, height * width)]
        return torch.cat(parts).contiguous().unflatten(0, video_BTCHW.shape[:2])

    def decode_raw(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        """Decode each frame."""
        height, width = (side * self.spatial_factor for side in latents_BTCHW.shape[3:])
        parts = [self.vae.decode(part).sample for part in self._sub_batches(latents_BTCHW, height * width)]
        return torch.cat(parts).contiguous().unflatten(0, latents_BTCHW.shape[:2])

    def _encode_frames(self, frames_NCHW: torch.Tensor) -> torch.Tensor:
        encoded = self.vae.encode(frames_NCHW)
        return encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()

    def _sub_batches(self, frames_BTCHW: torch.Tensor, pixels: int) -> tuple[torch.Tensor, ...]:
        """Frames one after another, as many at once as `max_pixels_at_once` allows at `pixels` each."""
        dtype = next(self.vae.parameters()).dtype  # diffusers' own `dtype` looks at every module: 5 % of a small decode
        frames_NCHW = frames_BTCHW.flatten(0, 1).to(dtype, memory_format=torch.channels_last)
        suited = PIXELS_ON_CPU if frames_NCHW.device.type == "cpu" else PIXELS_ELSEWHERE
        return frames_NCHW.split(max(1, (self.max_pixels_at_once or suited) // pixels))


def _spatial_factor(vae_class: str, settings: Any) -> int:
    if vae_class == "AutoencoderKL":
        return 2 ** (len(settings.block_out_channels) - 1)
    levels = len(settings.encoder_block_out_channels)
    if len(settings.decoder_block_out_channels) != levels or settings.upsampling_scaling_factor != 2:
        raise MagiError("the VAE's decoder does not undo its encoder's down-sampling: their levels differ")
    return 2 ** (levels - 1)


def _default_statistics(settings: Any) -> tuple[list[float], list[float]]:
    """Mean and deviation that a VAE's config claims: raw = latent · std / scaling_factor + mean (or shift_factor)."""
    channels = settings.latent_channels
    shift = settings.get("shift_factor") or 0.0
    mean = settings.get("latents_mean") or [shift] * channels
    std = settings.get("latents_std") or [1.0] * channels
    return list(mean), [value / settings.scaling_factor for value in std]
