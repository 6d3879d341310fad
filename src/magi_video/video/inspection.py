"""Looking through a video in a process of its own (`apart.py`), so that no file can stop or end ours.

A question is the path and whether it is only asked how the video is shown; the answer is what the video holds, or
whether it is shown as stored. `python -m magi_video.video.inspection` is that process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from magi_video.errors import MagiError
from magi_video.files.apart import Apart, DiedError, answer_questions
from magi_video.files.limits import VIDEO_MEMORY, VIDEO_SECONDS
from magi_video.video.video import VideoInfo, inspect_video, is_shown_as_stored

ATTEMPTS = 2
"""The first may have failed because the machine stood still."""


class Inspector(Apart):
    """`inspect_video` in a process of its own; see `Apart`."""

    def __init__(self, patience: float = VIDEO_SECONDS, command: list[str] | None = None) -> None:
        super().__init__(__name__, patience, command)

    def inspect(self, path: Path) -> VideoInfo:
        """As `inspect_video`.

        Raises:
            MagiError: as `inspect_video`; or the decoder hung or crashed.
        """
        return VideoInfo(**self._answer(path))

    def is_shown_as_stored(self, path: Path) -> bool:
        """As the function of this name; errors as of `inspect`."""
        return bool(self._answer(path, first_frame=True)["as_stored"])

    def _answer(self, path: Path, first_frame: bool = False) -> dict[str, Any]:
        message = ""
        for _ in range(ATTEMPTS):
            try:
                return self.ask([str(path.absolute()), first_frame])
            except DiedError as death:
                message = str(death)
        raise MagiError(f"{path}: {message}")


def answer(question: list[Any], show: Callable[[], None]) -> dict[str, Any]:
    """What is known of a video, in the process."""
    path, first_frame = Path(question[0]), question[1]
    if first_frame:
        return {"as_stored": is_shown_as_stored(path)}
    return asdict(inspect_video(path, on_frame=show))


if __name__ == "__main__":
    answer_questions(answer, VIDEO_MEMORY)
