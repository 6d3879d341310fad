"""Loading a codec from its folder: its class must be a registered one, nothing else is ever built."""

from pathlib import Path

from magi_video.codecs.base import CODECS, Codec
from magi_video.errors import MagiError
from magi_video.files.json import read_json
from magi_video.files.weights import class_name, load_strictly
from magi_video.registry import CLASS, declared


def codec_classes() -> dict[str, str]:
    """Class that a saved codec may name → the name under which it is registered."""
    return {values[CLASS]: name for name, values in declared("codecs").items()}


def load_codec(folder: str | Path) -> Codec:
    """Load the codec saved in `folder` (`config.json` and, if it has weights, safetensors), in float32 on the CPU."""
    folder, known = Path(folder), codec_classes()
    name = class_name(read_json(folder / "config.json"))
    if name not in known:
        raise MagiError(f"{folder} holds {name}; expected a codec: {', '.join(known)}")
    codec: Codec = load_strictly(CODECS[known[name]], str(folder))
    return codec
