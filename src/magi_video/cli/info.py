"""`magi info MODEL`."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Info:
    """Tell what a model is: parameters, paradigm, codec, data, training."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder, hub id, or the name of a shipped model ("doom", "atari")."""
    json: Annotated[bool, arg(name="json")] = False
    """Print JSON."""


def main(argv: list[str]) -> None:
    """Parse and tell."""
    import tyro

    settings = tyro.cli(Info, prog="magi info", args=argv)
    facts = describe(settings.model)
    if settings.json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {told(value)}")


def describe(model: str) -> dict[str, Any]:
    """What `magi info` tells, as JSON values."""
    from magi_video.pipeline import MagiPipeline

    pipe = MagiPipeline.from_pretrained(model)
    config, transformer = pipe.config, pipe.transformer
    training = config.training
    head = transformer.diffusion_head
    return {
        "model": model,
        "forcing": config.forcing,
        "frame": f"{config.height}×{config.width} pixels, {transformer.num_tokens} tokens of {transformer.token_dim}",
        "trained_frames": transformer.config.num_frames,
        "intervals": f"1…{transformer.config.max_interval}",
        "frame_rate": config.frame_rate,
        "temporal_position": transformer.config.temporal_position,
        "transformer_parameters": count(transformer) - count(head),
        "head": f"{transformer.config.head}, {transformer.config.head_depth} blocks of {transformer.config.head_width}",
        "head_parameters": count(head),
        "codec": type(pipe.codec).__name__,
        "codec_parameters": count(pipe.codec),
        "latent": f"{pipe.codec.latent_channels}×{transformer.config.latent_height}×{transformer.config.latent_width}",
        "conditions": list(transformer.condition_tokens.specs),
        "actions": list(config.action_names),
        "classes": list(config.class_names),
        "mask_steps": config.mask_steps,
        "denoise_steps": config.denoise_steps,
        "training_steps": training.get("steps"),
        "training_seed": training.get("seed"),
        "training_data": training.get("data"),
        "metrics": training.get("metrics"),
    }


def told(value: Any) -> str:
    """A fact as a line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {told(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(told, value)) or "none"
    return "none" if value is None else str(value)


def count(module: Any) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
