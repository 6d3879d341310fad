"""What is measured: a trained model, or a preset with random weights. Neither needs data: latents are random."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from magi_video.bench.options import check_subject
from magi_video.codecs.base import Codec
from magi_video.errors import MagiError
from magi_video.files.json import read_json
from magi_video.files.weights import is_local, resolve_model
from magi_video.models.architecture import ACTION, LABEL, TEXT
from magi_video.models.conditions import unknown
from magi_video.models.configured import outlined
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.presets import PRESETS, load_preset
from magi_video.recipe import Preset
from magi_video.settings import from_json
from magi_video.training.sizing import find_architecture


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        name: as the user gave it.
        kind: "model", or "preset" for random weights.
        preset: its recipe: paradigm, batch, optimiser, default steps.
        outline: the transformer without its numbers (on the meta device): sizes and counts.
        load: the transformer in a precision, on the CPU, in evaluation mode; a new one at every call.
        codec: between latents and pixels; None for a preset.
        folder: of a model; None for a preset.
    """

    name: str
    kind: Literal["model", "preset"]
    preset: Preset
    outline: MagiVideoTransformer
    load: Callable[[torch.dtype], MagiVideoTransformer]
    codec: Codec | None = None
    folder: Path | None = None


def open_subject(name: str) -> Subject:
    """A model by folder, shipped name or hub id, or a preset by name or file; a shipped model comes before its preset.

    Raises:
        MagiError: it is none of them, or cannot be read.
    """
    check_subject(name)
    is_recipe = not is_local(name) and (name in PRESETS or Path(name).is_file())
    return open_preset(name) if is_recipe else open_model(name)


def open_model(name: str) -> Subject:
    """A trained model; its recipe is the one it was trained with, as far as it is known."""
    pipe = MagiVideoPipeline.from_pretrained(name)
    paradigm = {"forcing": pipe.config.forcing, "forcing_options": dict(pipe.config.forcing_options or {})}
    try:
        recipe = from_json(Preset, pipe.config.training.get("preset", {}) | paradigm, name)
    except MagiError:  # trained by another version; the paradigm and the steps are all that is needed
        recipe = Preset(**paradigm)
    with outlined():
        outline = MagiVideoTransformer.from_config(read_json(resolve_model(name) / "transformer" / "config.json"))

    def load(dtype: torch.dtype) -> MagiVideoTransformer:
        return MagiVideoPipeline.from_pretrained(name, torch_dtype=dtype).transformer

    return Subject(name, "model", replace(recipe, sample=pipe.own_sampling), outline, load, pipe.codec, pipe.folder)


def open_preset(name: str) -> Subject:
    """A preset with random weights."""
    return make_subject(name, load_preset(name))


def make_subject(name: str, preset: Preset) -> Subject:
    """A recipe with random weights."""
    with outlined():
        outline = build(preset)

    def load(dtype: torch.dtype) -> MagiVideoTransformer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(preset).eval().to(dtype)

    return Subject(name, "preset", preset, outline, load)


def build(preset: Preset) -> MagiVideoTransformer:
    """The preset's transformer, as `magi train` would build it for its codec and for data with actions and classes."""
    return MagiVideoTransformer(find_architecture(preset))


def blank_conditions(model: MagiVideoTransformer, batch: int, frames: int, device: torch.device) -> dict[str, Tensor]:
    """Values for the conditions that a user would give: no action taken, class 0; `[B, frames]` or with a size more."""
    values = {}
    for name in (ACTION, LABEL, TEXT):
        if name in model.condition_tokens.specs:
            spec = model.condition_tokens.specs[name]
            dtype = torch.long if spec.kind == "index" else torch.float32
            values[name] = torch.zeros_like(unknown(spec, batch, frames, device), dtype=dtype)
    return values
