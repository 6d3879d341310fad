"""The page in a browser: what a visitor does and sees. Skips, saying so, where there is no Chromium."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magi_video.pipeline.pipeline import MagiVideoPipeline
from tests.serving.browser import LONG, frame_at_rest, number, pixels, wait, wait_for_frame
from tests.serving.site import Server, picture, png


@pytest.fixture(scope="module")
def server(chromium: Any, start_server: Callable[..., Server], make_pipe: Callable[..., MagiVideoPipeline]) -> Server:
    return start_server(make_pipe(steps=(4, 30)), max_players=2, max_share=1)


def test_a_video_is_made_watched_and_downloaded(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    page.click("#tab-video")
    page.fill("#frames", "16")
    page.select_option("#video-speed", "realtime")
    page.click("#make")
    page.wait_for_selector("#showing:not([hidden])")
    assert page.is_hidden("#making") and page.is_hidden("#news")
    page.fill("#scrub", "0")
    wait(page, "document.getElementById('scrub-text').textContent === 'frame 0'")
    page.wait_for_timeout(200)
    first = pixels(page, "video-view")
    page.fill("#scrub", "15")
    deadline = time.monotonic() + LONG / 1000
    while np.abs(pixels(page, "video-view") - first).mean() < 1:
        assert time.monotonic() < deadline, "the pictures of a video differ"
    wait(page, "document.getElementById('sheet').naturalWidth > 100")
    for name, magic in (("video.mp4", b"ftyp"), ("video.gif", b"GIF89a"), ("contact.png", b"PNG")):
        with page.expect_download() as download:
            page.click(f"[data-file='{name}']")
        assert magic in Path(download.value.path()).read_bytes()[:16]


def test_a_video_is_cancelled(
    open_page: Callable[..., Any], start_server: Callable[..., Server], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    server = start_server(make_pipe(steps=(4, 1000)))  # so slow that no machine is done before the click
    page = open_page(server)
    page.click("#tab-video")
    page.fill("#frames", "240")
    page.select_option("#video-speed", "exact")
    page.click("#make")
    wait(page, "document.getElementById('progress').value > 0.01")
    assert re.search(r"Frame \d+ of 240", page.inner_text("#progress-text"))
    page.click("#cancel")
    page.wait_for_selector("#showing:not([hidden])")
    assert "Stopped after" in page.inner_text("#news")
    assert server.service.videos.counts() == {"waiting": 0, "running": 0}


def test_keys_and_buttons_steer_the_world(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.focus("#world")
    page.keyboard.press("Enter")
    wait_for_frame(page, 3)
    before = pixels(page, "model-view")
    page.keyboard.down("ArrowLeft")
    assert "held" in page.get_attribute("[data-control=LEFT]", "class")
    wait(page, "Number(document.getElementById('latency').textContent) > 0")
    wait_for_frame(page, number(page, "#frame-number") + 3)
    assert np.abs(pixels(page, "model-view") - before).mean() > 1
    page.keyboard.up("ArrowLeft")
    assert "held" not in (page.get_attribute("[data-control=LEFT]", "class") or "")
    page.hover("[data-control=FIRE]")
    page.mouse.down()
    assert "held" in page.get_attribute("[data-control=FIRE]", "class")
    page.mouse.up()
    page.keyboard.press("p")
    page.wait_for_selector("#curtain:not([hidden])")
    halted = frame_at_rest(page)
    assert page.inner_text("#enter") == "Go on"
    page.click("#enter")
    wait_for_frame(page, halted + 3)
    page.click("#again")
    wait(page, f"Number(document.getElementById('frame-number').textContent) < {halted}")
    page.click("#elsewhere")
    assert page.is_checked("#play-begin input[value=first-1]")


def test_uploads_good_and_bad(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    page.click("#tab-video")
    (tmp_path / "notes.png").write_text("these are notes, not a picture")
    (tmp_path / "mine.png").write_bytes(png(picture(9, 64, 64)))
    page.set_input_files("#video-begin input[type=file]", tmp_path / "notes.png")
    page.wait_for_selector("text=This file cannot be used")
    page.set_input_files("#video-begin input[type=file]", tmp_path / "mine.png")
    page.wait_for_selector("#video-begin .tag")
    assert page.is_checked("#video-begin input[value=upload]")
    wait(page, "document.querySelector('#video-begin img[alt=\"Your upload\"]').naturalWidth === 16")
    assert page.inner_text("#video-begin .begin-text") == ""
    assert "each sees 4 earlier frames" in page.inner_text("#about")


def test_a_model_of_one_world_says_so_of_other_pictures(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()

    def of_one_world(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"world": "Doom", "window": None})

    page.route("**/api/model", of_one_world)
    page.reload()
    page.click("#tab-video")
    (tmp_path / "mine.png").write_bytes(png(picture(9, 64, 64)))
    page.set_input_files("#video-begin input[type=file]", tmp_path / "mine.png")
    page.wait_for_selector("text=This model has seen only Doom; other pictures will turn into it.")
    assert "each sees all earlier frames" in page.inner_text("#about")


def test_two_visitors_play_and_a_third_is_told_to_wait(open_page: Callable[..., Any], server: Server) -> None:
    one, other, third = open_page(), open_page(), open_page()
    for page in (one, other):
        page.click("#enter")
        wait_for_frame(page, 2)
    third.click("#enter")
    wait(third, "document.getElementById('curtain-text').textContent.includes('playing already')")
    for page in (one, other):
        wait_for_frame(page, number(page, "#frame-number") + 5)
    one.close()
    other.close()
    third.wait_for_timeout(100)
    third.click("#enter")
    wait_for_frame(third, 2)


def test_a_dropped_connection_is_taken_up_again(open_page: Callable[..., Any], server: Server) -> None:
    page = open_page()
    page.click("#enter")
    wait_for_frame(page, 5)
    (player,) = server.service.players._players.values()

    async def drop() -> None:
        await player.connection.close(1011)  # type: ignore[union-attr]

    asyncio.run_coroutine_threadsafe(drop(), server.loop).result(10)
    reached = player.world.index
    wait_for_frame(page, reached + 5)
    assert list(server.service.players._players.values()) == [player], "the same place"
    # A place that is gone meanwhile is taken anew.
    server.loop.call_soon_threadsafe(server.service.players._players.clear)
    asyncio.run_coroutine_threadsafe(drop(), server.loop).result(10)
    page.wait_for_selector("text=this is a new world")
    wait_for_frame(page, 1)


def test_a_video_is_asked_for_in_words(
    open_page: Callable[..., Any], start_server: Callable[..., Server], words_pipe: MagiVideoPipeline
) -> None:
    server = start_server(words_pipe)
    page = open_page(server)
    assert page.is_hidden("#tab-play") and page.is_hidden("#negative-row") and page.is_disabled("#guidance")
    assert page.inner_text("#guidance-text") == "needs words or a class"
    page.select_option("#class", "1")
    assert page.is_enabled("#guidance")
    page.select_option("#class", "")
    page.get_by_label("What it shows").fill("a red ball\nmoving left " + "x" * 2000)
    assert len(page.input_value("#text")) == 1000
    page.get_by_label("What it shows").fill("a red ball")
    assert page.inner_text("#guidance-text") == "none"
    page.fill("#guidance", "3")
    page.get_by_label("Away from").fill("a square")
    page.fill("#frames", "8")
    page.click("#make")
    page.wait_for_selector("#showing:not([hidden])")
    assert page.is_hidden("#news")
    (video,) = server.service.videos._videos.values()
    told = {name: video._arguments[name] for name in ("text", "negative_text", "label")}
    assert told == {"text": "a red ball", "negative_text": "a square", "label": None}
    assert video._arguments["sampling"].guidance_scale == 3
    page.get_by_label("What it shows").fill("")
    assert page.is_disabled("#guidance") and page.is_hidden("#negative-row")
    page.fill("#frames", "16")
    page.click("#make")
    wait(page, "document.getElementById('scrub').max === '15'")
    assert page.is_hidden("#news"), "nothing is told, so nothing is guided"


def test_a_missing_text_encoder_is_told(
    open_page: Callable[..., Any], start_server: Callable[..., Server], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    pipe = make_pipe(conditions={"text": {"size": 8, "kind": "sequence", "tokens": 2}})
    page = open_page(start_server(pipe))
    page.click("#tab-video")
    assert page.is_hidden("#text-row") and page.is_hidden("#guidance-row")
    assert page.inner_text("#text-problem").startswith("No words can be given: this model lacks the text encoder")


def test_it_fits_a_phone_and_every_control_has_a_name(
    open_page: Callable[..., Any], start_server: Callable[..., Server], words_pipe: MagiVideoPipeline
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    page = open_page(**phone)
    words = open_page(start_server(words_pipe), **phone)
    nameless = """() => [...document.querySelectorAll('button, input, textarea, select, a')]
        .filter(one => one.offsetParent && !(one.ariaLabel || one.textContent.trim() || one.labels?.length))
        .map(one => one.outerHTML)"""
    for tab in ("#tab-play", "#tab-video"):
        page.click(tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate(nameless) == []
    words.fill("#text", "a red ball")
    words.fill("#guidance", "3")
    assert words.is_visible("#negative-row")
    assert words.evaluate("document.documentElement.scrollWidth") <= 360 and words.evaluate(nameless) == []
    page.click("#tab-play")
    page.tap("#enter")
    wait_for_frame(page, 2)
    page.focus("#tab-play")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#video") and page.is_hidden("#play"), "tabs are reached by arrow keys"
