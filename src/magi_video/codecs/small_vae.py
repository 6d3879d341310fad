"""The project's own image VAE as a codec that a recipe can name: it is trained on the data of the run."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from magi_video.codecs.base import Codec, OnStep, register
from magi_video.codecs.cost import find_encoder
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.sizes import LatentSizes, untrained_codec
from magi_video.codecs.small_vae_training import train_image_vae
from magi_video.errors import MagiError
from magi_video.presets import CodecConfig, Preset


@register
class SmallVAECodec(ImageVAECodec):
    """An image VAE trained here. Trained, it is saved and loaded as the `ImageVAECodec` that it is."""

    name = "small_vae"
    title = "our own 2D VAE, trained first on the same data"
    settings = "small_vae"
    trained = True
    temporal_factor = 1

    @classmethod
    def pretrained(cls, settings: CodecConfig) -> Codec:
        """There is none."""
        raise MagiError("the small VAE is trained on the data of a run; there are no weights of it to fetch")

    @classmethod
    def sizes_for(cls, preset: Preset) -> LatentSizes:
        """See `Codec.sizes_for`."""
        find_encoder(preset)
        return untrained_codec(preset)

    @classmethod
    def train_on(
        cls,
        preset: Preset,
        batches: Callable[[int], torch.Tensor],
        measured: Sequence[torch.Tensor],
        folder: Path,
        *,
        on_step: OnStep | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Codec:
        """See `Codec.train_on`."""
        config = replace(preset.small_vae, precision=preset.codec_precision)
        return train_image_vae(config, batches, measured, folder, on_step=on_step, say=say)
