"""The project's own image VAE as a codec that a recipe can name: it is trained on the data of the run."""

from typing_extensions import override

from magi_video.codecs.base import register
from magi_video.codecs.cost import find_encoder
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.sizes import LatentSizes, untrained_codec
from magi_video.codecs.small_vae_training import SmallVAETraining
from magi_video.codecs.training import TrainedCodec
from magi_video.recipe import Preset


@register
class SmallVAECodec(TrainedCodec, ImageVAECodec):
    """An image VAE trained here. Trained, it is saved and loaded as the `ImageVAECodec` that it is."""

    name = "small_vae"
    title = "our own 2D VAE, trained first on the same data"
    settings = "small_vae"
    trained = True
    temporal_factor = 1
    trained_by = SmallVAETraining

    @classmethod
    @override
    def sizes_for(cls, preset: Preset) -> LatentSizes:
        find_encoder(preset)
        return untrained_codec(preset)
