"""Pictures and clips that visitors begin from, kept for a while as the few small frames that the model needs."""

import secrets
import time
from dataclasses import dataclass, field

import numpy as np

from magi_video.errors import MagiError
from magi_video.serving.limits import ServingLimits

MAX_UPLOADS = 32


@dataclass
class Upload:
    """What is left of an uploaded file: uint8 [K, height, width, 3] at the model's size; and whose it is."""

    frames_THWC: np.ndarray
    address: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    seen: float = field(default_factory=time.monotonic)


class Uploads:
    """The uploads at hand. Old ones make room for new ones: an address's own where it has more than its share."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._by_token: dict[str, Upload] = {}

    def add(self, frames_THWC: np.ndarray, address: str) -> Upload:
        """Keep an upload of an address under a random token."""
        upload = Upload(frames_THWC, address)
        self._by_token[upload.token] = upload
        own = [one for one in self._by_token.values() if one.address == address]
        self._make_room(own, self._limits.share(MAX_UPLOADS), self._limits.max_share)
        self._make_room(list(self._by_token.values()), MAX_UPLOADS, 1)
        return upload

    def _make_room(self, uploads: list[Upload], most: int, share: float) -> None:
        while len(uploads) > 1 and (
            len(uploads) > most
            or sum(one.frames_THWC.nbytes for one in uploads) > share * self._limits.max_kept_mb * 10**6
        ):
            del self._by_token[uploads.pop(0).token]

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
