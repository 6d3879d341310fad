"""The page in a headless Chromium: opening it, waiting for it, reading it."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.serving.site import Server

LONG = 30_000  # milliseconds, on a busy machine


@pytest.fixture
def open_page(chromium: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page as another visitor each time; whatever it complains about fails the test."""
    contexts, complaints = [], []

    def open_page(at: Server = server, **look: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1100, "height": 800}} | look)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(at.url)
        page.wait_for_selector("[role=tabpanel]:not([hidden])")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [one for one in complaints if "Failed to load resource" not in one and "WebSocket" not in one] == []


def number(page: Any, selector: str) -> int:
    return int(re.sub(r"\D", "", page.inner_text(selector)) or -1)


def wait(page: Any, condition: str) -> None:
    """Until a condition holds; the page's own policy forbids the browser's usual way of asking for it."""
    deadline = time.monotonic() + LONG / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def wait_for_frame(page: Any, least: int) -> None:
    wait(page, f"Number(document.getElementById('frame-number').textContent) >= {least}")


def frame_at_rest(page: Any) -> int:
    """The frame at which the world stands still; a few may be on their way when it is told to."""
    deadline = time.monotonic() + LONG / 1000
    while True:
        before = number(page, "#frame-number")
        page.wait_for_timeout(400)
        if number(page, "#frame-number") == before:
            return before
        assert time.monotonic() < deadline, "the world goes on"


def pixels(page: Any, canvas: str) -> np.ndarray:
    read = """id => { const c = document.getElementById(id);
                      return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""
    return np.array(page.evaluate(read, canvas))
