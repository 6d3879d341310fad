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
    lines = {name: text for name, value in facts.items() if (text := as_text(value))}
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:{width}}  {text}")


def as_text(value: Any) -> str:
    """A fact as a line; "" where there is nothing to say: no value, an empty list, a group of such."""
    if isinstance(value, dict):
        texts = {name: as_text(one) for name, one in value.items()}
        return ", ".join(f"{name} {text}" for name, text in texts.items() if text)
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    return "" if value is None else str(value)
