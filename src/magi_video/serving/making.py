"""Frames that are being made: the model's stream of them, and the thread that works through them beside it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeVar

from magi_video.fast.beside import Beside

Frame = TypeVar("Frame")
Item = TypeVar("Item")


class Making(Generic[Frame, Item]):
    """A stream of frames, and what is done with each while the next one is made.

    Args:
        stream: of the frames.
        beside: takes what is `put`; None where each frame is dealt with before the next is made.
    """

    def __init__(self, stream: Generator[Frame], beside: Beside[Item] | None = None) -> None:
        self._stream, self._beside = stream, beside

    @property
    def has_room(self) -> bool:
        """Whether another frame may be made: the thread has not fallen behind."""
        return self._beside is None or self._beside.has_room

    @property
    def works_beside(self) -> bool:
        """Whether there is a thread."""
        return self._beside is not None

    def next(self) -> Frame | None:
        """The next frame; None after the last."""
        return next(self._stream, None)

    def put(self, item: Item) -> None:
        """Hand something to the thread; errors as of `Beside.put`."""
        assert self._beside is not None
        self._beside.put(item)

    def finish(self) -> None:
        """Wait until the thread is done with all that was put, and end it; errors as of `Beside.finish`."""
        if self._beside is not None:
            self._beside.finish()

    def settle(self) -> None:
        """`finish` after an error that is known already."""
        if self._beside is not None:
            self._beside.settle()

    def close(self) -> None:
        """Drop what waits, end the thread, and free what the stream holds."""
        if self._beside is not None:
            self._beside.close()
        self._stream.close()
