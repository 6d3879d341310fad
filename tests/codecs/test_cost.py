"""The codecs' encoders by arithmetic, against the operations and parameters of the real networks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos
from torch.utils.flop_counter import FlopCounterMode

from magi_video.codecs.base import Codec
from magi_video.codecs.cost import find_encoder
from magi_video.codecs.omnitokenizer import OmniTokenizerCodec
from magi_video.codecs.small_vae_training import build_small_vae
from magi_video.errors import MagiError
from magi_video.presets import PRESETS, load_preset
from magi_video.recipe import Preset

STABLE_DIFFUSION: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
COSMOS: dict[str, Any] = {"temporal_compression_ratio": 4, "latents_mean": None, "latents_std": None}


def count(preset: Preset) -> tuple[int, int]:
    """Operations of encoding a clip, and parameters, of the preset's real network."""
    makers: dict[str, Callable[[], Any]] = {
        "image_vae": lambda: AutoencoderKL(**STABLE_DIFFUSION),
        "small_vae": lambda: build_small_vae(preset.small_vae),
        "video_vae": lambda: AutoencoderKLCosmos(**COSMOS),
        "omnitokenizer": OmniTokenizerCodec,
    }
    data = preset.data
    with torch.device("meta"), torch.no_grad():
        vae = torch.nn.Module.to(makers[preset.codec.codec](), "meta")  # Cosmos copies a table that lies on the CPU
        online = preset.codec.codec in ("video_vae", "omnitokenizer")
        shape = (1, 3, data.num_frames) if online else (1, 3)
        pixels = torch.empty(*shape, data.height, data.width)
        with FlopCounterMode(display=False) as counter:
            vae.encode_raw(pixels.transpose(1, 2)) if isinstance(vae, Codec) else vae.eval().encode(pixels)
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    return counter.get_total_flops() * (1 if online else data.num_frames), parameters


ENCODING = [name for name in PRESETS if not name.endswith("-mtf") and load_preset(name).codec.codec != "pixels"]


@pytest.mark.parametrize("size", [None, (5, 64, 128)])
@pytest.mark.parametrize("name", ENCODING)
def test_every_presets_encoder(name: str, size: tuple[int, int, int] | None) -> None:
    preset = load_preset(name)
    if size is not None:
        sizes = dict(zip(("num_frames", "height", "width"), size, strict=True))
        preset = replace(preset, data=replace(preset.data, **sizes))
    encoder = find_encoder(preset)
    assert encoder is not None and (encoder.flops, encoder.parameters) == count(preset)


def test_a_small_vae_of_other_sizes() -> None:
    preset = load_preset("doom")
    small = replace(preset.small_vae, width=24, latent_channels=5, encoder_blocks=(1, 2, 0), decoder_blocks=(2, 1, 1))
    preset = replace(preset, small_vae=small)
    encoder = find_encoder(preset)
    assert encoder is not None and (encoder.flops, encoder.parameters) == count(preset)


def test_clips_that_a_codec_does_not_take_are_refused() -> None:
    assert find_encoder(load_preset("tiny")) is None
    k600 = load_preset("k600")
    with pytest.raises(MagiError, match="OmniTokenizer's VAE does not take clips of 16 frames of 256×256 pixels"):
        find_encoder(replace(k600, data=replace(k600.data, num_frames=16)))
