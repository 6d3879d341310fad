"""`magi info MODEL`."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Positional, arg

from magi_video.cli.parsing import parse
from magi_video.models.architecture import Architecture
from magi_video.pipeline.description import describe_model
from magi_video.registry import declared
from magi_video.sampling.sampling import Sampling

STEPS = ("mask_steps", "denoise_steps")


@dataclass(frozen=True)
class Info:
    """Describe a model: parameters, paradigm, codec, data, training."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder, hub id, or the name of a shipped model ("doom", "atari")."""
    json: Annotated[bool, arg(name="json")] = False
    """Print JSON."""


def main(argv: list[str]) -> None:
    """Parse and print."""
    settings = parse(Info, "magi info", argv)
    facts = describe(settings.model)
    if settings.json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {as_text(value)}")


def describe(model: str) -> dict[str, Any]:
    """What `magi info` prints, as JSON values."""
    described = describe_model(model)
    settings, architecture, training = described.settings, described.architecture, described.settings["training"]
    head, row = architecture.parameters_by_part()["head"], declared("paradigms")[settings["forcing"]]
    own = vars(Sampling.of(None, **settings["sampling"]).complete())
    if architecture.codes:
        own = own | {"denoise_steps": 1}  # codes are drawn, not denoised
    return {
        "model": model,
        "forcing": settings["forcing"],
        "forcing_options": settings["forcing_options"],
        "paradigm": told_paradigm(row),
        "frame": f"{settings['height']}×{settings['width']} pixels, {architecture.num_tokens} tokens of "
        f"{architecture.token_dim}",
        "trained_frames": architecture.num_frames,
        "intervals": f"1…{architecture.max_interval}",
        "frame_rate": settings["frame_rate"],
        "temporal_position": architecture.temporal_position,
        "transformer_parameters": sum(architecture.parameters_by_part().values()) - head,
        "head": told_head(architecture),
        "head_parameters": head,
        "codec": described.codec,
        "codec_parameters": described.codec_parameters,
        **({"codes": described.code_use} if described.code_use else {}),
        "latent": f"{architecture.latent_channels}×{architecture.latent_height}×{architecture.latent_width}",
        "conditions": list(architecture.specs),
        "actions": list(settings["action_names"]),
        "classes": list(settings["class_names"]),
        **{name: own[name] if row.get("steps", {}).get(name) != 0 else None for name in STEPS},
        **{name: value for name, value in settings["sampling"].items() if name not in STEPS},  # else the usual ones
        "training_steps": training.get("steps"),
        "training_seed": training.get("seed"),
        "training_data": training.get("data"),
        "metrics": training.get("metrics"),
    }


def told_head(architecture: Architecture) -> str:
    """Its kind and sizes."""
    if architecture.codes:
        return f"{architecture.head}, {architecture.codes} codes"
    return f"{architecture.head}, {architecture.head_depth} blocks of {architecture.head_width}"


def told_paradigm(row: dict[str, Any]) -> dict[str, Any]:
    """Its columns in the paper's table 1."""
    return {
        "makes a": row["unit"],
        "time": row["temporal_attention"],
        "cache": "yes" if row["cached"] else "no",
        "context": "any" if row["variable_context"] else "fixed",
        "past in training": row["past"],
    }


def as_text(value: Any) -> str:
    """A fact as a line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {as_text(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(as_text, value)) or "none"
    return "none" if value is None else str(value)
