"""The model inside the package: small, complete, and still Doom after a while."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.cli import main
from magi_video.data import read_image
from magi_video.loading import SHIPPED
from magi_video.pipeline import MagiPipeline


@pytest.fixture(scope="module")
def doom() -> MagiPipeline:
    return MagiPipeline.from_pretrained("doom")


def test_it_is_small_and_holds_nothing_to_unpickle() -> None:
    files = [path for path in (SHIPPED / "doom").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20 * 2**20
    assert {path.suffix for path in files} == {".json", ".safetensors", ".png", ".md"}


def test_it_says_how_it_was_made(doom: MagiPipeline) -> None:
    training = doom.config.training
    assert doom.config.forcing == "complete" and training["steps"] == training["preset"]["train"]["steps"]
    assert training["data"]["frames"] > 100_000
    assert "ATTACK" in doom.config.action_names and doom.transformer.config.temporal_position == "rope"


def test_its_codec_shows_the_first_frame(doom: MagiPipeline) -> None:
    first = read_image(SHIPPED / "doom" / "first_frame.png")
    shown = doom(image=first, num_frames=1).frames[0, 0]
    assert -10 * np.log10(np.square(shown - first / 255).mean()) > 28


def test_frames_stay_frames_and_the_picture_follows_the_controls(doom: MagiPipeline) -> None:
    first = read_image(SHIPPED / "doom" / "first_frame.png")
    frames = {}
    for name in ("TURN_LEFT", "TURN_RIGHT"):
        frames[name] = doom(
            image=first, num_frames=24, interval=2, num_mask_steps=4, num_denoise_steps=12,
            actions=[doom.action(name)] * 24, generator=torch.Generator().manual_seed(0),
        ).frames[0]  # fmt: skip
        late = frames[name][-8:]
        assert 0.05 < late.std(axis=(1, 2)).mean() < 0.35, "neither a flat colour nor noise"
        assert np.abs(late.mean() - frames[name][0].mean()) < 0.2
        assert np.abs(np.diff(frames[name], axis=0)).mean() > 0.005, "it moves"
    assert np.abs(frames["TURN_LEFT"][-1] - frames["TURN_RIGHT"][-1]).mean() > 0.02


def test_demo_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path), "--frames", "5"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "sample_000.mp4",
        "contact.png",
        "generate.json",
        "first_frame.png",
    }
    assert str(tmp_path / "sample_000.mp4") in capsys.readouterr().out
    assert len(json.loads((tmp_path / "generate.json").read_text())["seconds_per_frame"]) == 5
