"""Output that the terminal, the file or the pipe can hold, whatever its encoding."""

import codecs
import io
import sys

SPELT = {
    "→": "->", "←": "<-", "×": "x", "…": "...", "·": "-", "–": "-", "—": "-", "−": "-", "²": "^2", "³": "^3",
    "≤": "<=", "≥": ">=", "“": '"', "”": '"', "’": "'",
}  # fmt: skip
"""What is written for a character that an encoding lacks; for others a question mark."""


def spell(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: what to write in place of characters that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SPELT.get(one, "?") for one in error.object[error.start : error.end]), error.end


def write_any_text() -> None:
    """Let standard output and error take any text: a file may be Latin-1, and a file's name no text at all."""
    codecs.register_error("magi", spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="magi")
