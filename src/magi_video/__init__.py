"""magi-video: masked autoregressive video generation with complete teacher forcing (MAGI, CVPR 2025).

from magi_video import MagiPipeline
pipe = MagiPipeline.from_pretrained("doom")
video = pipe(image=first_frame, num_frames=100).frames
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ImageVAECodec": "magi_video.codecs",
    "MagiError": "magi_video.errors",
    "MagiPipeline": "magi_video.pipeline",
    "MagiTransformer": "magi_video.models",
    "PixelCodec": "magi_video.codecs",
    "load_preset": "magi_video.presets",
    "train": "magi_video.training",
}

if TYPE_CHECKING:
    from magi_video.codecs import ImageVAECodec, PixelCodec
    from magi_video.errors import MagiError
    from magi_video.models import MagiTransformer
    from magi_video.pipeline import MagiPipeline
    from magi_video.presets import load_preset
    from magi_video.training import train

__all__ = [
    "ImageVAECodec",
    "MagiError",
    "MagiPipeline",
    "MagiTransformer",
    "PixelCodec",
    "load_preset",
    "train",
]


def __getattr__(name: str) -> Any:
    # Lazily: the command line answers --help without loading torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
