"""Leaving in good order: on a signal training finishes its step, saves, and says how to go on.

Other work ends at once, by an exception: what it writes is written completely or not at all.

Schedulers send SIGTERM when they preempt a job, and SIGUSR1 (or what one asks for) ahead of its time limit; a person
presses Ctrl-C. A second Ctrl-C stops at once. Signals often go to all processes of a job, those that load data as well,
and launchers pass on what everybody has got already.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from magi_video.errors import Interrupted, MagiError
from magi_video.training.display import TITLES, Display

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
NOTICE = b"\nstopping as soon as what is done can be saved; Ctrl-C again stops at once\n"
ECHO = 2.0
"""Seconds within which the same signal again is a launcher's doing."""


class StoppedError(MagiError):
    """Training was asked to stop and has saved what it did.

    The exit code is not 0, so that a script does not take a part of the training for the whole. It is what a shell
    reports of a process that the signal ended: 128 plus its number, whether or not there was something to save.
    """

    def __init__(self, number: int | None, done: str) -> None:
        number = number or signal.SIGTERM  # another process got the signal, this one did not
        super().__init__(f"stopped by {signal.Signals(number).name} {done}; the same command continues")
        self.number, self.done = number, done
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[Any, ...]:  # it travels between processes
        return type(self), (self.number, self.done)


class StopSignals:
    """Takes the signals that ask to stop, while it is entered: noted where work is `held`, elsewhere they end it.

    Attributes:
        received: the first that was noted; None so far.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._time, self._held = -ECHO, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # Python hands signals to no other
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """For work that stops in good order by itself: while this is entered a signal is noted, for `check`."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._held:
            if time.monotonic() > self._time + ECHO:
                self._time = time.monotonic()
                raise Interrupted(number)
        elif self.received is None:
            self.received, self._time = number, time.monotonic()
            if number == signal.SIGINT and os.environ.get("RANK", "0") == "0":  # a print could be interrupting another
                os.write(2, NOTICE)
        elif number == signal.SIGINT and time.monotonic() > self._time + ECHO:
            raise Interrupted(number)

    def check(self, stage: str) -> None:
        """Leave a stage that keeps what it has done by itself.

        Raises:
            StoppedError: a signal came.
        """
        if self.received is not None:
            raise StoppedError(self.received, f"while {stage}")


class StoppingDisplay:
    """A display that leaves a stage at its next step, once a signal has come; for stages that keep what they have done.

    Args:
        display: shows the progress.
        signals: that ask to stop.
    """

    def __init__(self, display: Display, signals: StopSignals) -> None:
        self.display, self.signals, self.name = display, signals, ""

    def say(self, text: str) -> None:
        """A line of news."""
        self.display.say(text)

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins."""
        self.name = name
        self.display.stage(name, total)

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """So much of the stage is done.

        Raises:
            StoppedError: a signal came.
        """
        self.display.advance(done, figures)
        self.signals.check(TITLES.get(self.name, self.name))


def ignore_stop_signals(worker: int) -> None:
    """For processes that load data: they end when training ends, not before (`worker_init_fn` of a `DataLoader`)."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
