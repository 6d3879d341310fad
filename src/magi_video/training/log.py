"""`log.jsonl`: the figures of the logged steps, a line each."""

import json
from pathlib import Path

from magi_video.files.atomic import replacing


def append_log(path: Path, figures: dict[str, float]) -> None:
    """Add a step."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(figures) + "\n")


def cut_log(path: Path, step: int) -> None:
    """Drop what was logged after a step, which will be made again, and a line that was not finished."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with replacing(path) as part:
        part.write_text("".join(kept), encoding="utf-8")
