"""What a long task says where there is no terminal, by a clock that the test moves."""

import io
import threading

import pytest
from rich.console import Console

from magi_video.cli import progress
from magi_video.cli.progress import TaskDisplay
from magi_video.training.display import duration


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, first: str = "loading the model") -> tuple[TaskDisplay, io.StringIO]:
    stream = io.StringIO()
    return TaskDisplay(first, Console(file=stream, width=80), clock), stream


def test_it_says_what_it_does_before_anything_is_done(clock: Clock) -> None:
    display, stream = make(clock)
    clock.now += 5
    display.print_line()
    assert stream.getvalue() == "loading the model 5 s so far\n"


def test_lines_tell_steps_figures_and_after_a_few_steps_the_time_left(clock: Clock) -> None:
    display, stream = make(clock)
    display.stage("model", 1000)
    display.advance(400, {"loss": 1.5})  # a run that goes on: its steps from before say nothing about the pace
    clock.now += 10
    display.advance(402, {"loss": 1.25, "clips_per_second": 3.0})
    display.print_line()
    clock.now += 10
    display.advance(404, {"loss": 1.25, "clips_per_second": 3.0, "skipped": 1})
    display.print_line()
    assert stream.getvalue().splitlines() == [
        "training the model: 1000",
        "training the model: 402/1000 loss 1.2500 · 3 clips/s · 10 s so far",
        "training the model: 404/1000 loss 1.2500 · 3 clips/s · 1 skipped · about 50 min left",
    ]


def test_the_end_of_a_stage_is_told_once_and_nothing_to_do_is_none(clock: Clock) -> None:
    display, stream = make(clock)
    display.show("generating frames", 1, 2)
    display.stage("codec", 0)
    display.show("generating frames", 2, 2)
    display.print_line()
    assert stream.getvalue().splitlines() == ["generating frames: 2", "generating frames: 2/2"]


def test_a_thread_tells_by_time_even_while_nothing_moves(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.001)
    display, _ = make(clock)
    told = threading.Event()
    monkeypatch.setattr(display, "print_line", told.set)
    with display:
        assert told.wait(20)
    assert display.ended.is_set()


def test_brackets_in_what_is_said_stay(clock: Clock) -> None:
    display, stream = make(clock)
    display.say("videos [red] of a long name that goes beyond the width of the console, which is no reason to break it")
    assert stream.getvalue().count("\n") == 1 and "[red]" in stream.getvalue()


def test_on_a_terminal_there_are_bars(clock: Clock) -> None:
    stream = io.StringIO()
    display = TaskDisplay("loading", Console(file=stream, width=100, force_terminal=True), clock)
    with display:
        display.progress.refresh()
        display.stage("model", 10)
        for step in range(1, 5):
            clock.now += 60
            display.advance(step, {"loss": 1.0})
        display.progress.refresh()
    assert "training the model" in stream.getvalue() and "4/10" in stream.getvalue()
    assert "loading" in stream.getvalue() and "about 6.0 min left" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "told"), [
    (3.2, "3 s"), (119, "119 s"), (120, "2.0 min"), (3600, "60 min"), (7200, "2.0 hours"), (10**6, "12 days"),
])  # fmt: skip
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told
