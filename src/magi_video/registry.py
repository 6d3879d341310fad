"""What can be chosen by name, read from the files that define it: the command line offers choices without PyTorch.

A class that registers itself says what it is in plain values of its body:

    @register
    class CompleteTeacherForcing(MaskedFrames):
        name = "complete"
        title = "MAGI: …"

`declared` reads these values without importing the file. Standard library alone.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


_registered: dict[str, dict[str, dict[str, Any]]] = {}


def declared(folder: str) -> dict[str, dict[str, Any]]:
    """Name → plain values of the body of each class that registers itself in the files of a folder of this package.

    Classes of other packages are among them once they are registered.

    Args:
        folder: "paradigms", "codecs" or "data".
    """
    return _declared(folder) | _registered.get(folder, {})


def declare(folder: str, cls: type) -> None:
    """Add a class that is being registered, wherever its file is."""
    values = {name: value for name, value in vars(cls).items() if isinstance(value, str | int | float | dict)}
    _registered.setdefault(folder, {})[str(values["name"])] = values


@cache
def _declared(folder: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((PACKAGE / folder).glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(one, ast.Name) and one.id == "register" for one in node.decorator_list
            ):
                values = _plain_values(node)
                found[values["name"]] = values
    return found


def _plain_values(node: ast.ClassDef) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                values[statement.targets[0].id] = ast.literal_eval(statement.value)
            except ValueError:  # not a plain value
                continue
    return values
