"""The user's folder for what can be fetched or made again: weights, features, indices of videos, graphs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$MAGI_CACHE`, or `~/.cache/magi-video`."""
    return Path(os.environ.get("MAGI_CACHE") or Path.home() / ".cache" / "magi-video")
