"""magi-video: masked autoregressive video generation with complete teacher forcing (MAGI, CVPR 2025).

from magi_video import MagiPipeline
pipe = MagiPipeline.from_pretrained("doom")
video = pipe(image=first_frame, num_frames=100).frames
"""

from typing import TYPE_CHECKING

from magi_video.lazy import loader

__version__ = "0.1.0"

_HOMES = {
    "ImageVAECodec": "codecs",
    "MagiError": "errors",
    "MagiPipeline": "pipeline",
    "MagiTransformer": "models",
    "PixelCodec": "codecs",
    "load_preset": "presets",
    "train": "training",
}

if TYPE_CHECKING:
    from magi_video.codecs.image_vae import ImageVAECodec
    from magi_video.codecs.pixels import PixelCodec
    from magi_video.errors import MagiError
    from magi_video.models.transformer import MagiTransformer
    from magi_video.pipeline.pipeline import MagiPipeline
    from magi_video.presets import load_preset
    from magi_video.training.run import train

__all__ = [
    "ImageVAECodec",
    "MagiError",
    "MagiPipeline",
    "MagiTransformer",
    "PixelCodec",
    "load_preset",
    "train",
]

__getattr__ = loader(__name__, _HOMES)
