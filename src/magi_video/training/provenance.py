"""What a run, or a cache of latents, was made of: recorded in it; other data is refused, or recorded as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from magi_video.data.identity import DataIdentity
from magi_video.errors import MagiError
from magi_video.files.atomic import write_bytes

LIST_FILE = "data.json"
"""Of a run: every video's name, length and digests. In `run.json` stand only how many they are, and one SHA-256."""
DATA, EARLIER = "data", "earlier_data"
"""Names in a record: of the data set, and of those before it."""


class Provenance:
    """The data of a run that begins or goes on, against what its folder records.

    Args:
        where: what is made of the data, for messages.
        now: the data set that is given.
        before: the data set that the folder lists; None if it lists none.

    Attributes:
        news: a line to tell; None if there is nothing.
    """

    def __init__(self, where: str, now: DataIdentity, before: DataIdentity | None) -> None:
        self.where, self.now, self.before = where, now, before
        self.news: str | None = None

    def carried(
        self, saved: dict[str, Any] | None, allowed: bool, moment: Callable[[], dict[str, Any]] = dict
    ) -> dict[str, Any]:
        """What a record holds of its data from now on.

        Args:
            saved: the record so far; None if there is none, or nothing was made of its data yet.
            allowed: whether other data may be taken.
            moment: until when the data before was used, for the list of earlier data.

        Raises:
            MagiError: other data than before, which is not allowed.
        """
        record = {DATA: self.now.record()}
        if saved is None:
            return record
        recorded, earlier = saved.get(DATA), saved.get(EARLIER)
        before = recorded if isinstance(recorded, dict) else self.before.record() if self.before else None
        earlier = list(earlier) if isinstance(earlier, list) else []
        if before is not None and (difference := self._difference(before)):
            if not allowed:
                raise MagiError(
                    f"{self.where} is of other data: {difference}; refused: give --allow-other-data to go on with it, "
                    "or another --out"
                )
            self.news = f"{self.where} goes on with other data: {difference}"
            earlier.append(before | {"difference": difference} | moment())
        elif before is None or recorded is None:
            self.news = f"{self.where} was begun before data was recorded: it is taken to be of these videos"
        elif not self.now.is_known:
            record = {DATA: before}  # a cache without digests says less than the record does
        return record | ({EARLIER: earlier} if earlier else {})

    def _difference(self, before: dict[str, Any]) -> str | None:
        """What the data of a record has become; None if it is the same, as far as both are known."""
        now = self.now.record()
        if before == now:
            return None
        if self.before is not None and self.before.record() == before:
            return self.before.difference(self.now)
        return f"{now['videos']} videos of {now['frames']} frames, not the {before.get('videos')} of before"

    def write_list(self, out: Path) -> None:
        """Keep the list of the videos; after the record, so that a list that is not the record's is known as such."""
        content = (json.dumps({"videos": self.now.to_json()}) + "\n").encode()
        path = out / LIST_FILE
        if self.now.is_known and not (path.is_file() and path.read_bytes() == content):
            write_bytes(path, content)
