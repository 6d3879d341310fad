"""Which videos a data set is made of: names, lengths and contents, so that another one is never taken for it.

Two digests a file. The *sample*, of its first, middle and last block, is read of every file at every start: what
replaces a video under its name is found, whatever its size and time. The *content*, of all of it, is read where a file
is looked through anyway, since that decodes it; it is what runs, caches and scores record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magi_video.data.digests import DIGITS
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.files.json import parse_json, read_text

LISTED = 3
"""Names in a message."""


def track_digest(names: Sequence[str], actions_TA: np.ndarray | None) -> str:
    """Of a video's recorded actions: of the columns that are not zero throughout, since others come and go with the
    other videos of a data set; "" where nothing is recorded."""
    if actions_TA is None:
        return ""
    digest = hashlib.sha256()
    for name, column_T in sorted(zip(names, actions_TA.T, strict=True), key=lambda pair: pair[0]):
        if column_T.any():
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + np.ascontiguousarray(column_T).tobytes())
    return digest.hexdigest()[:DIGITS]


class Facts(NamedTuple):
    """Of one video: its length, how it is shown (see `VideoInfo`), the digest of its file ("" where it is not known),
    and that of its recorded actions."""

    frames: int
    shown: str
    content: str
    actions: str

    def change(self, now: Facts) -> str | None:
        """What has become of the video, as far as it can be said; None if both may be the same: a content that is not
        known may be any."""
        if self.frames != now.frames:
            return f"of {now.frames} frames, not {self.frames}"
        if self.shown != now.shown:
            return f"shown as {now.shown or 'stored'}, not as {self.shown or 'stored'}"
        if self.content and now.content and self.content != now.content:
            return ""
        return None if self.actions == now.actions else "with other actions"


@dataclass(frozen=True)
class DataIdentity:
    """Of a data set, whatever folder it lies in.

    Attributes:
        videos: by name below the data set's root, "/" between its parts.
    """

    videos: dict[str, Facts]

    @classmethod
    def of(cls, folder: VideoFolder) -> DataIdentity:
        """Of videos that are at hand, or of what a latent cache knows of them."""
        names = folder.action_names
        return cls(
            {
                name: Facts(video.num_frames, video.shown, video.content, track_digest(names, folder.actions(number)))
                for number, (name, video) in enumerate(zip(folder.names, folder.videos, strict=True))
            }
        )

    def without_actions(self) -> DataIdentity:
        """The same for what reads the videos alone, as a codec does."""
        return DataIdentity({name: facts._replace(actions="") for name, facts in self.videos.items()})

    @property
    def is_known(self) -> bool:
        """Whether every file's content is."""
        return all(facts.content for facts in self.videos.values())

    def record(self) -> dict[str, Any]:
        """What a record holds of a data set: numbers, and a SHA-256 of names, lengths and contents."""
        frames = sum(facts.frames for facts in self.videos.values())
        text = json.dumps(sorted(self.videos.items()))
        return {
            "videos": len(self.videos),
            "frames": frames,
            "sha256": hashlib.sha256(text.encode()).hexdigest() if self.is_known else None,
        }

    def difference(self, now: DataIdentity) -> str | None:
        """What has become of these videos: "3 videos gone, 3 new, 1 changed (gone: a.mp4 …)"; None if all are there
        and the same, and no other. A content that is not known of one side may be any."""
        gone = [name for name in self.videos if name not in now.videos]
        new = [name for name in now.videos if name not in self.videos]
        both = [name for name in self.videos if name in now.videos]
        changes = {name: change for name in both if (change := self.videos[name].change(now.videos[name])) is not None}
        changed = [" ".join(filter(None, pair)) for pair in changes.items()]
        kinds = {"gone": gone, "new": new, "changed": changed}
        if not any(kinds.values()):
            return None
        counts = [f"{len(names)} {kind}" for kind, names in kinds.items() if names]
        first, _, kind = counts[0].partition(" ")
        counts[0] = f"{first} {'video' if first == '1' else 'videos'} {kind}"
        kind, names = next((kind, names) for kind, names in kinds.items() if names)
        more = " …" if len(names) > LISTED else ""
        return f"{', '.join(counts)} ({kind}: {', '.join(names[:LISTED])}{more})"

    def to_json(self) -> dict[str, Any]:
        """As a file holds it."""
        return {name: list(facts) for name, facts in self.videos.items()}

    @classmethod
    def read(cls, path: Path) -> DataIdentity | None:
        """What a file of `to_json` under "videos" holds; None if there is none that can be read."""
        try:
            videos = parse_json(read_text(path))["videos"]
            found = {
                str(name): Facts(int(frames), str(shown), str(content), str(actions))
                for name, (frames, shown, content, actions) in videos.items()
            }
        except (MagiError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return cls(found)
