"""How a long task goes, on standard error: bars on a terminal; elsewhere plain lines, by time.

Whatever it does, a task says it within ten seconds, again every quarter of a minute, and how long it is going to take
as soon as a few steps show it. A thread prints it, since a task may be busy in one long step.
"""

import os
import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn

from magi_video.training.display import TITLES, duration

FIRST_LINE, LINE_EVERY = 5.0, 15.0
"""Seconds until a task says what it does, and from one plain line to the next."""
STEPS_TO_ESTIMATE = 3
"""Steps after which the time that is left is estimated."""


def is_main_process() -> bool:
    """Whether this process is the one that prints, of those that `accelerate launch` started."""
    return int(os.environ.get("RANK", "0")) == 0


class TaskDisplay:
    """Shows a task that has stages; only the main process does.

    Args:
        first: what is done before the first stage.
        console: where; standard error if not given.
        clock: seconds.
    """

    def __init__(
        self, first: str = "starting", console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console or Console(stderr=True)
        self.clock = clock
        self.plain = not self.console.is_terminal
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=self.plain or not is_main_process(),
        )
        self.waiting: TaskID | None = None
        self.tasks: dict[str, TaskID] = {}
        self.ended = threading.Event()
        self.last_line = ""
        self.first: tuple[int, float] | None = None
        self._begin(first, None)

    def __enter__(self) -> "TaskDisplay":
        if is_main_process():
            self.progress.start()
            if not self.progress.disable:
                self.waiting = self.progress.add_task(self.title, total=None, figures="")
            if self.plain:
                threading.Thread(target=self._print_by_time, daemon=True, name="progress").start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.progress.stop()

    def say(self, text: str) -> None:
        """A line of news."""
        if is_main_process():
            self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage of so many steps; of an unknown number (None); or one that there is nothing to do in (0)."""
        if total == 0:
            return
        title = TITLES.get(name, name)
        self._begin(title, total)
        if not self.progress.disable:
            if self.waiting is not None:
                self.progress.remove_task(self.waiting)
                self.waiting = None
            self.tasks[name] = self.progress.add_task(title, total=total, figures="")
        elif self.plain:
            self.say(title if total is None else f"{title}: {total}")

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """So much of the stage is done."""
        if self.first is None:
            self.first = (done, self.clock())
        self.done, self.figures = done, self._text(figures or {})
        if not self.progress.disable and self.tasks:
            self.progress.update(next(reversed(self.tasks.values())), completed=done, figures=self._beside())
        elif self.plain and done == self.total:
            self.print_line()

    def show(self, stage: str, done: int, total: int | None) -> None:
        """So much of a stage is done, which begins by it: `stage` and `advance` in one, as a callback."""
        if TITLES.get(stage, stage) != self.title or total != self.total:
            self.stage(stage, total)
        self.advance(done)

    def print_line(self) -> None:
        """Print a plain line of how it goes, unless it was the last one."""
        count = "" if self.total is None else f": {self.done}/{self.total}"
        line = self.title + count + (f" {beside}" if (beside := self._beside()) else "")
        if line != self.last_line:
            self.say(line)
        self.last_line = line

    def left(self) -> float | None:
        """Seconds that the stage is going to take from here on, at its pace so far; None while that is unknown."""
        if self.first is None or self.total is None or self.done >= self.total:
            return None
        steps, seconds = self.done - self.first[0], self.clock() - self.first[1]
        if steps < STEPS_TO_ESTIMATE:
            return None
        return (self.total - self.done) * seconds / steps

    def _begin(self, title: str, total: int | None) -> None:
        self.title, self.total, self.done, self.figures, self.speed = title, total, 0, "", 0.0
        self.began, self.first = self.clock(), None

    def _print_by_time(self) -> None:
        wait = FIRST_LINE
        while not self.ended.wait(wait):
            self.print_line()
            wait = LINE_EVERY

    def _beside(self) -> str:
        """The figures, and the time."""
        left = self.left()
        if left is not None:
            moment = f"about {duration(left)} left"
        else:
            moment = f"{duration(self.clock() - self.began)} so far" if self.done != self.total else ""
        return " · ".join(one for one in (self.figures, moment) if one)

    def _text(self, figures: dict[str, float]) -> str:
        parts = []
        if "loss" in figures:
            parts.append(f"loss {figures['loss']:.4f}")
        if "psnr" in figures:
            parts.append(f"{figures['psnr']:.1f} dB")
        if figures.get("perplexity"):  # of a window of steps, the first of which is not over at the beginning
            parts.append(f"{figures['codes_used']:.0%} of the codes, perplexity {figures['perplexity']:.0f}")
        if "clips_per_second" in figures:
            now = figures["clips_per_second"]
            self.speed = 0.95 * self.speed + 0.05 * now if self.speed else now
            parts.append(f"{self.speed:.3g} clips/s")
        if figures.get("skipped"):
            parts.append(f"{figures['skipped']:.0f} skipped")
        return " · ".join(parts)
