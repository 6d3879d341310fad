"""Looking through a video in a process of its own, so that no file can stop or end ours.

Decoders are large programs in C. One that hangs on a crafted file, takes all the memory or crashes is ended here, and
the file is told of like any other that cannot be read. The process reads questions, each a JSON list of the path and
whether it is only asked how the video is shown, and answers each in a line: what the video holds or whether it is shown
as stored, or why it cannot be used; while it is at work it writes a sign of life now and then.
`python -m magi_video.data.inspection` is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from magi_video.data.video import VideoInfo, inspect_video, is_shown_as_stored
from magi_video.errors import MagiError
from magi_video.limits import VIDEO_MEMORY, VIDEO_SECONDS

READY = '"ready"'
ALIVE = "alive"
SECONDS_BETWEEN_SIGNS = 1.0
ATTEMPTS = 2
"""The first may have failed because the machine stood still."""
SOURCES = Path(__file__).parents[2]


class Inspector:
    """`inspect_video` in a process of its own, begun when first needed; not for two threads at once.

    Args:
        patience: seconds without a new frame after which a decoder is taken to hang.
        command: what is run, for tests.
    """

    def __init__(self, patience: float = VIDEO_SECONDS, command: list[str] | None = None) -> None:
        self.patience = patience
        # -P: no module is taken from the current folder, which may be the one with the videos
        self.command = command or [sys.executable, "-P", "-m", __name__]
        self._process: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

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
        told = ""
        for _ in range(ATTEMPTS):
            if self._process is None:
                self._begin()
            late = threading.Event()
            answer = self._ask([str(path.absolute()), first_frame], late)
            if answer is None:
                code = self._end()
                told = f"no new frame in {self.patience:g} s" if late.is_set() else f"its decoder crashed ({code})"
            elif "problem" in answer:
                raise MagiError(answer["problem"])
            else:
                return answer
        raise MagiError(f"{path}: {told}")

    def _ask(self, question: list[Any], late: threading.Event) -> dict[str, Any] | None:
        """The answer; None if the process ended, by itself or because it was `late`."""
        process = self._process

        def give_up() -> None:
            late.set()
            process.kill()

        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        except OSError:
            return None
        while True:
            timer = threading.Timer(self.patience, give_up)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line.endswith("\n"):
                return None
            content = json.loads(line)
            if content != ALIVE:
                return content

    def _begin(self) -> None:
        paths = [str(SOURCES), os.environ.get("PYTHONPATH", "")]
        try:
            process: Any = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise MagiError(f"the process that looks through videos does not start ({error})") from None
        self._process = process
        if process.stdout.readline() != READY + "\n":  # no file's fault: none shall be skipped for it
            raise MagiError(f"the process that looks through videos does not start: {' '.join(self.command)}")

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.stdin.close()
        process.stdout.close()
        return process.wait()


def serve() -> None:
    """Answer one question after another until no more come."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (VIDEO_MEMORY, VIDEO_MEMORY))
    except (ImportError, OSError, ValueError):
        pass  # no such limit on this system
    print(READY, flush=True)
    for line in sys.stdin:
        name, first_frame = json.loads(line)
        path = Path(name)
        shown = time.monotonic()

        def show() -> None:
            nonlocal shown
            if time.monotonic() - shown > SECONDS_BETWEEN_SIGNS:
                shown = time.monotonic()
                print(json.dumps(ALIVE), flush=True)

        answer: dict[str, Any]
        try:
            if first_frame:
                answer = {"as_stored": is_shown_as_stored(path)}
            else:
                answer = asdict(inspect_video(path, on_frame=show))
        except MagiError as error:
            answer = {"problem": str(error)}
        except MemoryError:
            answer = {"problem": f"{path}: needs more than {VIDEO_MEMORY >> 20} MiB of memory"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
