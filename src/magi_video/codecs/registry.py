"""Which codec classes there are, and loading one from its folder."""

from importlib import import_module
from pathlib import Path

from magi_video.codecs.base import Codec
from magi_video.codecs.config import CODEC_MODULES
from magi_video.errors import MagiError
from magi_video.files.weights import class_name, load_strictly, read_json

CODECS: dict[str, type[Codec] | None] = dict.fromkeys(CODEC_MODULES)
"""Every codec class that a saved folder may name; None: of the module in `CODEC_MODULES`, imported when named."""


def load_codec(folder: str | Path) -> Codec:
    """Load the codec saved in `folder` (`config.json` and, if it has weights, safetensors), in float32 on the CPU."""
    folder = Path(folder)
    name = class_name(read_json(folder / "config.json"))
    if name not in CODECS:
        raise MagiError(f"{folder} holds {name}; expected a codec: {', '.join(CODECS)}")
    cls = CODECS[name] or getattr(import_module(f"magi_video.codecs.{CODEC_MODULES[name]}"), name)
    codec: Codec = load_strictly(cls, str(folder))
    return codec
