"""The user's folder for what can be fetched or made again: weights, features, indices of videos, graphs."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

_reported: set[Path] = set()


def cache_folder() -> Path:
    """`$MAGI_CACHE`, or `~/.cache/magi-video`."""
    return Path(os.environ.get("MAGI_CACHE") or Path.home() / ".cache" / "magi-video")


def report_unusable_cache(say: Callable[[str], object]) -> None:
    """If nothing can be kept in the user's folder, say so in a line: once a process, since work goes on without it."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if folder not in _reported:
            _reported.add(folder)
            say(
                f"{folder}: nothing can be kept there ({error.strerror}), so graphs and features are made anew each "
                "time; MAGI_CACHE names the folder"
            )
