"""What can be chosen by name, read from the files that define it: the command line offers choices without PyTorch.

A class that registers itself says what it is in plain values of its body:

    @register
    class CompleteTeacherForcing(MaskedFrames):
        name = "complete"
        title = "MAGI: …"

`declared` reads these values without importing the file, those of a registered base class too. A `Registry` imports the
file when the class is asked for. No PyTorch.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from magi_video.errors import MagiError

PACKAGE = Path(__file__).parent
CLASS, MODULE = "class", "module"
"""Keys under which `declared` gives the class's own name, and the module that defines it."""

T = TypeVar("T")
C = TypeVar("C", bound=type)


_registered: dict[str, dict[str, dict[str, Any]]] = {}


def declared(folder: str) -> dict[str, dict[str, Any]]:
    """Name → plain values of the body of each class that registers itself in the files of a folder of this package.

    What a class inherits from a registered class is among them; what it inherits from another class is not. A value may
    be `Base.values | {…}`. Classes of other packages are there once they are registered.

    Args:
        folder: of this package: "models" (heads), "paradigms", "exposure", "codecs" or "data".
    """
    return _declared(folder) | _registered.get(folder, {})


class Registry(Mapping[str, type[T]]):
    """The classes that can be chosen by name: those of a folder of this package, and those that others register.

    Args:
        folder: as of `declared`.
        setting: the recipe's setting that names one, for messages.
    """

    def __init__(self, folder: str, setting: str) -> None:
        self.folder, self.setting = folder, setting
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: C) -> C:
        """Make a class known by its `name`; used as a decorator."""
        values: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if base is cls or base in self._classes.values():
                values |= {name: value for name, value in vars(base).items() if name[0] != "_"}
        values = {name: value for name, value in values.items() if _is_plain(value)}
        values |= {CLASS: cls.__name__, MODULE: cls.__module__}
        _registered.setdefault(self.folder, {})[values["name"]] = values
        self._classes[values["name"]] = cls
        return cls

    def forget(self, name: str) -> None:
        """Take back a registration, as tests do."""
        del self._classes[name], _registered[self.folder][name]

    def find(self, name: str) -> type[T]:
        """The class of that name, or a `MagiError` that lists the names."""
        if name not in self:
            raise MagiError(f"{self.setting} must be one of {', '.join(self)}, got {name!r}")
        return self[name]

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            import_module(declared(self.folder)[name][MODULE])  # registers it
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(declared(self.folder))

    def __contains__(self, name: object) -> bool:
        return name in declared(self.folder)

    def __len__(self) -> int:
        return len(declared(self.folder))


@cache
def _declared(folder: str) -> dict[str, dict[str, Any]]:
    """Class values by name; a class may come before its base in the order of files."""
    nodes: dict[str, tuple[ast.ClassDef, str]] = {}
    for file in sorted((PACKAGE / folder).glob("*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.parse(text).body if "\n@register\n" in text else ():  # parsing takes milliseconds a file
            if isinstance(node, ast.ClassDef) and "register" in map(_name, node.decorator_list):
                nodes[node.name] = node, f"{__package__}.{folder}.{file.stem}"
    read: dict[str, dict[str, Any]] = {}
    while len(read) < len(nodes):
        for cls, (node, module) in nodes.items():
            bases = [base for base in map(_name, node.bases) if base in nodes]
            if cls not in read and set(bases) <= set(read):
                inherited = {name: value for base in reversed(bases) for name, value in read[base].items()}
                read[cls] = _read_body(node, inherited, read) | {CLASS: cls, MODULE: module}
    return {read[cls]["name"]: read[cls] for cls in nodes}


def _name(expression: ast.expr) -> str:
    """Of a decorator or a base class; empty if it is not a plain name."""
    return expression.id if isinstance(expression, ast.Name) else ""


def _read_body(node: ast.ClassDef, inherited: dict[str, Any], read: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Plain values of a class: of its body, else inherited.

    Args:
        node: the class.
        inherited: values of its bases.
        read: values of classes, to which the body may refer.
    """
    values = dict(inherited)
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name, expression = statement.targets[0].id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            name, expression = statement.target.id, statement.value
        else:
            if isinstance(statement, ast.FunctionDef):
                values.pop(statement.name, None)
            continue
        try:
            values[name] = _evaluate(expression, read)
        except ValueError:
            values.pop(name, None)
    return values


def _evaluate(expression: ast.expr, read: dict[str, dict[str, Any]]) -> Any:
    """A literal, in which numbers may be powers (2**20), `Base.values`, or a union of two dictionaries.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.BitOr):
        return _evaluate(expression.left, read) | _evaluate(expression.right, read)
    if isinstance(expression, ast.Attribute) and expression.attr in (values := read.get(_name(expression.value), {})):
        return values[expression.attr]
    return ast.literal_eval(_Powers().visit(expression))


class _Powers(ast.NodeTransformer):
    """Replaces powers of two numbers, which `ast.literal_eval` does not take, by what they are."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """See the class."""
        parts = (node.left, node.right)
        if not isinstance(node.op, ast.Pow) or not all(isinstance(part, ast.Constant) for part in parts):
            return node
        base, exponent = (part.value for part in parts if isinstance(part, ast.Constant))
        return ast.Constant(base**exponent)  # type: ignore[operator]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | dict | list | tuple)


def check_clip_frames(
    name: str, shown: int | str, options: Mapping[str, Any], frames: int, kind: str = "frames"
) -> None:
    """Refuse training clips that end before a paradigm has anything to learn in them.

    Args:
        name: of the paradigm, for the message.
        shown: its `shown_frames`: frames that a clip begins with and that have no loss, or the option that says so.
        options: its hyper-parameters, every one of them.
        frames: of a training clip, as the transformer counts them.
        kind: what they are called.

    Raises:
        MagiError: how many it needs, and what else would do.
    """
    count = int(options[shown]) if isinstance(shown, str) else shown
    if frames > count:
        return
    ways = [f"--num-frames {count + 1}" if kind == "frames" else "a larger --num-frames"]
    if isinstance(shown, str) and frames > 1:
        ways.insert(0, f"--forcing-options {shown} {frames - 1}")
    raise MagiError(
        f"{name} learns from clips of {count + 1} {kind} or more, got clips of {frames}: give {' or '.join(ways)}"
    )


def read_options(cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every hyper-parameter of a class: as given, else its default.

    Args:
        cls: with `name`, `options`, and where they matter `choices` and `limits` in its body.
        given: by name; values, or texts of them.

    Raises:
        MagiError: it has no such option, or the option cannot be that.
    """
    if unknown := set(given) - set(cls.options):
        raise MagiError(f"{cls.name} has no option {min(unknown)!r}; it has {', '.join(cls.options) or 'none'}")
    read = {}
    for name, default in cls.options.items():
        choices, limits = cls.choices.get(name, ()), cls.limits.get(name, ())
        read[name] = read_option(f"{cls.name}: {name}", given.get(name, default), default, choices, limits)
    return read


def read_option(name: str, value: Any, default: Any, choices: Sequence[str] = (), limits: Sequence[float] = ()) -> Any:
    """A hyper-parameter, given as a value or as its text, in the type of its default.

    Args:
        name: for messages.
        value: what was given.
        default: a number or a text.
        choices: what a text may be; empty for anything.
        limits: the least and the most that a number may be; empty for any number.

    Raises:
        MagiError: it has another type, or is not allowed.
    """
    kind = type(default)
    try:
        read = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise MagiError(f"{name} must be of type {kind.__name__}, got {str(value)[:60]!r}") from None
    if choices and read not in choices:
        raise MagiError(f"{name} must be one of {', '.join(choices)}, got {str(read)[:60]!r}")
    if limits and not limits[0] <= read <= limits[1]:
        raise MagiError(f"{name} must lie in {_written(limits[0])}…{_written(limits[1])}, got {_written(read)}")
    return read


def _written(number: float) -> str:
    """A number as a message shows it: 1,048,576 rather than 1.04858e+06."""
    return f"{number:,}" if isinstance(number, int) else f"{int(number):,}" if number.is_integer() else f"{number:g}"
