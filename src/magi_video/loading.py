"""Reading model folders that others wrote: names resolved, configurations and weights checked, nothing unpickled."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

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


# What diffusers, huggingface_hub, json and safetensors raise for a wrong name, file or config.
_LOADING_ERRORS = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError)


def read_config(model_class: Any, name: str, **place: Any) -> dict[str, Any]:
    """Read `config.json` of a folder or a hub id; `place` may hold subfolder and revision."""
    name = str(name)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local and not Path(name).is_dir():
        raise MagiError(f"no folder {name}; expected a folder with config.json and safetensors weights, or a hub id")
    try:
        config = model_class.load_config(name, **place)
    except _LOADING_ERRORS as error:
        raise MagiError(f"cannot read the config of {_where(name, place)}: {_one_line(error)}") from error
    if not isinstance(config, dict):
        raise MagiError(f"the config of {_where(name, place)} is not a JSON object")
    return config


def load_strictly(model_class: Any, name: str, torch_dtype: torch.dtype = torch.float32, **place: Any) -> Any:
    """Load a diffusers model in evaluation mode; `place` may hold subfolder, revision and variant."""
    name = str(name)
    try:
        model, info = model_class.from_pretrained(
            name, use_safetensors=True, torch_dtype=torch_dtype, output_loading_info=True, **place
        )
    except MagiError:
        raise
    except _LOADING_ERRORS as error:
        raise MagiError(f"cannot load {model_class.__name__} from {_where(name, place)}: {_one_line(error)}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, info.get(problem, []))):
            raise MagiError(
                f"{_where(name, place)} does not hold the weights its config describes: "
                f"{len(keys)} {problem.replace('_', ' ')}, the first {keys[0]}"
            )
    # diffusers notes where a module was loaded from and saves it along: a private path, nobody else's business.
    model.register_to_config(_name_or_path="")
    return model


def _where(name: str, place: dict[str, Any]) -> str:
    return f"{name}/{place['subfolder']}" if place.get("subfolder") else name


def _one_line(error: Exception) -> str:
    # json's and safetensors' own messages are short; diffusers' run over several lines, the first says it.
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
