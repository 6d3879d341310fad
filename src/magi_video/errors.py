"""What ends a command in one line: a mistake that the user can fix, or a signal. And how such lines name and count."""

from collections.abc import Iterable, Sequence

MAX_MESSAGE = 1500
"""Characters of a message: what it quotes of a file may be of any length."""
MAX_NAME = 60
"""Characters of a word that is compared with known names."""


class MagiError(Exception):
    """A mistake in the input (a file, a setting, a checkpoint), described in one line: what was wrong, what was
    expected."""

    exit_code = 1
    """What the command line exits with."""

    def __str__(self) -> str:
        """The message, in one line whatever it quotes, and without its middle where that is long."""
        message = " ".join(super().__str__().splitlines())
        if len(message) <= MAX_MESSAGE:
            return message
        return f"{message[: MAX_MESSAGE // 2]} … {message[-MAX_MESSAGE // 2 :]}"


def first_line(error: BaseException, kind: bool = False) -> str:
    """The first line of another library's error, for a message; the error's class where it says nothing.

    Args:
        error: that was caught.
        kind: name its class before the line too.
    """
    name, message = type(error).__name__, str(error).strip()
    if not message:
        return name
    return f"{name}: {message.splitlines()[0]}" if kind else message.splitlines()[0]


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for a message: the first of many, "" of none."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean --frames?": the known name that is most like a word, "" if none is.

    Args:
        word: that is none of them.
        known: the names; dashes in front and the case of letters make no difference.
    """
    from difflib import get_close_matches

    names = {name.lstrip("-").lower(): name for name in known}
    word = word[:MAX_NAME].lstrip("-").lower()
    begun = [name for name in names if name.startswith(word)]
    found = begun if len(begun) == 1 else get_close_matches(word, names, n=1)
    return f"; did you mean {names[found[0]]}?" if found else ""


def counted(count: int, what: str) -> str:
    """ "1 frame", "1,200 frames": a number and what it counts.

    Args:
        count: how many.
        what: one of them; its plural ends in -s.
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def spanned(least: int, largest: int) -> str:
    """ "1…4": whole numbers that may be chosen; "1" where there is one alone."""
    return f"{least}" if least == largest else f"{least}…{largest}"


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end, wherever it is: as Ctrl-C does, so that all that cleans up after that does.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
