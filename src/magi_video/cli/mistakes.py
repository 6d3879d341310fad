"""What is wrong with a command line, in one line: imported once something is.

The parser's own messages are boxes of several lines. What can be wrong is found again here, from the dataclass that the
options are made of.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from magi_video.errors import MagiError, listed, nearest
from magi_video.settings import SettingError

NAME = re.compile(r"--?[^\W\d]")
"""How the name of an option begins; -1 is a value."""
MOST_SHOWN = 60
"""Characters of a wrong word that a message repeats."""


class UsageError(MagiError):
    """A command line that names an option that there is not, or leaves out one that must be given."""

    exit_code = 2


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a verb.

    Attributes:
        cls, field: the class of settings that it is a field of, and its name there.
        name: as a user knows it: "--sink-frames", "--small-vae.steps", "MODEL" of a value without a name.
        positional: whether its value goes without a name.
        flag: whether it has no value.
        many: whether it takes any number of values.
        required: whether it must be given.
    """

    cls: type
    field: str
    name: str
    positional: bool
    flag: bool
    many: bool
    required: bool

    @property
    def names(self) -> tuple[str, ...]:
        """All names of it on the command line."""
        group, _, own = self.name[2:].rpartition(".")
        return (self.name, f"--{group + '.' if group else ''}no-{own}") if self.flag else (self.name,)


def walk_options(
    options: type, default: Any = tyro.MISSING, prefix: str = "", omitted: bool = False
) -> Iterator[Option]:
    """The options that a dataclass makes, those of groups included.

    Args:
        options: the dataclass.
        default: an instance with the defaults; those of the fields if not given.
        prefix: what stands in front of the names of its fields.
        omitted: whether groups inside put nothing in front.
    """
    hints = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        name, hint = field.name, hints[field.name]
        marks = [mark for one in (hint, *get_args(hint)) for mark in getattr(one, "__metadata__", ())]
        within = omitted or OmitArgPrefixes in marks
        bare = within or any(getattr(mark, "name", None) == "" for mark in marks)
        groups = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and dataclasses.is_dataclass(one)]
        for group in groups:
            yield from walk_options(group, _value(field, default), prefix if bare else f"{prefix}{name}.", within)
        if not groups:
            positional, kind = Positional in marks, _plain(hint)
            metavar = next((found for mark in marks if (found := getattr(mark, "metavar", None))), name)
            yield Option(
                options,
                name,
                metavar if positional else f"--{prefix}{name}".replace("_", "-"),
                positional,
                flag=kind is bool,
                many=get_origin(kind) in (tuple, dict),
                required=_value(field, default) is tyro.MISSING,
            )


def option_name(options: type, wrong: SettingError) -> str:
    """As what a user knows a setting: "--sink-frames", "--small-vae.steps", "world" of one without a name."""
    field, *keys = [str(part) for part in wrong.path if isinstance(part, str)]
    found = next((one for one in walk_options(options) if (one.cls, one.field) == (wrong.cls, field)), None)
    name = f"--{field.replace('_', '-')}" if found is None else field if found.positional else found.name
    return " ".join([name, *keys])


def describe_mistake(options: type, prog: str, argv: Sequence[str], default: Any = tyro.MISSING) -> str | None:
    """What is wrong with a command line: the first that is, of an unknown option, a value that is missing or too much,
    and an option that must be given. None if none of these.

    Args:
        options: the dataclass that it was parsed for.
        prog: the command, such as "magi info".
        argv: what follows it.
        default: an instance with the defaults.
    """
    known = list(walk_options(options, default))
    named = {name: one for one in known if not one.positional for name in one.names}
    given = _split(argv)
    for name, _, _ in given:
        if name and name not in named:
            return f"unknown option {name[:MOST_SHOWN]}{nearest(name, named) or f'; {prog} --help lists all'}"
    places = [one for one in known if one.positional]
    free: list[tuple[str, list[str], str]] = []  # words that no option takes; the option before each and all behind it
    for name, joined, words in given:
        option = named.get(name)
        if option is not None and option.flag and joined:
            return f"{name} takes no value, got {words[0][:MOST_SHOWN]!r}"
        taken = 0 if option is None or option.flag else len(words) if option.many else 1
        if taken > len(words):
            return f"{name} needs a value"
        free += [(name, words, word) for word in words[taken:]]
    if len(free) > len(places) and not any(one.many for one in places):
        name, words, word = free[len(places)]
        if name and not named[name].flag:
            got = listed([repr(one[:MOST_SHOWN]) for one in words])
            return f"{name} takes one value, got {got}; quotes make several words one value"
        after = f" after {name}, which takes no value" if name else ""
        return f"unexpected {word[:MOST_SHOWN]!r}{after}; {prog} --help says what is expected"
    asked = {name for name, _, _ in given}
    missing = [one.name for one in places[len(free) :] if one.required]
    missing += [one.name for one in known if one.required and not one.positional and not asked & set(one.names)]
    if not missing:
        return None
    names = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
    return f"{names} must be given; {prog} --help says what {'they are' if missing[1:] else 'it is'}"


def _split(argv: Sequence[str]) -> list[tuple[str, bool, list[str]]]:
    """Names of options, as they are known, whether a value is joined to it by "=", and the words that follow; first
    the words before any option, under the name ""."""
    parts: list[tuple[str, bool, list[str]]] = [("", False, [])]
    for word in argv:
        if NAME.match(word):
            name, joined, value = word.partition("=")
            parts.append((name.replace("_", "-"), bool(joined), [value] if joined else []))
        else:
            parts[-1][2].append(word)
    return parts


def _value(field: "dataclasses.Field[Any]", default: Any) -> Any:
    """The default of a field; `tyro.MISSING` if it must be given."""
    if default is not tyro.MISSING:
        return getattr(default, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


def _plain(hint: Any) -> Any:
    """A type without annotations, and without None where that is allowed."""
    while hasattr(hint, "__metadata__"):
        hint = get_args(hint)[0]
    kinds = [one for one in get_args(hint) if one is not type(None)]
    return _plain(kinds[0]) if type(None) in get_args(hint) and len(kinds) == 1 else hint
