"""The smallest codec of each kind, and video to give it."""

from collections.abc import Iterator

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from magi_video.codecs import Codec, ImageVAECodec, PixelCodec

KL_CONFIG = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "norm_num_groups": 4,
    "latent_channels": 4,
}
TINY_CONFIG = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (0, 1, 1),
    "num_decoder_blocks": (1, 1, 0),
    "latent_channels": 5,
}


def make_codec(kind: str) -> Codec:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "pixels":
            return PixelCodec()
        vae = AutoencoderKL(**KL_CONFIG) if kind == "kl" else AutoencoderTiny(**TINY_CONFIG)
        return ImageVAECodec.from_module(vae)


def make_video(batch: int = 2, frames: int = 3, height: int = 16, width: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.rand((batch, frames, 3, height, width), generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Causal4x(Codec):
    """Keeps frames 0, 4, 8, … and repeats them: time compression as a causal video VAE has it, without weights."""

    latent_channels = 3
    spatial_factor = 1
    temporal_factor = 4

    @register_to_config
    def __init__(self, latents_mean: tuple[float, ...] = (0.0,) * 3, latents_std: tuple[float, ...] = (1.0,) * 3):
        super().__init__()
        self.set_statistics(latents_mean, latents_std)

    def encode_raw(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        return video_BTCHW[:, ::4]

    def decode_raw(self, latents_BTCHW: torch.Tensor) -> torch.Tensor:
        return torch.cat([latents_BTCHW[:, :1], latents_BTCHW[:, 1:].repeat_interleave(4, dim=1)], dim=1)

    def decode_stream(self, latents: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        for number, latents_BCHW in enumerate(latents):
            yield self.decode(latents_BCHW[:, None]).repeat_interleave(4 if number else 1, dim=1)
