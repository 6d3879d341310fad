"""Which codec classes there are, and loading one from its folder."""

from pathlib import Path
from typing import Any

from magi_video.codecs.base import Codec
from magi_video.codecs.config import CODEC_NAMES
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.omnitokenizer import OmniTokenizerCodec
from magi_video.codecs.pixels import PixelCodec
from magi_video.codecs.video_vae import VideoVAECodec
from magi_video.errors import MagiError
from magi_video.loading import class_name, load_strictly, read_json

CODECS: dict[str, Any] = dict(
    zip(CODEC_NAMES, (PixelCodec, ImageVAECodec, VideoVAECodec, OmniTokenizerCodec), strict=True)
)
"""Every codec class that a saved folder may name."""


def load_codec(folder: str | Path) -> Codec:
    """Load the codec saved in `folder` (`config.json` and, if it has weights, safetensors), in float32 on the CPU."""
    folder = Path(folder)
    name = class_name(read_json(folder / "config.json"))
    if name not in CODECS:
        raise MagiError(f"{folder} holds {name}; expected a codec: {', '.join(CODECS)}")
    return load_strictly(CODECS[name], str(folder))
