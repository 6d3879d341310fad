"""Files written completely or not at all: under a temporary name first, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from magi_video.errors import MagiError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; renames it on success, removes it otherwise. An OSError
    becomes a MagiError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise MagiError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if part.exists():
            part.unlink()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a dictionary as JSON."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
