"""The page is whole in itself, inert whatever names hold, and shows what the result holds: no more, no less."""

import copy
import io
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from magi_video.errors import MagiError
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.evaluation.report import Strip, write_report

EVIL = "<script>alert('1')</script>\"&$title"
INDEX = [5, 6, 7, 8]
METRICS: dict[str, Any] = {
    "fvd": 297.812,
    "fvd_interval": [271.334, 324.29],
    "fid": 38.2213,
    "per_frame": {
        "index": INDEX,
        "fid": [20.5, 21.0, 23.0, 24.0],
        "psnr": [31.0, 30.0, 28.0, 27.0],
        "ssim": [0.95, 0.91, 0.9, 0.87],
        "lpips": [0.05, 0.07, 0.1, 0.12],
        "motion": [5.0, 5.2, 5.1, 5.3],
        "motion_real": [6.0, 6.1, 6.1, 6.2],
    },
    "fvd_over_length": {"frames": [10, 12, 14, 16], "fvd": [190.5, 220.25, 262.0, 297.812]},
    "paired": {"psnr": 29.0, "ssim": 0.9075, "lpips": 0.085},
    "motion": {"real_speed": 6.1, "fake_speed": 5.15, "speed_distance": 0.95, "speed_ratio": 0.844262},
    "num_real": 256,
    "num_fake": 255,
    "warnings": ["255 generated clips, the protocol asks for 10000"],
    "protocol": PROTOCOLS["magvit"].record("ab" * 32),
    "real_hash": "cd" * 32,
    "detectors": {"i3d": "ab" * 32, "inception": "ef" * 32},
    "model": "runs/doom",
    "generation": {"seed": 7, "masks": {"iterations": 12, "order": "random"}},
    "command": ["magi", "evaluate", "runs/my model"],
}
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements of a page, its text without styles, and whether every element that was opened is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [has for name, has in self.elements if name == tag and attributes.items() <= has.items()]


def page_of(tmp_path: Path, metrics: dict[str, Any], strips: list[Strip] | None = None) -> tuple[str, Page]:
    write_report(tmp_path / "out", metrics, strips or [])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    source = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    return source, Page(source)


def picture(address: str | None) -> Image.Image:
    assert address is not None
    return Image.open(io.BytesIO(b64decode(address.partition("base64,")[2], validate=True)))


def clip(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_shows_the_whole_result(tmp_path: Path) -> None:
    _, page = page_of(tmp_path, METRICS, [Strip("best", clip(6, 64, 64), clip(6, 64, 64, 1), given=5)])
    shown = " ".join(page.text.split())
    for text in ("297.8", "95 % interval 271.3 to 324.3", "38.22", "PSNR / dB29", "against 256 real ones", "0.8443"):
        assert text in shown
    assert METRICS["warnings"][0] in shown and "magi evaluate 'runs/my model'" in shown
    assert "cd" * 32 in shown and "ef" * 32 in shown and "iterations: 12; order: random" in shown
    assert len(page.all("svg", role="img")) == 6
    for axis in ("PSNR / dB", "8-bit levels", "frame index", "LPIPS"):
        assert axis in page.text
    for name, value in METRICS["protocol"].items():
        assert name.replace("_", " ") in shown
        assert not isinstance(value, str) or value in shown
    assert "action: resize; size: 64; filter: tf1-bilinear" in shown


def test_fetches_nothing_and_is_the_same_every_time(tmp_path: Path) -> None:
    strips = [Strip("best", clip(4, 32, 32), clip(4, 32, 32, 1))]
    source, page = page_of(tmp_path, METRICS, strips)
    assert "://" not in source and "url(//" not in source and "@import" not in source
    assert not page.all("script") and not page.all("link") and not page.all("a")
    addresses = [has[key] or "" for _, has in page.elements for key in ("src", "href", "xlink:href") if key in has]
    assert addresses and all(address.startswith(("data:image/", "#")) for address in addresses)
    targets = {has["id"] for _, has in page.elements if "id" in has}
    assert {address[1:] for address in addresses if address[0] == "#"} <= targets
    assert set(re.findall(r"url\(#(\w+)\)", source)) <= targets
    assert page_of(tmp_path, copy.deepcopy(METRICS), strips)[0] == source


def test_names_are_inert(tmp_path: Path) -> None:
    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: spoil(one) for name, one in value.items()} | {EVIL: EVIL}
        if isinstance(value, list):
            return [spoil(one) for one in value] if value and isinstance(value[0], str | dict) else value
        return EVIL if isinstance(value, str) else value

    metrics = spoil({**METRICS, "per_frame": {**METRICS["per_frame"], EVIL: INDEX}})
    metrics["per_frame"][EVIL] = INDEX
    del metrics["fvd_over_length"][EVIL]
    _, page = page_of(tmp_path, metrics, [Strip(EVIL, None, clip(3, 16, 16))])
    assert not page.all("script")
    assert page.text.count(EVIL) > 30 and f"Evaluation of {EVIL}" in page.text


def test_a_name_that_is_no_text_does_not_prevent_the_page(tmp_path: Path) -> None:
    _, page = page_of(tmp_path, {"fvd": 1.0, "model": b"run\xff".decode("utf-8", "surrogateescape")})
    assert "Evaluation of run" in page.text


def test_what_was_not_measured_is_not_there(tmp_path: Path) -> None:
    source, page = page_of(tmp_path, {"fvd": 12.5, "fid": None, "num_real": 8, "num_fake": 8, "warnings": []})
    headings = re.findall(r"<h2>(.*?)</h2>", source)
    assert headings == [] and not page.all("svg") and not page.all("img") and not page.all("details")
    assert "12.5" in page.text and "FID" not in page.text and "PSNR" not in page.text and "interval" not in page.text
    assert "Warnings" not in page.text
    source, page = page_of(tmp_path, {"per_frame": {"index": [1, 2], "ssim": [0.5, 0.25]}})
    assert len(page.all("svg")) == 1 and 'class="cards"' not in source


def test_no_point_for_motion_into_the_first_frame(tmp_path: Path) -> None:
    def marks(index: list[int]) -> int:
        _, page = page_of(tmp_path, {"per_frame": {"index": index, "motion": [0.0, 4.0, 5.0]}})
        return sum("fill: var(--line)" in (has.get("style") or "") for has in page.all("use"))

    assert marks([0, 1, 2]) == 2
    assert marks([1, 2, 3]) == 3


def test_frames_are_the_clips_own(tmp_path: Path) -> None:
    real, fake = clip(4, 64, 96), clip(4, 64, 96, 1)
    _, page = page_of(tmp_path, {"protocol": {"given": 2}}, [Strip("best", real, fake)])
    images = page.all("img")
    assert len(images) == 9 and len(page.all("figure", **{"class": "given"})) == 2
    for t in range(4):
        for image, side, video in zip(images[2 * t : 2 * t + 2], ("true", "generated"), (real, fake), strict=True):
            assert image["alt"] == f"{side} frame {t}"
            np.testing.assert_array_equal(np.array(picture(image["src"])), video[t])
    moving = picture(images[-1]["src"])
    assert moving.n_frames == 4 and moving.size == (192, 64)


@pytest.mark.parametrize(
    ("size", "shown"), [((8, 8), (64, 64)), ((24, 40), (72, 120)), ((256, 256), (128, 128)), ((120, 160), (96, 128))]
)
def test_frames_of_any_size_can_be_looked_at(tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]) -> None:
    _, page = page_of(tmp_path, {}, [Strip("one", None, clip(1, *size))])
    assert np.array(picture(page.all("img")[0]["src"])).shape == (*shown, 3)


def test_of_long_clips_a_choice_with_both_ends(tmp_path: Path) -> None:
    fake = clip(100, 16, 16)
    _, page = page_of(tmp_path, {"protocol": {"given": 50}}, [Strip("long", None, fake, given=1)])
    alts = [image["alt"] for image in page.all("img")]
    assert len(alts) == 17 and alts[0] == "generated frame 0" and alts[15] == "generated frame 99"
    assert "16 of 100 frames" in page.text and len(page.all("figure", **{"class": "given"})) == 1
    np.testing.assert_array_equal(np.array(picture(page.all("img")[15]["src"]))[::4, ::4], fake[99])


def test_says_so_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(MagiError, match="cannot be written"):
        write_report(tmp_path / "out", METRICS, [])
