"""Reading model folders that others wrote: names resolved, configurations and weights checked, nothing unpickled."""

import json
import re
from pathlib import Path
from typing import Any

from magi_video.errors import MagiError

SHIPPED = Path(__file__).parent / "weights"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MAX_JSON_BYTES = 10_000_000


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if (folder / "model_index.json").is_file())


def resolve_model(name: str | Path) -> Path:
    """Folder of a model given as a folder, the name of a shipped model, or a hub id (downloaded into the hub's cache).

    Raises:
        MagiError: there is no such model, or the hub cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if str(name) in shipped_models():
        return SHIPPED / str(name)
    if HUB_ID.fullmatch(str(name)) and not str(name).startswith("."):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors"]))
        except Exception as error:  # the hub client raises many kinds; all mean "not available"
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise MagiError(f"model {name!r}: no such folder, and not to be had from the hub ({reason})") from None
    raise MagiError(
        f"no model {str(name)!r}: give a folder, a hub id, or one of {', '.join(shipped_models()) or 'none'}"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a `MagiError` that says what is wrong with it."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise MagiError(f"{path}: larger than {MAX_JSON_BYTES} bytes, not a configuration")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MagiError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise MagiError(f"{path}: not a readable JSON file ({error})") from None
    if not isinstance(content, dict):
        raise MagiError(f"{path}: expected a JSON object")
    return content
