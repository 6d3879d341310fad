"""A pipeline as a folder: read strictly, written whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from magi_video.codecs.registry import load_codec
from magi_video.errors import MagiError
from magi_video.files.atomic import part_beside, set_usual_mode
from magi_video.files.folders import ensure_folder
from magi_video.files.weights import load_strictly
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.description import ENCODER_FOLDER, INDEX_FILE, check_settings, read_architecture, read_index


def read_pipeline(folder: Path, torch_dtype: torch.dtype) -> dict[str, Any]:
    """What a pipeline was saved with, by the names of its constructor's arguments.

    Args:
        folder: of the pipeline.
        torch_dtype: of all weights.

    Raises:
        MagiError: a file is missing, truncated or of another shape, or the settings do not fit the weights.
    """
    settings = read_index(folder)
    read_architecture(folder / "transformer")
    settings |= {
        "transformer": load_strictly(MagiVideoTransformer, str(folder / "transformer"), torch_dtype),
        "codec": load_codec(folder / "codec").to(torch_dtype),
    }
    check_settings(settings, settings["transformer"].architecture, settings["codec"], str(folder / INDEX_FILE))
    return settings


def write_pipeline(
    write: Callable[[Path], None], folder: Path, torch_dtype: torch.dtype | None, text_folder: Path | None
) -> None:
    """Write a pipeline: each file whole or not at all, `model_index.json` last.

    Args:
        write: writes all files into a folder that it is given.
        folder: where they shall be.
        torch_dtype: of the weights on disk; None for what they are.
        text_folder: of the text encoder, which is copied; None for none.

    Raises:
        MagiError: it cannot be written.
    """
    part = part_beside(folder / "model")
    try:
        write(part)
        if text_folder is not None and text_folder.parent != folder:
            from magi_video.codecs.text_encoder import copy_encoder  # most models take no text

            copy_encoder(text_folder, folder / ENCODER_FOLDER)
        if torch_dtype is not None:
            for file in list(part.rglob("*.safetensors")):
                cast(file, torch_dtype)
        for file in sorted(part.rglob("*"), key=lambda file: (file.name == INDEX_FILE, file)):
            if file.is_file():
                target = folder / file.relative_to(part)
                ensure_folder(target.parent)
                set_usual_mode(file)
                file.replace(target)
    except (OSError, SafetensorError) as error:
        raise MagiError(f"{folder}: cannot save the model ({error})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def cast(file: Path, dtype: torch.dtype) -> None:
    """Put a safetensors file with floating-point numbers of this type in the place of a file.

    Never in place: the file may be a second name of a checkpoint's, and its tensors are mapped from it.
    """
    new = file.with_suffix(".new")
    save_file(
        {name: one.to(dtype) if one.is_floating_point() else one for name, one in load_file(file).items()},
        new,
        {"format": "pt"},
    )
    new.replace(file)
