"""Pictures and clips that visitors begin from: received into a file of our own naming, checked, read, and reduced at
once to the few small frames that the model needs."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from magi_video.data.image import fit_frames, read_image
from magi_video.data.video import read_in_order
from magi_video.errors import MagiError
from magi_video.serving.limits import ServingLimits

READING_SECONDS = 20.0
MAX_UPLOADS = 32
PICTURES: dict[str, Callable[[bytes], bool]] = {
    ".png": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    ".jpg": lambda head: head.startswith(b"\xff\xd8\xff"),
    ".webp": lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP",
    ".bmp": lambda head: head.startswith(b"BM"),
}
CLIPS: dict[str, Callable[[bytes], bool]] = {
    ".mp4": lambda head: head[4:8] == b"ftyp",
    ".webm": lambda head: head.startswith(b"\x1a\x45\xdf\xa3"),
    ".avi": lambda head: head.startswith(b"RIFF") and head[8:12] == b"AVI ",
    ".gif": lambda head: head.startswith((b"GIF87a", b"GIF89a")),
}
EXPECTED = "a picture (PNG, JPEG, WebP, BMP) or a clip (MP4, MOV, WebM, MKV, AVI, GIF)"


@dataclass
class Upload:
    """What is left of an uploaded file: uint8 [K, height, width, 3] at the model's size."""

    frames_THWC: np.ndarray
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    seen: float = field(default_factory=time.monotonic)


class Uploads:
    """The uploads at hand; the oldest make room for new ones."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._by_token: dict[str, Upload] = {}

    def add(self, frames_THWC: np.ndarray) -> Upload:
        """Keep an upload under a random token."""
        upload = Upload(frames_THWC)
        self._by_token[upload.token] = upload
        while len(self._by_token) > 1 and self._too_many():
            self._by_token.pop(next(iter(self._by_token)))
        return upload

    def _too_many(self) -> bool:
        held = sum(upload.frames_THWC.nbytes for upload in self._by_token.values())
        return len(self._by_token) > MAX_UPLOADS or held > self._limits.max_kept_mb * 10**6

    def find(self, token: str) -> Upload:
        """The upload of that token, or a `MagiError`."""
        upload = self._by_token.get(token)
        if upload is None:
            raise MagiError("this upload is no longer here: please choose the file again")
        upload.seen = time.monotonic()
        return upload

    def sweep(self) -> None:
        """Forget what was not used for a while."""
        oldest = time.monotonic() - self._limits.keep_seconds
        for token in [token for token, upload in self._by_token.items() if upload.seen < oldest]:
            del self._by_token[token]


def read_upload(path: Path, height: int, width: int, max_frames: int) -> np.ndarray:
    """Reads a received file: uint8 [K, height, width, 3], one frame of a picture, at most `max_frames` of a clip.

    Args:
        path: the file; it is renamed to a suffix that fits its content.
        height, width: of the model's frames in pixels.
        max_frames: of a clip; what follows is not read.

    Raises:
        MagiError: the content is no picture or clip that is read here, or is damaged, too large or too slow to read;
            told without any path.
    """
    with path.open("rb") as file:
        head = file.read(16)
    suffix = next((name for name, fits in (PICTURES | CLIPS).items() if fits(head)), None)
    if suffix is None:
        raise MagiError(f"this file cannot be used: expected {EXPECTED}")
    path = path.rename(path.with_suffix(suffix))
    try:
        if suffix in PICTURES:
            return fit_frames(read_image(path)[None], height, width)
        return _read_clip(path, height, width, max_frames)
    except MagiError as error:
        raise MagiError(str(error).replace(str(path), "this file")) from None
    finally:
        path.unlink(missing_ok=True)


def _read_clip(path: Path, height: int, width: int, max_frames: int) -> np.ndarray:
    frames: list[np.ndarray] = []
    stop = time.monotonic() + READING_SECONDS
    for frame_THWC in islice(read_in_order(path, 1), max_frames):
        frames.append(fit_frames(frame_THWC, height, width)[0])
        if time.monotonic() > stop:
            raise MagiError(f"{path}: takes too long to read; expected a smaller or shorter clip")
    return np.stack(frames)
