"""How the command line reads numbers, choices and pairs: rules of tyro that refuse nothing.

A word that is no such value goes on as it is, and the class of options refuses it: with the words of a wrong value in a
recipe or in Python, and the name of the option (`parsing.parse`).
"""

import functools
from itertools import zip_longest
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo


@functools.cache
def rules() -> "ConstructorRegistry":
    """The rules of this file, for `tyro.cli`."""
    from tyro.constructors import ConstructorRegistry

    registry = ConstructorRegistry()
    registry.primitive_rule(number)
    registry.primitive_rule(numbers)
    registry.primitive_rule(choice)
    registry.primitive_rule(choices)
    registry.primitive_rule(pairs)
    return registry


def number(info: "PrimitiveTypeInfo") -> "PrimitiveConstructorSpec[Any] | None":
    """A rule for a number: `int` or `float`, or that or None."""
    kind, optional = _without_none(info.type)
    if kind not in (int, float):
        return None
    from tyro.constructors import PrimitiveConstructorSpec

    def read(words: list[str]) -> Any:
        return None if optional and words == ["None"] else _number(words[0], kind)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: _is_number(value, kind) or (optional and value is None),
        str_from_instance=lambda value: [str(value)],
    )


def numbers(info: "PrimitiveTypeInfo") -> "PrimitiveConstructorSpec[Any] | None":
    """A rule for some numbers: `tuple[int, ...]` or `tuple[float, ...]`, or that or None."""
    inner, optional = _without_none(info.type)
    kind = get_args(inner)[0] if get_origin(inner) is tuple and get_args(inner)[1:] == (...,) else None
    if kind not in (int, float):
        return None
    from tyro.constructors import PrimitiveConstructorSpec

    def read(words: list[str]) -> Any:
        return None if optional and words == ["None"] else tuple(_number(word, kind) for word in words)

    one = kind.__name__.upper()
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{one} [{one} ...]]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple) or (optional and value is None),
        str_from_instance=lambda value: [str(value)] if value is None else list(map(str, value)),
    )


def choice(info: "PrimitiveTypeInfo") -> "PrimitiveConstructorSpec[Any] | None":
    """A rule for one of some names: `Literal[…]`, or that or None."""
    inner, optional = _without_none(info.type)
    names = _names(inner)
    if names is None:
        return None
    from tyro.constructors import PrimitiveConstructorSpec

    def read(words: list[str]) -> str | None:
        return None if optional and words == ["None"] else words[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}",
        instance_from_str=read,
        is_instance=lambda value: value in names or (optional and value is None),
        str_from_instance=lambda value: [str(value)],
    )


def choices(info: "PrimitiveTypeInfo") -> "PrimitiveConstructorSpec[Any] | None":
    """A rule for some of some names: `tuple[Literal[…], …]`, or that or None."""
    inner, optional = _without_none(info.type)
    names = _names(get_args(inner)[0]) if get_origin(inner) is tuple and get_args(inner)[1:] == (...,) else None
    if names is None:
        return None
    from tyro.constructors import PrimitiveConstructorSpec

    def read(words: list[str]) -> tuple[str, ...] | None:
        return None if optional and words == ["None"] else tuple(words)

    one = f"{{{','.join(names)}}}"
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{one} [{one} ...]]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple) or (optional and value is None),
        str_from_instance=lambda value: [str(value)] if value is None else list(value),
    )


def pairs(info: "PrimitiveTypeInfo") -> "PrimitiveConstructorSpec[Any] | None":
    """A rule for names with values: `dict[str, str]`."""
    if info.type != dict[str, str]:
        return None
    from tyro.constructors import PrimitiveConstructorSpec

    def read(words: list[str]) -> dict[str, str | None]:
        return dict(zip_longest(words[::2], words[1::2]))

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME VALUE [NAME VALUE ...]]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [word for pair in value.items() for word in pair],
    )


def _number(word: str, kind: type) -> Any:
    try:
        return kind(word)
    except ValueError:
        return word


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)


def _without_none(kind: Any) -> tuple[Any, bool]:
    """A type without None and annotations, and whether None was allowed."""
    if get_origin(kind) not in (Union, UnionType) or NoneType not in get_args(kind):
        return kind, False
    others = [one for one in get_args(kind) if one is not NoneType]
    inner = others[0] if len(others) == 1 else kind
    return (get_args(inner)[0] if get_origin(inner) is Annotated else inner), True


def _names(kind: Any) -> tuple[str, ...] | None:
    """Of a `Literal` of texts; None of another type."""
    names = get_args(kind) if get_origin(kind) is Literal else ()
    return names if names and all(isinstance(name, str) for name in names) else None
