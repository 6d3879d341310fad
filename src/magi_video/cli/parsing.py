"""Options of a verb from a dataclass, by tyro; and its --help, no wider than the terminal."""

import contextlib
import dataclasses
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from tyro.conf import OmitArgPrefixes, Positional, arg

from magi_video.cli.values import rules
from magi_video.data.walk import check_videos
from magi_video.errors import MagiError
from magi_video.files.folders import check_file, check_folder
from magi_video.files.weights import check_model_name
from magi_video.settings import SettingError, check_fields

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class Check:
    """In the annotation of an option: a function that refuses values which cannot be, before anything is loaded."""

    function: Callable[[Any], object]


def check_given(path: Path) -> None:
    """Raise a `MagiError` unless there is something at a path."""
    if not path.exists():
        raise MagiError(f"{path}: no such folder or file")


Model = Annotated[Positional[str], arg(metavar="MODEL"), Check(check_model_name)]
"""A model: a folder, a hub id, or the name of a shipped one."""
Given = Annotated[Path, Check(check_given)]
"""A file or folder that is to be read."""
Videos = Annotated[Path, Check(check_videos)]
"""A folder of videos that is to be read."""
OutFolder = Annotated[Path, Check(check_folder)]
"""A folder for results."""
OutFile = Annotated[Path, Check(check_file)]
"""A file for results."""
Grouped = OmitArgPrefixes[Annotated[Options, arg(name="")]]
"""`Grouped[X]`: the fields of X are options of the verb itself, without a name in front and among its own in --help."""
OLD_OPTIONS = {"--setting": "--speed"}
"""Of earlier versions."""
NOTHING = "(default: )"
OPTIONAL = re.compile(r"\{None\}\|(?:\{(\[.*\])\}|(\S+))")


def parse(
    options: type[Options], prog: str, argv: list[str], description: str | None = None, default: Options | None = None
) -> Options:
    """A command line as a dataclass whose fields are the options; ends the process after --help.

    Args:
        options: the dataclass; its docstring and those of its fields are what --help shows.
        prog: the command, such as "magi info".
        argv: what follows it.
        description: for --help; that of the dataclass if not given.
        default: an instance whose values are the defaults.

    Raises:
        MagiError: a value is wrong (of the class `UsageError`, whose exit code is 2: an option is unknown or missing).
    """
    import tyro

    argv = [
        OLD_OPTIONS.get(name, name) + equals + value for name, equals, value in (one.partition("=") for one in argv)
    ]
    given: dict[str, Any] = {"registry": rules()} | ({} if default is None else {"default": default})
    if not {"-h", "--help"} & set(argv):
        printed = io.StringIO()
        try:
            with contextlib.redirect_stderr(printed):
                made = tyro.cli(options, prog=prog, description=description, args=argv, **given)
            check_fields(made)
        except SettingError as wrong:
            from magi_video.cli.mistakes import option_name

            raise MagiError(f"{option_name(options, wrong)} {wrong.problem}") from None
        except SystemExit as ended:
            if not ended.code:
                raise
            from magi_video.cli.mistakes import UsageError, describe_mistake

            problem = describe_mistake(options, prog, argv, tyro.MISSING if default is None else default)
            raise UsageError(problem or unboxed(printed.getvalue())) from None
        print(printed.getvalue(), end="", file=sys.stderr)
        check_options(made)
        return made
    captured = _Captured(sys.stdout)
    try:
        with contextlib.redirect_stdout(captured):
            return tyro.cli(options, prog=prog, description=description, args=argv, **given)
    finally:
        print(fit(captured.getvalue()), end="")


def check_options(options: Any) -> None:
    """Raise a `MagiError` if an option's `Check` refuses its value."""
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name, None)
        for mark in (mark for one in (hint, *get_args(hint)) for mark in getattr(one, "__metadata__", ())):
            if isinstance(mark, Check) and value is not None:
                mark.function(value)


def arguments(options: Any, *others: str) -> dict[str, Any]:
    """The options as arguments of the function that they are for.

    Args:
        options: a dataclass.
        others: names of its fields that are no arguments of the function.
    """
    return {one.name: getattr(options, one.name) for one in dataclasses.fields(options) if one.name not in others}


def fit(text: str) -> str:
    """The text of --help, its long paragraphs broken into lines that fit, and `{None}|INT` as INT."""
    width = shutil.get_terminal_size().columns
    lines = []
    for line in text.splitlines():
        # As many spaces come in the place of what goes: the columns beside it stay where they are.
        line = OPTIONAL.sub(lambda found: (found[1] or found[2]).ljust(len(found[0])), line).rstrip()
        line = line.replace(NOTHING + "     ", "(default: none) ").replace(NOTHING, "(default: none)")
        if len(line) <= width or "\x1b" in line:
            lines.append(line)
            continue
        indent = "  " if line.startswith("usage:") else line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False)
    return "".join(f"{line}\n" for line in lines)


def unboxed(text: str) -> str:
    """What the parser prints in a box of several lines, as one line."""
    return " ".join(re.sub(r"[\u2500-\u257f]", " ", text).split())


class _Captured(io.StringIO):
    """Captures what is printed, and has the stream's encoding and `isatty`: colours are for terminals."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return bool(self.stream.isatty())
