"""A folder of short synthetic videos with actions, and a recipe that trains on it in seconds."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.presets import load_preset
from magi_video.recipe import Preset
from magi_video.video.video import write_video


def moving_square(frames: int, start: int, speed: int, size: int = 16) -> np.ndarray:
    """A bright square that moves to the right and wraps, on a background of its own, uint8 [T, size, size, 3]."""
    video = np.full((frames, size, size, 3), (20, 20 + 40 * speed, 60), np.uint8)
    for t in range(frames):
        columns = (start + speed * t + np.arange(4)) % size
        video[t, 4:10][:, columns] = (230, 200, 40)
    return video


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 24 frames; the action "FAST" says which squares move two pixels a frame."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        speed = 1 + number % 2
        write_video(folder / f"video_{number}.mp4", moving_square(24, 3 * number, speed), 10.0, crf=4)
        rows = [{"frame": t, "action": {"FAST": 1} if speed == 2 else {}} for t in range(24)]
        (folder / f"video_{number}.actions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def tiny_recipe(**train: Any) -> Preset:
    """The tiny preset with some training settings changed."""
    preset = load_preset("tiny")
    settings: dict[str, Any] = {"steps": 6, "checkpoint_every": 3, "sample_every": 0}
    return dataclasses.replace(preset, train=dataclasses.replace(preset.train, **settings | train))


@pytest.fixture
def recipe() -> Callable[..., Preset]:
    """See `tiny_recipe`."""
    return tiny_recipe


class LengthEncoder:
    """A text encoder that needs no package: a text's length."""

    size = 4
    example = "a text"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def encode(self, texts: Sequence[str], tokens: int) -> torch.Tensor:
        lengths = torch.tensor([float(len(text)) for text in texts])
        return torch.sin(lengths[:, None, None] * torch.arange(1, self.size + 1)).expand(-1, tokens, -1)

    def check(self, text: str) -> None:
        """Any text will do."""

    def fingerprint(self) -> str:
        return "length"


@pytest.fixture
def length_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and generating encode texts by `LengthEncoder`."""
    monkeypatch.setattr("magi_video.training.captions.fetch_encoder", lambda name, out, texts: LengthEncoder(out))
    monkeypatch.setattr("magi_video.codecs.text_encoder.load_encoder", LengthEncoder)
