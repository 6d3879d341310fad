"""Videos by class and words: what is told reaches the model, what makes no sense is refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.installation import install_command
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving.requests import MAX_TEXT
from tests.serving.site import Site, picture


@pytest.fixture
def words_site(make_site: Callable[..., Site], words_pipe: MagiVideoPipeline) -> Site:
    return make_site(words_pipe)


def made(pipe: MagiVideoPipeline, **asked: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return 255 * pipe(image=picture(1), num_frames=3, generator=generator, **asked).frames[0]


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "a red ball"},
        {"text": "a red ball", "guidance_scale": 4},
        {"text": "a red ball", "guidance_scale": 4, "negative_text": "a blue ball"},
        {"label": 1, "guidance_scale": 4.0},
    ],
)
def test_a_video_follows_what_is_told(words_site: Site, words_pipe: MagiVideoPipeline, asked: dict[str, Any]) -> None:
    frames, last = words_site.follow(words_site.order(first=0, frames=3, speed="exact", **asked)["video"])
    assert last["state"] == "done", last
    assert len(frames) == 3
    served = np.stack(words_site.service.videos.find(last["video"]).frames).astype(float)
    without = {name: value for name, value in asked.items() if name != list(asked)[-1]}
    as_told, otherwise = (np.abs(served - made(words_pipe, **one)).max() for one in (asked, without))
    assert as_told < 1 and otherwise > 4, (as_told, otherwise)


def test_the_page_is_told_what_the_model_takes(words_site: Site, site: Site) -> None:
    told = words_site.client.get("/api/model").json()
    assert told["classes"] == ["Jumping", "Walking"]
    assert (told["text"], told["text_problem"], told["max_text"]) == (True, None, MAX_TEXT)
    assert not site.client.get("/api/model").json()["text"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"text": "x" * (MAX_TEXT + 1)}, f"text: String should have at most {MAX_TEXT}"),
        ({"text": "x", "negative_text": "x" * (MAX_TEXT + 1), "guidance_scale": 2}, "negative_text"),
        ({"text": "  "}, "some words"),
        ({"text": 3}, "text"),
        ({"text": "x", "guidance_scale": 101}, "guidance_scale"),
        ({"text": "x", "guidance_scale": -1}, "guidance_scale"),
        ({"text": "x", "negative_text": "y"}, "needs guidance"),
        ({"guidance_scale": 2}, "none of label, text is given"),
        ({"guidance_scale": 2, "negative_text": "y"}, "none of label, text is given"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(words_site: Site, asked: Any, message: str) -> None:
    answer = words_site.client.post("/api/videos", json=asked)
    assert answer.status_code == 400 and message in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert words_site.service.videos.counts() == {"waiting": 0, "running": 0}


def test_a_lone_half_of_a_character_is_refused(words_site: Site) -> None:
    answer = words_site.client.post("/api/videos", content=rb'{"text": "\ud800"}')
    assert answer.status_code == 400 and "text" in answer.json()["error"]


@pytest.mark.parametrize("asked", [{"text": "a ball"}, {"negative_text": "a ball", "guidance_scale": 2}])
def test_a_model_without_words_refuses_them(site: Site, asked: dict[str, Any]) -> None:
    answer = site.client.post("/api/videos", json=asked)
    assert answer.status_code == 400 and "takes no text" in answer.json()["error"]
    assert "takes none" not in answer.json()["error"]


def without_encoder(make_pipe: Callable[..., MagiVideoPipeline], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model with words on a machine where the extra is not installed."""
    pipe = make_pipe(conditions={"text": {"size": 8, "kind": "sequence", "tokens": 2}})
    pipe.text_folder = folder / "text_encoder"
    pipe.text_folder.mkdir()
    (pipe.text_folder / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    return pipe


def test_the_missing_extra_is_told_and_the_rest_works(
    make_site: Callable[..., Site],
    make_pipe: Callable[..., MagiVideoPipeline],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = make_site(without_encoder(make_pipe, tmp_path, monkeypatch))
    problem = f"text needs the extra packages: {install_command('text')}"
    assert site.client.get("/api/model").json()["text_problem"] == problem
    answer = site.client.post("/api/videos", json={"text": "a ball"})
    assert answer.status_code == 400 and answer.json()["error"] == problem
    assert site.follow(site.order(frames=2)["video"])[1]["state"] == "done"


def test_an_unusable_encoder_is_told_without_its_place(
    make_site: Callable[..., Site], make_pipe: Callable[..., MagiVideoPipeline], tmp_path: Path
) -> None:
    pipe = make_pipe(conditions={"text": {"size": 8, "kind": "sequence", "tokens": 2}})
    pipe.text_folder = tmp_path / "text_encoder"
    problem = make_site(pipe).client.get("/api/model").json()["text_problem"]
    assert "no such file" in problem and str(tmp_path) not in problem
