"""The smallest codec of each kind, and video to give it."""

import torch
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
