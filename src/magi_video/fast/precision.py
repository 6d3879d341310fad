"""Names of precisions in recipes and commands. Standard library alone: recipes are read without importing torch.

`magi_video.fast.probes` turns "auto" into one of the others.
"""

from typing import Any, Literal, get_args

from magi_video.errors import MagiError

Precision = Literal["auto", "float32", "bf16"]
"""What a recipe or a command asks for."""
Settled = Literal["float32", "bf16"]
"""What a computation has."""
OLD_NAMES = {"no": "float32", "bfloat16": "bf16"}
"""Of recipes and run records written before the names were the same everywhere."""


def modern(name: Any) -> Any:
    """A precision's name as it is spelt today; anything else as it is."""
    return OLD_NAMES.get(name, name) if isinstance(name, str) else name


def check_precision(name: str) -> None:
    """Raise a `MagiError` that lists the names unless this is one of them."""
    if name not in get_args(Precision):
        raise MagiError(f"unknown precision {name!r}: choose from {', '.join(get_args(Precision))}")
