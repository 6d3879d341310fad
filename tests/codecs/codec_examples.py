"""The smallest codec of each kind, and video to give it."""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel

from magi_video.codecs.base import Codec
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.omnitokenizer import OmniTokenizerCodec
from magi_video.codecs.pixels import PixelCodec
from magi_video.codecs.video_vae import VideoVAECodec
from magi_video.codecs.vq import VQCodec
from magi_video.codecs.vq_model import VQModelCodec
from magi_video.models.configured import capture_config

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
COSMOS_CONFIG = {
    "encoder_block_out_channels": (8, 8, 8, 8),
    "decode_block_out_channels": (8, 8, 8, 8),
    "attention_resolutions": (4,),
    "resolution": 16,
    "num_layers": 1,
    "patch_size": 2,
    "latent_channels": 4,
    "spatial_compression_ratio": 4,
    "temporal_compression_ratio": 4,
}
COSMOS_8X_CONFIG = COSMOS_CONFIG | {
    "patch_size": 4,
    "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 8,
}
WAN_CONFIG = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "latents_mean": [0.1, 0.2, 0.3, 0.4],
    "latents_std": [2.0] * 4,
}
WAN_2_2_CONFIG = WAN_CONFIG | {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2}
COGVIDEOX_CONFIG = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("CogVideoXDownBlock3D",) * 3,
    "up_block_types": ("CogVideoXUpBlock3D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
}
LTX_CONFIG = {
    "latent_channels": 4,
    "block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "down_block_types": ("LTXVideoDownBlock3D",) * 3,
    "spatio_temporal_scaling": (True, True, False),
    "decoder_spatio_temporal_scaling": (True, True, False),
    "layers_per_block": (1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "decoder_inject_noise": (False,) * 4,
    "patch_size": 2,
}
OMNITOKENIZER_CONFIG = {
    "patch_size": 4,
    "temporal_patch_size": 4,
    "width": 32,
    "latent_channels": 3,
    "encoder_blocks": "tw",
    "decoder_blocks": "tt",
    "temporal_depth": 2,
    "heads": 2,
    "head_dim": 16,
    "window": 2,
}
VQ_MODEL_CONFIG = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "norm_num_groups": 4,
    "latent_channels": 5,
    "vq_embed_dim": 3,
    "num_vq_embeddings": 30,
}
VQ_CONFIG = {"width": 8, "encoder_blocks": (0, 1, 1), "decoder_blocks": (1, 1, 0), "codebook_size": 30, "code_dim": 4}
IMAGE_VAES = {"kl": (AutoencoderKL, KL_CONFIG), "tiny": (AutoencoderTiny, TINY_CONFIG)}
VQ_MODELS = {"vq_model": (VQModel, VQ_MODEL_CONFIG)}
VIDEO_VAES = {
    "cosmos": (AutoencoderKLCosmos, COSMOS_CONFIG),
    "cosmos-8x": (AutoencoderKLCosmos, COSMOS_8X_CONFIG),
    "wan": (AutoencoderKLWan, WAN_CONFIG),
    "wan-2.2": (AutoencoderKLWan, WAN_2_2_CONFIG),
    "cogvideox": (AutoencoderKLCogVideoX, COGVIDEOX_CONFIG),
    "ltx": (AutoencoderKLLTXVideo, LTX_CONFIG),
}


def make_vae(kind: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae_class, config = (IMAGE_VAES | VIDEO_VAES | VQ_MODELS)[kind]
        vae = vae_class(**config).eval()
        if kind in VQ_MODELS:  # its codes begin so close together that all vectors fall to a few
            torch.nn.init.normal_(vae.quantize.embedding.weight)
            torch.nn.init.normal_(vae.quant_conv.weight, std=2.0)
        return vae


def make_codec(kind: str) -> Codec:
    if kind == "pixels":
        return PixelCodec()
    if kind == "omnitokenizer":
        return make_omnitokenizer()
    if kind in ("vq", "fsq"):
        return make_vq(kind)
    if kind == "vq_model":
        return VQModelCodec.from_module(make_vae(kind))
    return (ImageVAECodec if kind in IMAGE_VAES else VideoVAECodec).from_module(make_vae(kind))


def make_omnitokenizer(**changes: Any) -> OmniTokenizerCodec:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = OmniTokenizerCodec(**OMNITOKENIZER_CONFIG | changes).eval()
        for parameter in codec.parameters():
            if parameter.ndim > 1:  # smaller ones would hide differences
                torch.nn.init.normal_(parameter, std=0.2)
    return codec


def make_vq(kind: str) -> VQCodec:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = VQCodec(**VQ_CONFIG, quantizer="ema" if kind == "vq" else "fsq", fsq_levels=(4, 4, 3)).eval()
        for parameter in codec.parameters():
            torch.nn.init.normal_(parameter, std=0.15 if kind == "vq" else 0.25)  # vectors that fall to many codes
        if kind == "vq":
            torch.nn.init.normal_(codec.vectors)
        return codec


def coded_architecture(codec: VQCodec) -> dict[str, Any]:
    """What a model that predicts the codes of 16×16 pictures says of them, as arguments of `make_model`."""
    rows, columns = codec.latent_size(16, 16)
    return {
        "head": "categorical", "codes": codec.codes, "latent_channels": codec.latent_channels, "latent_height": rows,
        "latent_width": columns, "depth": 1, "codebook": codec.codebook(),
    }  # fmt: skip


def make_video(batch: int = 2, frames: int = 5, height: int = 16, width: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.rand((batch, frames, 3, height, width), generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Causal4x(Codec):
    """Keeps frames 0, 4, 8, … and repeats them: time compression as a causal video VAE has it, without weights."""

    name = "causal4x"
    latent_channels = 3
    spatial_factor = 1
    temporal_factor = 4

    @capture_config
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
