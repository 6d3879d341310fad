"""How the command line reads choices and pairs: rules of tyro, whose messages list the names and nothing else."""

import functools
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo


@functools.cache
def rules() -> "ConstructorRegistry":
    """The rules of this file, for `tyro.cli`."""
    from tyro.constructors import ConstructorRegistry

    registry = ConstructorRegistry()
    registry.primitive_rule(choice)
    registry.primitive_rule(choices)
    registry.primitive_rule(pairs)
    return registry


def choice(info: "PrimitiveTypeInfo") -> "PrimitiveConstructorSpec[Any] | None":
    """A rule for one of some names: `Literal[…]`, or that or None."""
    inner, optional = _without_none(info.type)
    names = _names(inner)
    if names is None:
        return None
    from tyro.constructors import PrimitiveConstructorSpec

    def read(words: list[str]) -> str | None:
        return None if optional and words == ["None"] else _one_of(words[0], names)

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
        return None if optional and words == ["None"] else tuple(_one_of(word, names) for word in words)

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

    def read(words: list[str]) -> dict[str, str]:
        if len(words) % 2:
            raise ValueError(f"expected a name and its value, NAME VALUE …; {words[-1]!r} has no value")
        return dict(zip(words[::2], words[1::2], strict=True))

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME VALUE [NAME VALUE ...]]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [word for pair in value.items() for word in pair],
    )


def _one_of(word: str, names: tuple[str, ...]) -> str:
    if word not in names:
        raise ValueError(f"must be one of {', '.join(names)}, got {word!r}")
    return word


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
