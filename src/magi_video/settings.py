"""Settings: frozen dataclasses whose bounds stand on their fields.

    @settings
    class Sampling:
        mask_steps: Annotated[int, Field(ge=1)] = 64
        \"\"\"Steps in which a frame's tokens appear.\"\"\"

Recipes, the command line and Python all make these classes. What breaks a type or a bound is a `MagiError` of one line.
Types are strict: no text for a number, no `True` for 1, no fraction for a whole number. Does not import PyTorch.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from numbers import Integral
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from magi_video.errors import MagiError

T = TypeVar("T")
Items = Field(strict=False)
"""On a field that is a tuple: a list will do."""
MAX_SIZE = 2**16
"""Of anything a model has a number of; a config that asks for more is damaged."""
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
MOST_SHOWN = 80
"""Characters of a wrong value that a message repeats."""
CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
EXPECTED = {
    "greater_than_equal": "must be at least {ge:,}",
    "greater_than": "must be above {gt:,}",
    "less_than_equal": "must be at most {le:,}",
    "less_than": "must be below {lt:,}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "literal_error": "must be one of {expected}",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "dict_type": "must be an object",
    "dataclass_type": "must be an object of settings",
    "dataclass_exact_type": "must be a {class_name}",
}
"""Kind of a pydantic error → what was expected."""


class SettingError(MagiError):
    """A value that breaks the type or the bounds of a setting.

    Attributes:
        cls: the class of settings.
        path: from its field to the value: names, and numbers of items.
        problem: what was expected and what was given, without the name.
    """

    cls: type = object
    path: tuple[int | str, ...] = ()
    problem: str = ""

    @classmethod
    def of(cls, error: ValidationError, settings_class: type, *field: str) -> "SettingError":
        """Of pydantic's first complaint about a class, or about the value of one `field` of it."""
        path, problem = complaint(error, settings_class, *field)
        made = cls(" ".join(filter(None, (_dotted(path), problem))))
        made.cls, made.path, made.problem = settings_class, path, problem
        return made


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a frozen dataclass that checks its values when it is made."""
    made: Any = dataclass(frozen=True, config=CONFIG)(cls)
    check = made.__init__

    @functools.wraps(check)
    def initialise(self: T, *args: Any, **values: Any) -> None:
        try:
            check(self, *map(_plain, args), **{name: _plain(value) for name, value in values.items()})
        except ValidationError as error:
            raise SettingError.of(error, cls) from None

    made.__init__ = initialise
    checked: type[T] = made
    return checked


def _plain(value: Any) -> Any:
    """Whole numbers of another library (NumPy's) as Python's, in tuples too."""
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value)) if type(value) in (tuple, list) else value
    return int(value) if isinstance(value, Integral) and not isinstance(value, int) else value


def from_json(cls: type[T], content: Any, where: str) -> T:
    """Settings from JSON values; groups of settings may be nested.

    Args:
        cls: a class made by `settings`.
        content: an object that names some of its fields; the others keep their defaults.
        where: the file, for messages.

    Raises:
        MagiError: a name that is unknown, a wrong type, or a value out of bounds.
    """
    try:
        made: T = TypeAdapter(cls).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise MagiError(f"{where}: {SettingError.of(error, cls)}") from None
    except MagiError as error:  # of a check over several fields
        raise MagiError(f"{where}: {error}") from None
    return made


def check_fields(made: Any) -> None:
    """Check the types of a plain dataclass's fields, as `settings` does when it makes one; groups of settings were.

    Raises:
        SettingError: which field, and what was expected.
    """
    if dataclasses.is_dataclass(made) and not hasattr(type(made), "__pydantic_validator__"):
        for name, hint in get_type_hints(type(made), include_extras=True).items():
            if not dataclasses.is_dataclass(_inner(type(made), (name,))):
                try:
                    TypeAdapter(hint, config=CONFIG).validate_python(getattr(made, name))
                except ValidationError as error:
                    raise SettingError.of(error, type(made), name) from None


def complaint(error: ValidationError, cls: type, *field: str) -> tuple[tuple[int | str, ...], str]:
    """The first of pydantic's complaints about a class, or about a field of it: where, and what is wrong."""
    first = error.errors(include_url=False)[0]
    path, found = (*field, *first["loc"]), repr(first["input"])
    if first["type"] == "unexpected_keyword_argument":
        known = ", ".join(sorted(field.name for field in dataclasses.fields(_inner(cls, path[:-1]))))
        group = "".join(f"{part}: " for part in (_dotted(path[:-1]),) if part)
        return (), f"{group}unknown setting {path[-1]!r}; known are {known}"
    if first["type"] == "string_type" and first["input"] is None:
        return path, "needs a value"
    expected = EXPECTED.get(first["type"], first["msg"]).format_map(_Context(first.get("ctx", {})))
    if bounds := _bounds(cls, path):
        least, largest = bounds
        if least and largest:
            expected = f"{expected if '_type' in first['type'] else 'must lie'} in {least}…{largest}"
        elif "_type" in first["type"]:
            expected += f" of at least {least}" if least else f" of at most {largest}" if largest else ""
    found = found if len(found) <= MOST_SHOWN else f"{found[: MOST_SHOWN - 1]}…"
    return path, f"{expected}, got {found}"


def _dotted(path: tuple[int | str, ...]) -> str:
    return ".".join(map(str, path))


class _Context(dict[str, Any]):
    """What pydantic says of a bound, numbers without a needless fraction and lists as we write them."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__({name: self._short(value) for name, value in given.items()})

    @staticmethod
    def _short(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("'", "").replace(" or ", ", ")
        return int(value) if isinstance(value, float) and value.is_integer() else value


def _bounds(cls: type, path: tuple[int | str, ...]) -> tuple[str, str] | None:
    """The least and the largest value of a field, as text; "" where it has none."""
    if not path or not isinstance(path[-1], str):
        return None  # of all fields, or one of a tuple's items
    hint = get_type_hints(_inner(cls, path[:-1]), include_extras=True)[str(path[-1])]
    marks = [mark for one in (hint, *get_args(hint)) for mark in getattr(one, "__metadata__", ())]
    bounds = {type(bound).__name__: bound for mark in marks for bound in getattr(mark, "metadata", ())}
    least, largest = bounds.get("Ge"), bounds.get("Le")
    return "" if least is None else f"{least.ge:,}", "" if largest is None else f"{largest.le:,}"


def _inner(cls: Any, path: tuple[int | str, ...]) -> Any:
    """The class of a group of settings inside others."""
    for name in path:
        if isinstance(name, int):  # of a tuple, whose items' class is known already
            continue
        hint = get_type_hints(cls)[str(name)]
        cls = next((one for one in (hint, *get_args(hint)) if dataclasses.is_dataclass(one)), hint)
    return cls
