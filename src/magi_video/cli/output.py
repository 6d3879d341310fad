"""Output that the terminal, the file or the pipe can hold, whatever its encoding; tables."""

import codecs
import io
import sys
from collections.abc import Iterable

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


def print_title(text: str) -> None:
    """Print a line in bold."""
    from rich.console import Console

    Console().print(text, style="bold", highlight=False, markup=False)


def print_tables(tables: dict[str, dict[str, str]]) -> None:
    """Print tables of names and values, each below its title."""
    for title, rows in tables.items():
        _print_table(title, [], rows.items())


def print_columns(title: str, head: Iterable[str], *rows: Iterable[str]) -> None:
    """Print a table with a head over its columns; those of words (`--s…`) to the left, of numbers to the right."""
    _print_table(title, head, rows)


def print_list(title: str, lines: Iterable[str]) -> None:
    """Print lines as a list below its title."""
    from rich.console import Console

    console = Console()
    console.print(title, style="bold")
    for line in lines:
        console.print(f"- {line}", highlight=False, markup=False)


def _print_table(title: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", show_header=bool(head), box=None)
    for column in head:
        table.add_column(column, justify="left" if column.startswith("--s") else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
