"""magi-video: masked autoregressive video generation with complete teacher forcing (MAGI, CVPR 2025).

from magi_video import MagiVideoPipeline
pipe = MagiVideoPipeline.from_pretrained("doom")
video = pipe(image=first_frame, num_frames=100).frames
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ImageVAECodec": "codecs.image_vae",
    "MagiError": "errors",
    "MagiPipeline": "pipeline.pipeline",
    "MagiTransformer": "models.transformer",
    "MagiVideoPipeline": "pipeline.pipeline",
    "MagiVideoTransformer": "models.transformer",
    "PixelCodec": "codecs.pixels",
    "load_preset": "presets",
    "train": "training.run",
}

if TYPE_CHECKING:
    from magi_video.codecs.image_vae import ImageVAECodec
    from magi_video.codecs.pixels import PixelCodec
    from magi_video.errors import MagiError
    from magi_video.models.transformer import MagiTransformer, MagiVideoTransformer
    from magi_video.pipeline.pipeline import MagiPipeline, MagiVideoPipeline
    from magi_video.presets import load_preset
    from magi_video.training.run import train

__all__ = [
    "ImageVAECodec",
    "MagiError",
    "MagiPipeline",
    "MagiTransformer",
    "MagiVideoPipeline",
    "MagiVideoTransformer",
    "PixelCodec",
    "load_preset",
    "train",
]


def __getattr__(name: str) -> Any:
    """A public name from its module, loaded on first use: the command line answers --help without PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
