"""Progress on the terminal: bars by rich, which fall silent where there is no terminal."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)

LINE_EVERY = 50
"""Training steps from one plain line to the next where there is no terminal."""


def make_progress() -> Progress:
    """A progress display with count and time left."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
    )


@contextmanager
def bar(name: str, total: int, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """A bar for one loop; call what is yielded with (done, total)."""
    if not is_main_process():
        yield lambda done, total: None
        return
    with make_progress() as progress:
        task = progress.add_task(name, total=total, figures=unit)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def is_main_process() -> bool:
    """Whether this process is the one that tells, of those that `accelerate launch` started."""
    return int(os.environ.get("RANK", "0")) == 0


class StageBars:
    """A bar for each stage of a longer task, made when the stage begins; only the main process shows them."""

    def __init__(self) -> None:
        self.progress = make_progress()
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "StageBars":
        if is_main_process():
            self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """So much of a stage is done."""
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total, figures="")
        self.progress.update(self.tasks[stage], completed=done)


class TrainingDisplay:
    """Bars for the stages of training; a plain line now and then where there is no terminal."""

    titles = {"codec": "training the codec", "latents": "encoding latents", "model": "training the model"}  # noqa: RUF012

    def __init__(self) -> None:
        self.progress = make_progress()
        self.task: TaskID | None = None
        self.name = ""
        self.total = 0
        self.speed = 0.0

    def __enter__(self) -> "TrainingDisplay":
        if is_main_process():
            self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """A line above the bars."""
        if is_main_process():
            self.progress.console.print(text, highlight=False)

    def stage(self, name: str, total: int) -> None:
        """Begin a bar; a stage of nothing has none."""
        self.name, self.total, self.speed = name, total, 0.0
        self.task = self.progress.add_task(self.titles[name], total=total, figures="") if total else None

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """Move the bar and show the figures."""
        if self.task is None:
            return
        text = self._text(figures or {})
        self.progress.update(self.task, completed=done, figures=text)
        if figures and not console.is_terminal and (done % LINE_EVERY == 0 or done == self.total):
            self.say(f"{self.titles[self.name]}: step {done}/{self.total} {text}")

    def _text(self, figures: dict[str, float]) -> str:
        parts = []
        if "loss" in figures:
            parts.append(f"loss {figures['loss']:.4f}")
        if "psnr" in figures:
            parts.append(f"{figures['psnr']:.1f} dB")
        if "clips_per_second" in figures:
            now = figures["clips_per_second"]
            self.speed = 0.95 * self.speed + 0.05 * now if self.speed else now
            parts.append(f"{self.speed:.1f} clips/s")
        if figures.get("skipped"):
            parts.append(f"{figures['skipped']:.0f} skipped")
        return " · ".join(parts)
