"""What checks of options need of a model before it is loaded: the files of its folder, without PyTorch.

The options of commands ask here (`GenerateOptions.check_model`, …), so that a mistake shows before a model takes its
seconds to load. The pipeline checks all of it again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from magi_video.errors import MagiError
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
        few = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "") or "none: it was trained without"
        raise MagiError(f"no class is called {label!r}; this model has {few}") from None
