"""Digests of video files: of three blocks, read at every start; of all of a file, where it is decoded anyway."""

import hashlib
import os
from pathlib import Path

BLOCK = 2**14
"""Bytes that are read at each of three places of a file."""
DIGITS = 32
"""Hexadecimal digits that are kept of a SHA-256: two files of a data set that agree in them are the same."""


def sample_digest(path: Path) -> str:
    """Of a file's first, middle and last block; of all of a file that has no more than three.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        places = (0, size // 2 - BLOCK // 2, size - BLOCK) if size > 3 * BLOCK else range(0, size, BLOCK)
        digest = hashlib.sha256()
        for place in places:
            file.seek(place)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()[:DIGITS]


def content_digest(path: Path) -> str:
    """Of all of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
