"""What checks of options need of a model before it is loaded: the files of its folder, without PyTorch.

The options of commands ask here (`GenerateOptions.check_model`, …), so that a mistake shows before a model takes its
seconds to load. The pipeline checks all of it again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from magi_video.errors import MagiError, listed
from magi_video.files.weights import is_local, resolve_model
from magi_video.models.architecture import Architecture, ConditionSpec
from magi_video.pipeline.description import DEFAULTS, INDEX_FILE, check_settings, read_architecture, read_index


def read_local(model: str | Path) -> tuple[dict[str, Any], Architecture] | None:
    """The settings and the architecture of a model that is a folder or a shipped one; None of one of the hub.

    Raises:
        MagiError: its folder holds no model.
    """
    if not is_local(model):
        return None
    folder = resolve_model(model)
    settings = DEFAULTS | {name: value for name, value in read_index(folder).items() if value is not None}
    architecture = read_architecture(folder / "transformer")
    check_settings(settings, architecture, None, str(folder / INDEX_FILE))
    return settings, architecture


def check_controls(specs: dict[str, ConditionSpec], asked: Mapping[str, object]) -> None:
    """Refuse a condition that the model knows nothing of."""
    for name, value in asked.items():
        if value is not None and name not in specs:
            raise MagiError(f"this model takes no {name}: it was trained without")


def find_label(label: str, classes: Sequence[str]) -> int:
    """The number of a class given by its name or its number; a name goes first."""
    if label in classes:
        return classes.index(label)
    try:
        return int(label)
    except ValueError:
        few = listed(classes) or "none: it was trained without"
        raise MagiError(f"no class is called {label!r}; this model has {few}") from None


def hold_actions(held: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The vector of actions that are held together, float32 `[A]`.

    Where the model has names such as "RIGHT+UP", one action is taken at a time: RIGHT and UP together, in any order,
    are that one.

    Args:
        held: names of actions, or of parts of one; none of them is all zero.
        names: the model's action columns.

    Raises:
        MagiError: an unknown name, or no action of a model that takes one at a time is these together.
    """
    one_at_a_time = any("+" in name for name in names)
    parts = [part for name in held for part in name.split("+")] if one_at_a_time else list(held)
    columns = {frozenset(name.split("+") if one_at_a_time else [name]): column for column, name in enumerate(names)}
    for part in parts:
        if not any(part in keys for keys in columns):
            raise MagiError(f"unknown action {part!r}: this model has {', '.join(names) or 'none'}, and NONE")
    together = [frozenset(parts)] if one_at_a_time and parts else [frozenset([part]) for part in parts]
    vector = np.zeros(len(names), np.float32)
    for keys in together:
        if keys not in columns:
            raise MagiError(f"actions: this model has no action {'+'.join(parts)}: it has {', '.join(names)}")
        vector[columns[keys]] = 1
    return vector
