"""Playing in a browser: before the first key, the strip of the run, the real game to compare with, a game pad."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving.app import STATIC
from tests.serving.browser import frame_at_rest, number, pixels, wait, wait_for_frame
from tests.serving.site import ACTIONS, Server

DESK = {"viewport": {"width": 1280, "height": 900}}
GAME = "magi/BouncingBalls-v0"
PAD = """
const pad = { connected: true, axes: [0, 0, 0, 0], buttons: Array.from({ length: 16 }, () => ({ pressed: false })) };
navigator.getGamepads = () => [pad, null];
window.tilt = (axis, value) => { pad.axes[axis] = value; };
window.push = (number, pressed) => { pad.buttons[number] = { pressed }; };
"""


@pytest.fixture(scope="module")
def server(chromium: Any, start_server: Callable[..., Server], make_pipe: Callable[..., MagiVideoPipeline]) -> Server:
    return start_server(make_pipe(), max_run_frames=60)


def boxes(page: Any) -> dict[str, Any]:
    """Where what is played with lies on the page."""
    read = """(ids) => Object.fromEntries(ids.map((id) => {
        const { left, top, bottom } = document.getElementById(id).getBoundingClientRect();
        return [id, [left, top, bottom]];
    }))"""
    return page.evaluate(read, ["world", "run", "play-buttons", "pad", "rate", "latency", "frame-number"])


def is_lit(page: Any, control: str) -> bool:
    return page.locator(f"#held [data-key={control}].held").count() == 1


def test_every_script_can_be_read(open_page: Callable[..., Any]) -> None:
    page = open_page()
    names = sorted(path.name for path in STATIC.glob("*.js"))
    assert len(names) >= 7
    for name in names:
        page.evaluate("name => import(`/static/${name}`)", name)


def test_it_moves_before_anybody_plays_and_the_first_key_begins(open_page: Callable[..., Any]) -> None:
    page = open_page(**DESK)
    page.wait_for_selector("#curtain.clear")
    lit = set()
    first = pixels(page, "model-view")
    wait(page, "document.querySelectorAll('#held .held').length === 1")
    while len(lit) < 2:  # the keys that led to what is seen light up by themselves
        lit |= {one for one in ACTIONS if is_lit(page, one)}
        page.wait_for_timeout(20)
    assert np.abs(pixels(page, "model-view") - first).mean() > 0.5
    assert number(page, "#frame-number") == -1, "no place is taken by looking"
    before = boxes(page)
    assert all(box[2] <= 900 for box in before.values()), "all of it is seen without scrolling"
    page.keyboard.down("ArrowRight")
    wait_for_frame(page, 5)
    assert is_lit(page, "RIGHT") and not is_lit(page, "LEFT") and page.is_hidden("#curtain")
    assert boxes(page) == before, "nothing has moved"
    still = open_page(**DESK, reduced_motion="reduce")
    still.wait_for_timeout(500)
    assert still.locator("#held .held").count() == 0 and still.locator("#curtain.clear").count() == 0


def test_a_tall_picture_leaves_room_for_the_controls(open_page: Callable[..., Any]) -> None:
    page = open_page(**DESK)

    def taller(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"height": 24, "width": 16})

    page.route("**/api/model", taller)
    page.reload()
    page.wait_for_selector("#play:not([hidden])")
    assert all(box[2] <= 900 for box in boxes(page).values())
    world = page.locator("#world").bounding_box()
    assert abs(world["height"] / world["width"] - 1.5) < 0.01


def test_one_goes_back_along_the_strip(open_page: Callable[..., Any], server: Server) -> None:
    page = open_page(**DESK)
    page.click("#enter")
    wait_for_frame(page, 20)
    before = boxes(page)
    page.focus("#past")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("PageDown")
    at = number(page, "#pause-text")
    assert page.inner_text("#pause-text") == f"Play from {at}"
    wait(page, f"Number(document.getElementById('frame-number').textContent) === {at}")  # what was under way is shown
    latest = int(page.get_attribute("#past", "max") or 0)
    page.wait_for_timeout(300)
    assert number(page, "#frame-number") == at < latest, "the world stands still meanwhile"
    assert boxes(page) == before
    page.keyboard.press("Enter")
    wait(page, "document.getElementById('pause-text').textContent === 'Pause'")
    wait(page, f"Number(document.getElementById('past').max) < {latest}")
    wait_for_frame(page, at + 1)
    assert page.evaluate("document.activeElement.id") == "world", "keys go on to move"
    page.keyboard.press("p")
    halted = frame_at_rest(page)
    page.focus("#past")
    page.keyboard.press("Home")
    page.keyboard.press("End")
    assert page.inner_text("#pause-text") == "Go on" and number(page, "#frame-number") == halted
    page.click("#pause")
    wait_for_frame(page, halted + 1)
    wait_for_frame(page, 70)
    assert int(page.get_attribute("#past", "min") or 0) >= 10, "the oldest frames are dropped, here as on the server"


def test_the_run_is_saved(open_page: Callable[..., Any]) -> None:
    page = open_page(**DESK)
    assert page.is_disabled("#save")
    page.click("#enter")
    wait_for_frame(page, 8)
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "tiny-run.zip"
    with open(download.value.path(), "rb") as file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
        assert "run/episode_00000.mp4" in archive.namelist()


def test_a_game_pad_begins_and_moves(open_page: Callable[..., Any]) -> None:
    page = open_page(**DESK)
    page.add_init_script(PAD)
    page.reload()
    page.wait_for_selector("#play:not([hidden])")
    page.evaluate("dispatchEvent(new Event('gamepadconnected'))")
    page.evaluate("tilt(0, -1)")
    wait_for_frame(page, 3)
    assert is_lit(page, "LEFT") and not is_lit(page, "RIGHT")
    page.evaluate("tilt(0, 0.1); push(0, true); push(15, true)")
    wait(page, "document.querySelectorAll('#held .held').length === 2")
    assert is_lit(page, "RIGHT") and is_lit(page, "FIRE")
    page.evaluate("push(0, false); push(15, false)")
    wait(page, "document.querySelectorAll('#held .held').length === 0")
    wait(page, "Number(document.getElementById('latency').textContent) > 0")


def test_where_there_is_no_real_game_the_page_says_why(open_page: Callable[..., Any]) -> None:
    page = open_page()
    assert page.is_hidden("#beside-row") and page.is_hidden("#compare")
    said = page.inner_text("#no-games")
    assert said == "No real game to compare with: the model does not say which game it has seen."


def test_the_model_and_the_real_game_are_compared(
    open_page: Callable[..., Any], start_server: Callable[..., Server], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")
    page = open_page(start_server(make_pipe(training={"data": {"games": [GAME]}})), **DESK)
    page.check("#beside")
    page.click("#enter")
    wait_for_frame(page, 3)
    assert page.is_visible("#game-view") and page.is_visible("#model-view")
    page.click("[value=difference]")
    wait(page, "/^Difference, [0-9.]+ % on average$/.test(document.getElementById('difference-caption').textContent)")
    assert page.evaluate("document.activeElement.id") == "world", "keys go on to move"
    page.keyboard.press("p")
    frame_at_rest(page)
    model, game, difference = (
        pixels(page, f"{one}-view").reshape(-1, 4)[:, :3] for one in ("model", "game", "difference")
    )
    assert np.abs(np.abs(model - game) - difference).max() <= 1
    share = 100 * difference.mean() / 255
    assert page.inner_text("#difference-caption") == f"Difference, {share:.1f} % on average" and share > 1
    page.focus("#past")
    page.keyboard.press("PageDown")
    at = number(page, "#pause-text")
    wait(page, f"Number(document.getElementById('frame-number').textContent) === {at}")
    page.wait_for_timeout(100)
    earlier = {one: pixels(page, f"{one}-view").reshape(-1, 4)[:, :3] for one in ("model", "game", "difference")}
    assert np.abs(np.abs(earlier["model"] - earlier["game"]) - earlier["difference"]).max() <= 1, "of that frame"
    assert np.abs(earlier["game"] - game).mean() > 0.5, "the game's own frame of that number"
    page.keyboard.press("End")
    page.click("#pause")
    page.click("[value=wipe]")
    page.fill("#wipe", "25")
    clip = "getComputedStyle(document.getElementById('game-figure')).clipPath"
    assert page.evaluate(clip) == "inset(0px 0px 0px 25%)"
    model_box, game_box = (page.locator(one).bounding_box() for one in ("#model-view", "#game-view"))
    assert model_box == game_box, "one lies over the other"
    page.mouse.move(game_box["x"] + 0.4 * game_box["width"], game_box["y"] + 20)
    page.mouse.down()
    page.mouse.move(game_box["x"] + 0.8 * game_box["width"], game_box["y"] + 20)
    page.mouse.up()
    assert page.evaluate(clip) == "inset(0px 0px 0px 80%)" and page.input_value("#wipe") == "80"
    wait_for_frame(page, number(page, "#frame-number") + 6)
    page.focus("#past")
    page.keyboard.press("PageDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The real game cannot go back")
    wait(page, "document.getElementById('game-caption').textContent.includes('standing still at frame')")
    parted = number(page, "#game-caption")
    assert (
        page.is_checked("[value=two]") and page.is_disabled("[value=wipe]") and page.is_disabled("[value=difference]")
    )
    assert page.is_visible("#game-view") and page.is_visible("#model-view")
    wait_for_frame(page, parted + 3)
    page.keyboard.press("p")
    frame_at_rest(page)
    page.fill("#past", str(parted - 1))
    wait(page, "document.getElementById('game-caption').textContent === 'The real game'")
    assert page.is_checked("[value=wipe]") and page.is_enabled("[value=difference]"), "there both were together"
    page.click("#again")
    wait_for_frame(page, 2)
    assert page.inner_text("#game-caption") == "The real game" and page.is_checked("[value=wipe]")
    page.uncheck("#beside")
    wait(page, "document.getElementById('game-figure').hidden")
    assert page.is_hidden("#compare") and page.is_hidden("#difference-figure")


def test_what_is_compared_is_said(
    open_page: Callable[..., Any], start_server: Callable[..., Server], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")
    page = open_page(start_server(make_pipe(training={"data": {"games": [GAME]}})), **DESK)
    asked: list[dict[str, Any]] = []
    sent = lambda text: asked.append(json.loads(text))  # noqa: E731
    page.on("websocket", lambda socket: socket.on("framesent", sent))
    page.check("#beside")
    assert page.is_hidden("#play-begin"), "none of the pictures is where the game begins"
    assert "the first frame of a new episode" in page.inner_text("#curtain-text")
    assert not pixels(page, "model-view").any()
    page.uncheck("#beside")
    assert page.is_visible("#play-begin") and pixels(page, "model-view").any()
    page.check("#beside")
    page.click("#enter")
    wait_for_frame(page, 1)
    (start,) = [one for one in asked if one["type"] == "start"]
    assert start["beside"] == GAME and "first" not in start and "upload" not in start


def test_a_game_that_cannot_be_started_leaves_the_world_as_it_was(
    open_page: Callable[..., Any], start_server: Callable[..., Server], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")
    page = open_page(start_server(make_pipe(training={"data": {"games": ["magi/NoSuchGame-v0"]}})), **DESK)
    page.click("#enter")
    wait_for_frame(page, 2)
    page.click("#beside")
    page.wait_for_selector("text=The real game could not be started here")
    wait_for_frame(page, number(page, "#frame-number") + 3)
    assert not page.is_checked("#beside") and page.is_hidden("#compare") and page.is_visible("#play-begin")
    assert page.is_hidden("#curtain") and page.is_hidden("#game-figure")
