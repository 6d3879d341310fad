"""Where weights, features and indices of videos are kept between calls."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where weights and features are kept: `$MAGI_CACHE`, or `~/.cache/magi-video`."""
    return Path(os.environ.get("MAGI_CACHE") or Path.home() / ".cache" / "magi-video")
