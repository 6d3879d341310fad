"""Small text files that others wrote, JSON above all: regular files of limited size, and JSON that means one thing.

Standard library alone, so that presets can be read without importing torch.
"""

import codecs
import json
import math
from pathlib import Path
from typing import Any

from magi_video.errors import MagiError
from magi_video.files.limits import MAX_JSON_BYTES, MAX_TEXT_BYTES

UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""No text in UTF-8 begins with them."""
MAX_CHARACTERS = 10_000
"""Of a caption, and of any text for a model."""
MAX_INTEGER = 2**63


def read_text(path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """A text file in UTF-8, without the byte order mark that some editors and tables write first; in UTF-16 if it
    begins with the mark of that.

    Raises:
        MagiError: missing, no regular file (a pipe would be waited for without end), too large, or not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise MagiError(f"{path}: not a regular file")
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise MagiError(f"{path}: larger than {most} bytes")
        return content.decode("utf-16" if content.startswith(UTF_16_MARKS) else "utf-8-sig")
    except FileNotFoundError:
        raise MagiError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise MagiError(f"{path}: not a readable text file ({error})") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a `MagiError` that says what is wrong with it; see `parse_json`."""
    text = read_text(path, MAX_JSON_BYTES)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise MagiError(f"{path}: not a readable JSON file ({error})") from None
    if not isinstance(content, dict):
        raise MagiError(f"{path}: expected a JSON object")
    return content


def parse_json(text: str) -> Any:
    """JSON as its standard has it: no NaN or infinity, no number beyond 64 bits, no key twice in an object.

    Raises:
        ValueError: anything else, and nesting beyond Python's recursion.
    """
    try:
        return json.loads(
            text, parse_constant=_no_constant, parse_float=_float, parse_int=_integer, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -MAX_INTEGER <= int(digits) < MAX_INTEGER:
        raise ValueError(f"{digits[:20]}… is too large")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found
