"""The small VAE's network against diffusers' class of the same name."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.codecs.codec_examples import TINY_CONFIG

from magi_video.codecs.autoencoder_tiny import AutoencoderTiny
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.files.weights import load_strictly

CONFIGS: list[dict[str, Any]] = [
    {},
    TINY_CONFIG,
    TINY_CONFIG | {"act_fn": "silu", "upsample_fn": "bilinear", "in_channels": 1, "out_channels": 1},
]


def pair(config: dict[str, Any]) -> tuple[AutoencoderTiny, Any]:
    """Ours and diffusers', from the same seed."""
    torch.manual_seed(0)
    ours = AutoencoderTiny(**config)
    torch.manual_seed(0)
    return ours, diffusers.AutoencoderTiny(**config)


@pytest.mark.parametrize("config", CONFIGS)
def test_same_draws_same_names_same_numbers(config: dict[str, Any]) -> None:
    ours, theirs = pair(config)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    pictures = torch.rand(2, ours.config.in_channels, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        latents = theirs.encode(pictures).latents
        assert torch.equal(ours.encode(pictures), latents)
        assert torch.equal(ours.decode(3 * latents), theirs.decode(3 * latents).sample)


def test_each_reads_what_the_other_has_saved(tmp_path: Path) -> None:
    ours, theirs = pair(TINY_CONFIG)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    read = {
        "ours": load_strictly(AutoencoderTiny, str(tmp_path / "theirs")),
        "theirs": diffusers.AutoencoderTiny.from_pretrained(tmp_path / "ours"),
    }
    for loaded in read.values():
        assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in loaded.state_dict().items())
        assert {name: loaded.config[name] for name in ours.config if name in TINY_CONFIG} == TINY_CONFIG | {
            name: list(value) for name, value in TINY_CONFIG.items() if isinstance(value, tuple)
        }


def test_a_codec_takes_diffusers_own_and_shares_its_weights() -> None:
    theirs = diffusers.AutoencoderTiny(**TINY_CONFIG)
    codec = ImageVAECodec.from_module(theirs)
    assert isinstance(codec.vae, AutoencoderTiny)
    own = dict(theirs.named_parameters())
    assert all(parameter.data_ptr() == own[name].data_ptr() for name, parameter in codec.vae.named_parameters())


@pytest.mark.parametrize("changes", [{"act_fn": "tanh"}, {"upsample_fn": "linear"}, {"act_fn": ["relu"]}])
def test_what_would_fail_at_first_use_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        AutoencoderTiny(**TINY_CONFIG | changes)


def test_levels_that_do_not_fit_are_refused() -> None:
    for changes in ({"num_encoder_blocks": (1,) * 5}, {"num_decoder_blocks": (1,) * 5}):
        with pytest.raises(ValueError, match="differ in length"):
            AutoencoderTiny(**TINY_CONFIG | changes)
