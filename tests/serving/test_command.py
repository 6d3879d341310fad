"""`magi serve` as a user runs it: what it says, what it refuses, how it ends."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magi_video.cli import main
from magi_video.errors import MagiError
from magi_video.installation import install_command
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving.server import address, listen
from magi_video.video.image import write_image
from tests.serving.site import picture


def test_a_port_in_use_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "doom", "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"port {port} is in use" in error


def test_a_missing_extra_is_told_in_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "doom", "--port", "0"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and install_command("serve") in error


@pytest.mark.parametrize(("host", "port", "message"), [
    ("127.0.0.1", 70_000, "0…65535"),
    ("no such host", 0, "no address of this machine"),
    ("203.0.113.7", 0, "cannot listen"),
])  # fmt: skip
def test_bad_addresses(host: str, port: int, message: str) -> None:
    with pytest.raises(MagiError, match=message):
        listen(host, port)


def test_where_the_browser_goes() -> None:
    with listen("0.0.0.0", 0) as everywhere:
        assert address(everywhere).startswith("http://127.0.0.1:")


def test_it_serves_a_folder_until_it_is_interrupted(
    make_pipe: Callable[..., MagiVideoPipeline], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "world"
    make_pipe().save_pretrained(folder)
    write_image(folder / "first_frame.png", picture(1))
    write_image(folder / "first_frames" / "far_away.png", picture(2))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told: dict[str, Any] = {}
    over = threading.Event()

    def visit_and_interrupt() -> None:
        try:
            deadline = time.monotonic() + 60
            while not told and time.monotonic() < deadline and not over.is_set():
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/model") as page:
                    told.update(json.load(page))
                time.sleep(0.05)
        finally:
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit_and_interrupt)
    visitor.start()
    try:
        assert main(["serve", str(folder), "--port", str(port), "--host", "0.0.0.0", "--engine", "torch"]) == 0
    finally:
        over.set()
        visitor.join()
    assert told["model"] == "world" and told["first_frames"] == ["First frame", "Far away"]
    said = capsys.readouterr()
    assert said.out == f"http://127.0.0.1:{port}/  (Ctrl-C stops it)\nstopped\n"
    assert said.err.endswith("warning: everyone who reaches 0.0.0.0 can use this page\n")
    assert said.err.startswith("loading the model\nprecision: float32 (")
