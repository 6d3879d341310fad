"""The one thread that uses the model: everybody's frames, one at a time, in fair turns.

A task is a video in the making or somebody's game. A turn is one frame. The next turn goes to the task, of those that
are due, that has had the least of the thread's time; who was not due meanwhile saves nothing up. So a game, which is
due a few times a second, is served at once, and two videos get equal time whatever their settings cost.
"""

import logging
import math
import threading
import time

import torch

from magi_video.errors import MagiError
from magi_video.serving.errors import WITHHELD, public_message

logger = logging.getLogger(__name__)
LONGEST_WAIT = 0.5
LONGEST_END = 30.0
"""Seconds that the server waits for the last frame when it ends."""


class Task:
    """Something that is made frame by frame. Its methods are called in the worker's thread alone."""

    used = 0.0
    """Seconds of the worker's time, on the scale by which turns are given."""

    def due(self, now: float) -> float:
        """When the next frame may be made, as `time.monotonic` tells it; infinity: not before `Worker.wake`."""
        raise NotImplementedError

    def step(self) -> bool:
        """Make a frame; False where it was the last. A MagiError ends the task; its owner gets the `public_message`."""
        raise NotImplementedError

    def fail(self, reason: str) -> None:
        """A step failed for this reason, one line without anything private."""
        raise NotImplementedError

    def close(self) -> None:
        """Called once, when the task is over or has been removed."""


class Worker:
    """The thread; `start` it, `add` tasks, `stop` it. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._removed: list[Task] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._clock = 0.0
        self._thread = threading.Thread(target=self._run, name="magi-worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the frame at hand, close all tasks, end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(LONGEST_END)

    def add(self, task: Task) -> None:
        """Take up a task."""
        with self._changed:
            task.used = self._clock
            self._tasks.append(task)
            self._changed.notify()

    def remove(self, task: Task) -> None:
        """Drop a task; it is closed after the frame at hand."""
        with self._changed:
            if task in self._tasks:
                self._tasks.remove(task)
                self._removed.append(task)
                self._changed.notify()

    def wake(self) -> None:
        """Look again who is due."""
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        with torch.inference_mode():
            while (task := self._next()) is not None:
                began = time.perf_counter()
                try:
                    if not task.step():
                        self.remove(task)
                except Exception as error:
                    self._fail(task, error)
                task.used += time.perf_counter() - began
        for task in self._tasks + self._removed:
            self._close(task)

    def _fail(self, task: Task, error: Exception) -> None:
        """End a task that raised. A defect of one must not end everybody's games, so nothing is raised here."""
        try:
            if isinstance(error, MagiError):
                reason = public_message(error)
            else:
                logger.error("a frame could not be made", exc_info=error)
                reason = WITHHELD
            task.fail(reason)
        except Exception:
            logger.exception("the owner of a failed task could not be informed")
        self.remove(task)

    def _close(self, task: Task) -> None:
        try:
            task.close()
        except Exception:
            logger.exception("a task could not be closed")

    def _next(self) -> Task | None:
        """Waits for a task that is due; None when the thread shall end."""
        while True:
            due: dict[Task, float] = {}
            failed: dict[Task, Exception] = {}
            with self._changed:
                removed, self._removed = self._removed, []
                if self._stopping:
                    self._removed = removed
                    return None
                now = time.monotonic()
                for one in self._tasks:
                    try:
                        due[one] = one.due(now)
                    except Exception as error:
                        failed[one] = error
                ready = [task for task, when in due.items() if when <= now]
                if ready:
                    task = min(ready, key=lambda one: one.used)
                    self._clock = max(self._clock, task.used)
                    for other in self._tasks:
                        if other not in ready:
                            other.used = max(other.used, self._clock)
                elif not removed and not failed:
                    self._changed.wait(min(LONGEST_WAIT, min(due.values(), default=math.inf) - now))
            # Without the lock: both may wait for a thread that calls `wake`.
            for one in removed:
                self._close(one)
            for one, why in failed.items():
                self._fail(one, why)
            if ready:
                return task
