"""Parts of the page in a browser: its figures, pictures that fail, where what is said appears, what fits the window."""

from collections.abc import Callable
from typing import Any

import pytest

from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving.requests import FirstFrame
from tests.serving.browser import number, wait, wait_for_frame
from tests.serving.site import Server, picture

DESK = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LONG_NEWS = "Enough videos of your address are waiting: please try again in a while, or ask for fewer frames of it."
CONTROL_PLACES = ["up", "down", "left", "right", "far left", "far right", "fire", *["other"] * 6]


@pytest.fixture(scope="module")
def server(chromium: Any, start_server: Callable[..., Server], make_pipe: Callable[..., MagiVideoPipeline]) -> Server:
    return start_server(make_pipe(training={"data": {"games": ["magi/BouncingBalls-v0", "ALE/Pong-v5"]}}))


def rates(page: Any, when: list[float]) -> list[float | None]:
    """What is shown as frames/s after each frame, of frames drawn at these milliseconds in a world of 20 frames/s."""
    shown = page.evaluate(
        """async (when) => {
            const { Figures } = await import("/static/figures.js");
            const figures = new Figures();
            figures.begin(20);
            return when.map((now, index) => {
                figures.frame(index, 0, now);
                return document.getElementById("rate").textContent;
            });
        }""",
        when,
    )
    return [None if one == "–" else float(one) for one in shown]


def test_the_rate_is_that_of_the_frames_shown(open_page: Callable[..., Any]) -> None:
    page = open_page()
    steady = rates(page, [50.0 * number for number in range(80)])
    assert steady[19] is None and set(steady[20:]) == {20.0}, "nothing is said before a second has passed"
    assert page.inner_text("#rate-of") == "of 20" and "Slower" not in page.inner_text("#pace-hint")
    stalled = [50.0 * number for number in range(40)]
    stalled += [3000.0] * 12  # all that were under way when the machine went on
    stalled += [3050.0 + 50 * number for number in range(60)]
    after = [one for one in rates(page, stalled)[40:] if one is not None]
    assert max(after) <= 20 and min(after) < 18, "what is caught up with does not count as quicker than asked"
    assert set(rates(page, [200.0 * number for number in range(20)])[10:]) == {5.0}
    assert "Slower than the game" in page.inner_text("#pace-hint")


def test_both_rates_are_of_the_world_that_is_shown(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.click("#enter")
    wait(page, "document.getElementById('rate').textContent !== '–'")
    assert page.inner_text("#rate-of") == "of 16.7" and float(page.inner_text("#rate")) <= 18
    reached = number(page, "#frame-number")
    seen = page.evaluate("""() => new Promise((resolve) => {
        const read = (id) => document.getElementById(id).textContent;
        const asked = document.getElementById("rate-of");
        new MutationObserver(() => resolve([asked.textContent, read("rate"), read("frame-number")]))
            .observe(asked, { childList: true });
        const pace = document.getElementById("play-interval");
        pace.value = "2";
        pace.dispatchEvent(new Event("change"));
    })""")
    assert seen == ["of 25", "–", "–"], "all three change when the other world begins"
    wait_for_frame(page, 3)
    assert number(page, "#frame-number") < reached + 25
    wait(page, "document.getElementById('rate').textContent !== '–'")
    assert float(page.inner_text("#rate")) <= 26


def test_a_picture_that_fails_is_said_and_the_rest_goes_on(open_page: Callable[..., Any]) -> None:
    page = open_page()  # which fails the test where a rejection is left to the console

    def spoil(socket: Any) -> None:
        server, pictures = socket.connect_to_server(), [0]

        def pass_on(message: str | bytes) -> None:
            pictures[0] += isinstance(message, bytes)
            socket.send(b"no picture" if isinstance(message, bytes) and pictures[0] in (3, 5) else message)

        server.on_message(pass_on)

    page.route_web_socket("**/api/play*", spoil)
    page.route("**/contact.png", lambda route: route.fulfill(status=500))
    page.route("**/api/first/1.jpg", lambda route: route.fulfill(status=500))
    page.reload()
    page.wait_for_selector("text=“Two” could not be loaded.")
    page.click("#enter")
    page.wait_for_selector("text=A frame could not be read and is left out.")
    wait_for_frame(page, 8)
    page.keyboard.press("p")
    page.fill("#past", "2")  # the one that failed
    page.wait_for_timeout(100)
    assert number(page, "#frame-number") == 1, "the one before it"
    page.click("#tab-video")
    page.fill("#frames", "8")
    page.select_option("#video-speed", "realtime")
    page.click("#make")
    page.wait_for_selector("text=The contact sheet could not be loaded.")
    assert page.is_hidden("#sheet") and page.is_visible("#showing")


def covered(page: Any) -> list[str]:
    """Controls that lie under what is said."""
    return page.evaluate(
        """async (text) => {
            const { say } = await import("/static/common.js");
            say(text);
            const news = document.getElementById("news").getBoundingClientRect();
            const shown = (one) => one.getClientRects().length > 0;
            const under = (box) => box.left < news.right && box.right > news.left
                && box.top < news.bottom && box.bottom > news.top;
            const found = [...document.querySelectorAll("button, input, select, textarea, a, figcaption")]
                .filter((one) => shown(one) && under(one.getBoundingClientRect())).map((one) => one.outerHTML);
            say("");
            return news.width > 100 ? found : ["it is not shown"];
        }""",
        LONG_NEWS,
    )


def too_high(page: Any) -> dict[str, float]:
    """By how many pixels the page, and the panels in it, are higher than they can show."""
    return page.evaluate("""() => Object.fromEntries([document.documentElement, ...document.querySelectorAll(".panel")]
        .map((one) => [one.className || one.localName, one.scrollHeight - one.clientHeight])
        .filter(([, pixels]) => pixels > 0))""")


@pytest.mark.parametrize("look", [DESK, PHONE], ids=["desk", "phone"])
def test_what_is_said_covers_no_control_and_moves_nothing(open_page: Callable[..., Any], look: dict[str, Any]) -> None:
    page = open_page(**look)
    assert covered(page) == []
    page.click("#tab-video")
    assert covered(page) == []


def test_everything_is_seen_without_scrolling(
    open_page: Callable[..., Any], start_server: Callable[..., Server], words_pipe: MagiVideoPipeline
) -> None:
    page = open_page(**DESK)
    assert too_high(page) == {}
    page.check("#beside")
    page.click("#enter")
    wait_for_frame(page, 2)
    for way in ("two", "wipe", "difference"):
        page.click(f"[value={way}]")
        assert too_high(page) == {}, way
    page.click("#tab-video")
    assert too_high(page) == {}
    words = open_page(start_server(words_pipe), **DESK)
    words.fill("#text", "a red ball")
    words.fill("#guidance", "3")
    assert words.is_visible("#negative-row") and too_high(words) == {}
    words.fill("#frames", "8")
    words.click("#make")
    words.wait_for_selector("#showing:not([hidden])")
    lowest = "Math.max(...[...document.querySelectorAll('#showing *')].map(one => one.getBoundingClientRect().bottom))"
    assert words.evaluate(lowest) <= 900


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 16), (16, 40)])
def test_many_beginnings_and_controls_fit_too(
    open_page: Callable[..., Any],
    start_server: Callable[..., Server],
    pipe: MagiVideoPipeline,
    height: int,
    width: int,
) -> None:
    page = open_page(start_server(pipe, [FirstFrame(f"Place {seed}", picture(seed)) for seed in range(16)]), **DESK)
    controls = [
        {"name": f"{place} {index}", "label": place.capitalize(), "keys": [f"Digit{index % 10}"], "place": place}
        for index, place in enumerate(CONTROL_PLACES)
    ]

    def larger(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"controls": controls, "height": height, "width": width})

    page.route("**/api/model", larger)
    page.reload()
    page.wait_for_selector("#play:not([hidden])")
    assert too_high(page) == {}
    assert page.evaluate("document.querySelectorAll('#pad button').length") == len(controls)
    lowest = "Math.max(...[...document.querySelectorAll('#pad button')].map(one => one.getBoundingClientRect().bottom))"
    assert page.evaluate(lowest) <= 900
    world = page.locator("#world").bounding_box()
    assert abs(world["height"] / world["width"] - height / width) < 0.02 and world["height"] >= 128
