"""Work on others' files in a process of its own, with limited memory and time, that is ended whole when it fails.

Decoders are large programs in C. One that hangs on a crafted file, takes all the memory or crashes ends its own process
alone. The process reads questions, a line of JSON each, and answers each in a line: an object, which has a "problem"
where the file is at fault; while it is at work it may write a sign of life now and then. Standard library alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from magi_video.errors import MagiError

READY = '"ready"'
ALIVE = "alive"
SECONDS_BETWEEN_SIGNS = 1.0
SOURCES = Path(__file__).parents[1]
SPARE_SECONDS = 5
"""After which a process ends itself that nobody ended: its parent has died."""


class DiedError(Exception):
    """The process hung or crashed over a question; the message says which."""


class Apart:
    """A process that answers questions, begun when first needed; not for two threads at once.

    Args:
        module: run as a program; it calls `answer_questions`.
        patience: seconds without an answer or a sign of life after which it is taken to hang.
        command: what is run instead, for tests.
    """

    def __init__(self, module: str, patience: float, command: list[str] | None = None) -> None:
        self.patience = patience
        # -P: no module is taken from the current folder, which may be the one with the videos
        self.command = command or [sys.executable, "-P", "-m", module]
        self._process: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def ask(self, question: list[Any]) -> dict[str, Any]:
        """The answer to a question.

        Raises:
            MagiError: the answer is a problem, which is the message; or the process does not even start.
            DiedError: it hung or crashed, and is gone; the next question begins another.
        """
        self.begin()
        late = threading.Event()
        answer = self._ask(question, late)
        if answer is None:
            code = self.end()
            raise DiedError(
                f"no new frame in {self.patience:g} s" if late.is_set() else f"its decoder crashed ({code})"
            )
        if answer.pop("last", False):
            self.end()
        if "problem" in answer:
            raise MagiError(answer["problem"])
        return answer

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

    def begin(self) -> None:
        """Start the process, unless it runs."""
        if self._process is not None:
            return
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
            raise MagiError(f"the process that reads videos does not start ({error})") from None
        self._process = process
        if process.stdout.readline() != READY + "\n":  # no file's fault: none shall be skipped for it
            raise MagiError(f"the process that reads videos does not start: {' '.join(self.command)}")

    def kill(self) -> None:
        """End the process at once, from any thread; a caller that waits for it gets a `DiedError`."""
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> int | None:
        """Kill the process; its exit code, None where there was none."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.stdin.close()
        process.stdout.close()
        return process.wait()


def answer_questions(
    answer: Callable[[list[Any], Callable[[], None]], dict[str, Any]], memory: int, seconds: int | None = None
) -> None:
    """What the process does: answer one question after another until no more come.

    Args:
        answer: from a question, whose first part is the file's path, and a function to call now and then as a sign of
            life, to what is known; raises `MagiError`.
        memory: bytes that the process may take beyond what it has now.
        seconds: for a question; the process ends itself soon after.
    """
    _limit_memory(memory)
    print(READY, flush=True)
    for line in sys.stdin:
        shown = time.monotonic()

        def show() -> None:
            nonlocal shown
            if time.monotonic() - shown > SECONDS_BETWEEN_SIGNS:
                shown = time.monotonic()
                print(json.dumps(ALIVE), flush=True)

        if seconds is not None and hasattr(signal, "alarm"):
            signal.alarm(seconds + SPARE_SECONDS)
        reply: dict[str, Any]
        question = json.loads(line)
        try:
            reply = answer(question, show)
        except MagiError as error:
            reply = {"problem": str(error)}
        except MemoryError:  # what is left of it may be too little for the next file
            reply = {"problem": f"{question[0]}: needs more than {memory >> 20} MiB of memory", "last": True}
        if seconds is not None and hasattr(signal, "alarm"):
            signal.alarm(0)
        print(json.dumps(reply), flush=True)


def _limit_memory(memory: int) -> None:
    try:
        import resource

        # Libraries reserve more addresses than they use: what they have so far does not count.
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError, ValueError):
        pass  # no such limit on this system
