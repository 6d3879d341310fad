"""Strict loading: safetensors alone, every weight present, and one clear line when anything is wrong.

diffusers by itself only warns about missing weights, which would leave a VAE that decodes to noise.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from magi_video.errors import MagiError

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
    return model


def _where(name: str, place: dict[str, Any]) -> str:
    return f"{name}/{place['subfolder']}" if place.get("subfolder") else name


def _one_line(error: Exception) -> str:
    # json's and safetensors' own messages are short; diffusers' run over several lines, the first says it.
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def read_class_name(folder: Path) -> str:
    """Name of the class that a codec folder's `config.json` states."""
    path = folder / "config.json"
    if not path.is_file():
        raise MagiError(f"{folder} is no codec: it holds no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MagiError(f"cannot read {path}: {_one_line(error)}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise MagiError(f"{path} names no codec class (_class_name)")
    return name
