"""Captions in a latent cache: a training that has the cache alone is told what one with the videos is told."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from magi_video.errors import MagiError
from magi_video.latents.cache import LatentCache
from magi_video.recipe import Preset
from magi_video.training.display import Silent
from magi_video.training.encode import encode
from magi_video.training.run import train
from magi_video.video.video import write_video
from tests.training.conftest import moving_square

CAPTIONS = {"a/1": "a square that moves", "a/2": None, "b": "zwei Bälle 球 👍🏽"}
"""In the order of the data set."""


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, (name, caption) in enumerate(CAPTIONS.items()):
        write_video(tmp_path / "data" / f"{name}.mp4", moving_square(12, number, 1), 10.0)
        if caption:
            (tmp_path / "data" / f"{name}.txt").write_text(caption, encoding="utf-8")
    return tmp_path / "data"


@pytest.fixture
def captioned(recipe: Callable[..., Preset]) -> Preset:
    preset = recipe(steps=2, log_every=1)
    return dataclasses.replace(preset, model=dataclasses.replace(preset.model, text=True, text_tokens=2))


def captions(cache: Path) -> list[str | None]:
    return LatentCache(cache).videos().captions


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_cache_alone_teaches_what_the_videos_teach(
    data: Path, captioned: Preset, tmp_path: Path, length_encoder: None
) -> None:
    encode(captioned, data, tmp_path / "cache")
    assert sorted(captions(tmp_path / "cache"), key=str) == sorted(CAPTIONS.values(), key=str)
    train(captioned, data, tmp_path / "both", latents=tmp_path / "cache")
    shutil.rmtree(data)
    train(captioned, None, tmp_path / "alone", latents=tmp_path / "cache")
    assert losses(tmp_path / "alone") == losses(tmp_path / "both")
    one, other = (tmp_path / run / "captions.safetensors" for run in ("alone", "both"))
    assert one.read_bytes() == other.read_bytes()


def test_changed_captions_are_taken_up_and_no_latent_is_encoded_again(
    data: Path, captioned: Preset, tmp_path: Path
) -> None:
    encode(captioned, data, tmp_path / "cache")
    before = contents(tmp_path / "cache")
    assert encode(captioned, data, tmp_path / "cache").shards == []
    assert contents(tmp_path / "cache") == before
    (data / "b.txt").write_text("other words")
    assert encode(captioned, data, tmp_path / "cache").shards == []
    assert "other words" in captions(tmp_path / "cache")
    encode(captioned, data, tmp_path / "anew")
    assert contents(tmp_path / "cache") == contents(tmp_path / "anew")


def test_a_cache_without_captions_is_as_ever_and_is_refused_in_a_line(
    data: Path, captioned: Preset, tmp_path: Path, length_encoder: None
) -> None:
    for file in data.rglob("*.txt"):
        file.unlink()
    encode(captioned, data, tmp_path / "cache")
    assert b"captions" not in (tmp_path / "cache" / "videos.safetensors").read_bytes(), "as caches were before"
    assert captions(tmp_path / "cache") == [None] * 3
    with pytest.raises(MagiError, match="no video has a caption: run magi encode again") as refused:
        train(captioned, None, tmp_path / "run", latents=tmp_path / "cache")
    assert "\n" not in str(refused.value)
    (data / "b.txt").write_text("a ball")
    assert encode(captioned, data, tmp_path / "cache").shards == []
    assert captions(tmp_path / "cache").count("a ball") == 1


def test_unusable_captions_do_not_stop_the_encoding_but_are_told(data: Path, captioned: Preset, tmp_path: Path) -> None:
    (data / "metadata.csv").write_text("file_name,score\nb.mp4,3\n")
    notes = Notes()
    encode(captioned, data, tmp_path / "cache", display=notes)
    assert [line for line in notes.said if "without captions" in line and "expected file_name and text" in line]
    assert captions(tmp_path / "cache") == [None] * 3
