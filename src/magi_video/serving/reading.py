"""Visitors' files are decoded in processes of their own, with limited memory and time (`apart.py`).

A question is the file, the height and width of the frames wanted, how many of a clip, and where to put them; the answer
is how many there are. `python -m magi_video.serving.reading` is such a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from magi_video.errors import MagiError
from magi_video.files.apart import Apart, DiedError, answer_questions
from magi_video.files.limits import UPLOAD_MEMORY
from magi_video.video.image import fit_frames, read_image
from magi_video.video.video import read_in_order

READING_SECONDS = 20
PROCESSES = 2
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


class UploadReaders:
    """The processes; made in the event loop, begun when first needed.

    Args:
        seconds: for one file.
        command: what is run, for tests.
    """

    def __init__(self, seconds: float = READING_SECONDS, command: list[str] | None = None) -> None:
        self._all = [Apart(__name__, seconds, command) for _ in range(PROCESSES)]
        self._idle: asyncio.LifoQueue[Apart] = asyncio.LifoQueue()  # the one last used is there already
        self._beginning: set[asyncio.Task[None]] = set()
        for process in self._all:
            self._idle.put_nowait(process)

    def prepare(self) -> None:
        """Begin one of them, so that the first file need not wait for it."""
        if not self._idle.empty():
            self._begin(self._idle.get_nowait())

    def _begin(self, process: Apart) -> None:
        async def begin() -> None:
            try:
                with contextlib.suppress(MagiError):  # reported where it is needed
                    await asyncio.to_thread(process.begin)
            finally:
                self._idle.put_nowait(process)

        task = asyncio.create_task(begin())
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def read(self, path: Path, height: int, width: int, max_frames: int) -> np.ndarray:
        """Reads a received file: uint8 [K, height, width, 3], one frame of a picture, at most `max_frames` of a clip.

        Args:
            path: the file; it is renamed to a suffix that fits its content, and removed.
            height, width: of the model's frames in pixels.
            max_frames: of a clip; what follows is not read.

        Raises:
            MagiError: the content is no picture or clip that is read here, or is damaged, too large or too slow to
                read; the message has no path.
        """
        path = path.rename(path.with_suffix(suffix_of(path)))
        made = path.with_name(f"frames-{secrets.token_hex(16)}")
        process = await self._idle.get()
        reading = asyncio.ensure_future(
            asyncio.to_thread(process.ask, [str(path), height, width, max_frames, str(made)])
        )
        try:
            found = await asyncio.shield(reading)
            count, size = found.get("frames"), made.stat().st_size
            if type(count) is not int or not 1 <= count <= max_frames or size != count * height * width * 3:
                raise MagiError("this file cannot be read")
            return np.fromfile(made, np.uint8).reshape(count, height, width, 3)
        except MagiError as error:
            raise MagiError(str(error).replace(str(path), "this file")) from None
        except DiedError as death:
            slow = "takes too long to read; expected a smaller or shorter clip"
            raise MagiError(f"this file {slow if 'no new frame' in str(death) else 'cannot be read'}") from None
        finally:
            if not reading.done():  # its sender has gone
                process.kill()
                await asyncio.wait((reading,))
            path.unlink(missing_ok=True)
            made.unlink(missing_ok=True)
            self._begin(process)

    async def close(self) -> None:
        """End the processes."""
        if self._beginning:
            await asyncio.wait(self._beginning)
        for process in self._all:
            process.end()


def suffix_of(path: Path) -> str:
    """The suffix that fits a file's content; `MagiError` where it is none of the kinds that are read."""
    with path.open("rb") as file:
        head = file.read(16)
    suffix = next((name for name, fits in (PICTURES | CLIPS).items() if fits(head)), None)
    if suffix is None:
        raise MagiError(f"this file cannot be used: expected {EXPECTED}")
    return suffix


def answer(question: list[Any], show: Callable[[], None]) -> dict[str, Any]:
    """Decodes a file, in the process, and writes its frames, reduced to the model's size, to another."""
    path, made = Path(question[0]), Path(question[4])
    frames_THWC = decode(path, *question[1:4])
    made.write_bytes(frames_THWC.tobytes())
    return {"frames": len(frames_THWC)}


def decode(path: Path, height: int, width: int, max_frames: int) -> np.ndarray:
    """The frames of a picture or clip, by its suffix, as `UploadReaders.read` gives them; here, without any limits."""
    try:
        if path.suffix in PICTURES:
            return fit_frames(read_image(path)[None], height, width)
        frames = _clip(path, height, width, max_frames)
    except RuntimeError as error:
        if "allocate" in str(error):  # PyTorch's word for it
            raise MemoryError from None
        raise
    if not frames:
        raise MagiError(f"{path}: zero frames")
    return np.stack(frames)


def _clip(path: Path, height: int, width: int, max_frames: int) -> list[np.ndarray]:
    stop = time.monotonic() + READING_SECONDS
    frames: list[np.ndarray] = []
    for frame_THWC in islice(read_in_order(path, 1), max_frames):
        frames.append(fit_frames(frame_THWC, height, width)[0])
        if time.monotonic() > stop:
            raise MagiError(f"{path}: takes too long to read; expected a smaller or shorter clip")
    return frames


if __name__ == "__main__":
    answer_questions(answer, UPLOAD_MEMORY, READING_SECONDS)
