"""What it costs to encode pixels: the codec's encoder, built without its numbers and counted once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLCosmos, AutoencoderTiny
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from magi_video.benchmark.machine import count_parameters
from magi_video.codecs import Codec
from magi_video.codecs.omnitokenizer import OmniTokenizerCodec
from magi_video.errors import MagiError
from magi_video.presets import Preset

STABLE_DIFFUSION = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
COSMOS = {"temporal_compression_ratio": 4, "latents_mean": None, "latents_std": None}


@dataclass(frozen=True)
class Encoder:
    """Costs of a codec.

    Attributes:
        parameters: of encoder and decoder, in float32 on every device.
        flops: of one clip.
        online: whether every training step encodes, rather than one pass over the data set.
        name: of the VAE that was counted.
    """

    parameters: int
    flops: int
    online: bool
    name: str


def find_encoder(preset: Preset) -> Encoder | None:
    """The costs of the preset's codec; None where nothing is encoded.

    Raises:
        MagiError: pixels that the codec does not take.
    """
    data, small = preset.data, preset.small_vae
    makers: dict[str, tuple[str, Callable[[], Any]]] = {
        "image_vae": ("Stable Diffusion's VAE", lambda: AutoencoderKL(**STABLE_DIFFUSION)),
        "small_vae": ("the small VAE", lambda: AutoencoderTiny(
            latent_channels=small.latent_channels,
            encoder_block_out_channels=(small.width,) * len(small.encoder_blocks),
            decoder_block_out_channels=(small.width,) * len(small.decoder_blocks),
            num_encoder_blocks=small.encoder_blocks,
            num_decoder_blocks=small.decoder_blocks,
        )),
        "video_vae": ("Cosmos CV 4×8×8", lambda: AutoencoderKLCosmos(**COSMOS)),
        "omnitokenizer": ("OmniTokenizer's VAE", OmniTokenizerCodec),
    }  # fmt: skip
    if preset.codec.codec not in makers:
        return None
    name, make = makers[preset.codec.codec]
    online = preset.codec.codec in ("video_vae", "omnitokenizer")
    with torch.device("meta"):
        vae = nn.Module.to(make(), "meta")  # Cosmos copies a table that lies on the CPU
        frames = (1, 3, data.num_frames, data.height, data.width) if online else (1, 3, data.height, data.width)
        try:
            flops = count(vae, torch.empty(frames)) * (1 if online else data.num_frames)
        except (RuntimeError, ValueError, MagiError) as error:
            raise MagiError(
                f"{name} does not take clips of {data.num_frames} frames of {data.height}×{data.width} pixels ({error})"
            ) from None
    return Encoder(count_parameters(vae), flops, online, name)


@torch.no_grad()
def count(vae: Any, pixels: Tensor) -> int:
    """Operations of encoding."""
    with FlopCounterMode(display=False) as counter:
        if isinstance(vae, Codec):
            vae.encode_raw(pixels.transpose(1, 2))
        else:
            vae.eval().encode(pixels)
    return counter.get_total_flops()
