"""A signal ends any command at once, with a line and 128 + its number, and leaves nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from magi_video.cli import main
from magi_video.errors import Interrupted
from magi_video.files.atomic import growing_array
from magi_video.training.stopping import StopSignals

NUMBERS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """As in a terminal; what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_by(number: int, out: Path) -> Callable[..., None]:
    """What a command does, until a signal meets it in the middle of a file."""

    def work(*_: object) -> None:
        with growing_array(out / "frames.npy", (4, 2), np.uint8) as append:
            append(np.zeros((2, 2), np.uint8))
            os.kill(os.getpid(), number)
            time.sleep(10)

    return work


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_a_command_and_nothing_is_left(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr("magi_video.cli.info.main", interrupted_by(number, tmp_path))
    assert main(["info", "doom"]) == 128 + number
    assert capsys.readouterr().err == f"magi info: stopped by {signal.Signals(number).name}\n"
    assert not list(tmp_path.iterdir()) and signal.getsignal(number) is before


def test_what_a_launcher_passes_on_does_not_disturb_the_cleaning_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned = []

    def work(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(True)

    monkeypatch.setattr("magi_video.cli.info.main", work)
    assert main(["info", "doom"]) == 143 and cleaned == [True]


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what goes to the background
    try:
        monkeypatch.setattr("magi_video.cli.info.main", lambda _: os.kill(os.getpid(), signal.SIGINT))
        assert main(["info", "doom"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", NUMBERS)
def test_between_trainings_a_signal_is_not_waited_with(number: int) -> None:
    """A comparison trains and scores in turn: only training has an order of its own to end in."""
    with StopSignals() as signals:
        with signals.held():
            os.kill(os.getpid(), number)
            assert signals.received == number
        signals.received = None
    with StopSignals(), pytest.raises(Interrupted) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.number == number


def test_a_signal_while_pytorch_is_loaded_or_a_frame_is_made_is_a_line(tmp_path: Path) -> None:
    """In a process of its own, some moments after it began; a video begins to grow and is gone, with its folder."""
    out = tmp_path / "out"
    command = ["generate", "doom", "--frames", "100000", "--num", "1", "--out", str(out), "--mask-steps", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "magi_video", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while not (out.is_dir() and list(out.glob(".*.part"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and told.endswith("magi generate: stopped by SIGTERM\n"), told
    assert "Traceback" not in told and not out.exists()
