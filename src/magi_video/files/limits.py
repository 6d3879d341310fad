"""How much is read of files that others wrote before they are refused (docs/limits.md).

Each limit can be raised by an environment variable of its name with MAGI_ before it: `MAGI_MAX_FRAMES=5000000`.
Standard library alone.
"""

import os


def limit(name: str, default: int) -> int:
    """The value of `MAGI_<name>`; the default where there is none or no whole number above zero."""
    given = os.environ.get(f"MAGI_{name}", "")
    return int(given) if given.isdecimal() and len(given) < 19 and int(given) > 0 else default


def machine_memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")


FOLLOW_LINKS = "MAGI_FOLLOW_LINKS"


def follows_links() -> bool:
    """Whether links out of a folder of videos are used (`magi --follow-links`, or 1 in the environment)."""
    return os.environ.get(FOLLOW_LINKS, "") not in ("", "0")


MAX_PIXELS = limit("MAX_PIXELS", 2**25)
"""Of one picture or frame: a little more than 8K UHD."""
MAX_FRAMES = limit("MAX_FRAMES", 2**20)
"""Of one video: 11 hours at 25 frames/s."""
MAX_READ_BYTES = limit("MAX_READ_BYTES", 2**33)
"""Of the decoded frames of one call of `read_frames`."""
MAX_EPISODE_BYTES = limit("MAX_EPISODE_BYTES", 2**29)
"""Of the actions of one episode, or of one file of them, as an import holds them in memory."""
MAX_PICTURE_BYTES = limit("MAX_PICTURE_BYTES", 2**28)
"""Of a picture file."""
MAX_JSON_BYTES = limit("MAX_JSON_BYTES", 10_000_000)
"""Of a JSON file, and of the header of a weights file."""
MAX_TEXT_BYTES = limit("MAX_TEXT_BYTES", 2**28)
"""Of a list of videos, and of the actions of one video."""
MAX_TOKENIZER_BYTES = limit("MAX_TOKENIZER_BYTES", 2**26)
"""Of each file of a text encoder's tokenizer."""
MAX_TENSORS = limit("MAX_TENSORS", 20_000)
"""Of one model."""
VIDEO_SECONDS = limit("VIDEO_SECONDS", 60)
"""Without a new frame, after which a decoder is taken to hang."""
VIDEO_MEMORY = limit("VIDEO_MEMORY", 2**32)
"""Bytes that the process that looks through new videos may take beyond its libraries."""
UPLOAD_MEMORY = limit("UPLOAD_MEMORY", 2**30)
"""Bytes that a process that reads a visitor's file may take beyond its libraries."""
LOADER_SECONDS = limit("LOADER_SECONDS", 900)
"""That training waits for a batch of a process that loads data."""
