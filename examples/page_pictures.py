"""The pictures of the page in docs/images: serves the shipped models, plays and makes a video in headless Chromium.

python examples/page_pictures.py docs/images
"""

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

GAP = 24
COLOURS = 256
LONG = 120_000  # milliseconds
DESK: dict[str, Any] = {"width": 1280, "height": 900, "color_scheme": "light"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the pictures")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with served("doom") as url:
            doom(browser, url, arguments.out)
        with served("atari") as url:
            boxing(browser, url, arguments.out)
        with served("coinrun") as url:
            coinrun(browser, url, arguments.out)
        browser.close()


@contextmanager
def served(model: str) -> Iterator[str]:
    """The page of a shipped model, by its address."""
    command = [sys.executable, "-m", "magi_video", "serve", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[0]
        finally:
            server.terminate()


def doom(browser: Any, url: str, out: Path) -> None:
    run = open_page(browser, url, **DESK)
    alone(run)
    back(run)
    save(out / "serve_run.png", [picture(run)])
    run.close()
    desktop = open_page(browser, url, **DESK)
    beside(desktop)
    phone = open_page(browser, url, width=390, height=760, color_scheme="dark", has_touch=True, is_mobile=True)
    alone(phone)
    save(out / "serve_play.png", [picture(desktop), picture(phone)])
    phone.close()
    video(desktop)
    save(out / "serve_video.png", [picture(desktop)])


def boxing(browser: Any, url: str, out: Path) -> None:
    """The model and the real game beside each other, and some frames later their difference."""
    page = open_page(browser, url, **DESK)
    page.check("#beside")
    page.click("#enter")
    page.keyboard.down("ArrowRight")
    wait_for_frame(page, 30)
    both = picture(page)
    page.click("[value=difference]")
    wait_for_frame(page, frame_number(page) + 4)
    save(out / "serve_atari.png", [both, picture(page)])


def coinrun(browser: Any, url: str, out: Path) -> None:
    """A run to the right, and a jump."""
    page = open_page(browser, url, **DESK)
    page.click("#enter")
    page.keyboard.down("ArrowRight")
    wait_for_frame(page, 12)
    running = picture(page)
    page.keyboard.down("ArrowUp")
    wait_for_frame(page, frame_number(page) + 6)
    save(out / "serve_coinrun.png", [running, picture(page)])


def open_page(browser: Any, url: str, width: int, height: int, **look: Any) -> Any:
    page = browser.new_context(viewport={"width": width, "height": height}, **look).new_page()
    page.set_default_timeout(LONG)
    page.goto(url)
    page.wait_for_selector("#play:not([hidden])")
    return page


def beside(page: Any) -> None:
    """The model and the real game after the same second of keys."""
    page.check("#beside")
    page.click("#enter")
    wait_for_frame(page, 6)
    for key in ("ArrowLeft", "ArrowUp"):
        page.keyboard.down(key)
        wait_for_frame(page, frame_number(page) + 10)
        page.keyboard.up(key)
    page.click("[value=wipe]")
    page.keyboard.down("ArrowRight")
    wait_for_frame(page, frame_number(page) + 4)


def alone(page: Any) -> None:
    page.click("#play-begin label:has(input[value=first-2])")
    page.click("#enter")
    page.keyboard.down("ArrowUp")
    wait_for_frame(page, 10)
    page.keyboard.up("ArrowUp")


def back(page: Any) -> None:
    """To an earlier frame, and from there another way."""
    page.focus("#world")
    page.keyboard.down("ArrowRight")
    wait_for_frame(page, 50)
    page.keyboard.up("ArrowRight")
    page.focus("#past")
    for _ in range(3):
        page.keyboard.press("PageDown")
    page.wait_for_timeout(1000)


def video(page: Any) -> None:
    page.click("#tab-video")
    page.click("#make")
    page.wait_for_selector("#showing:not([hidden])")
    page.wait_for_selector("#sheet:not([hidden])")
    page.wait_for_timeout(3000)
    page.evaluate("scrollTo(0, 0)")


def frame_number(page: Any) -> int:
    text = page.inner_text("#frame-number")
    return int(text) if text.isdecimal() else -1


def wait_for_frame(page: Any, number: int) -> None:
    while frame_number(page) < number:
        page.wait_for_timeout(20)


def picture(page: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=page.is_visible("#video")))).convert("RGB"))


def save(path: Path, pictures: list[np.ndarray]) -> None:
    """Side by side, in few colours, so that the file is small."""
    height = max(len(one) for one in pictures)
    padded = [np.pad(one, ((0, height - len(one)), (0, GAP), (0, 0)), constant_values=255) for one in pictures]
    row = np.concatenate(padded, axis=1)[:, :-GAP]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(row).quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
