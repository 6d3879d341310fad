"""`magi info MODEL`."""

import json
from dataclasses import dataclass
from typing import Any

from magi_video.cli.parsing import Model, parse
from magi_video.pipeline.description import model_facts


@dataclass(frozen=True)
class Info:
    """Describe a model: parameters, paradigm, codec, data, training."""

    model: Model
    """Folder, hub id, or the name of a shipped model ("doom", "atari", "coinrun")."""
    json: bool = False
    """Print JSON."""


def main(argv: list[str]) -> None:
    """Parse and print."""
    settings = parse(Info, "magi info", argv)
    facts = model_facts(settings.model)
    if settings.json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {as_text(value)}")


def as_text(value: Any) -> str:
    """A fact as a line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {as_text(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(as_text, value)) or "none"
    return "none" if value is None else str(value)
