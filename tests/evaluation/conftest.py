"""Small sets of clips and a small untrained model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.codecs.pixels import PixelCodec
from magi_video.evaluation.features import Detectors
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline
from tests.data.examples import write_numbered
from tests.evaluation.networks import small_detectors


@pytest.fixture
def detectors() -> Detectors:
    return small_detectors()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    monkeypatch.setenv("MAGI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def random_clips(count: int, seed: int = 0, frames: int = 16, size: int = 16) -> list[np.ndarray]:
    """Smooth random clips: few grey levels, moving."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, frames, 4, 4, 3))
    return list(coarse.repeat(size // 4, axis=2).repeat(size // 4, axis=3).astype(np.uint8))


@pytest.fixture(scope="session")
def numbered_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 40, 43, …, 55 frames whose pixels tell the frame number, one of 8 frames, and a broken one."""
    folder = tmp_path_factory.mktemp("numbered")
    for number in range(6):
        write_numbered(folder / f"video_{number}.mp4", 40 + 3 * number, height=16, width=48)
    write_numbered(folder / "short.mp4", 8, height=16, width=48)
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture
def save_model(make_model: Callable[..., MagiVideoTransformer], tmp_path: Path) -> Callable[..., Path]:
    """Saves an untrained model of 8 × 8 pixels that takes three actions and two classes."""

    def save(name: str = "model", seed: int = 0) -> Path:
        torch.manual_seed(seed)
        codec = PixelCodec()
        codec.set_statistics([0.0] * 3, [0.5] * 3)
        conditions = {
            "action": {"size": 3, "kind": "vector", "drop": 0.1},
            "label": {"size": 2, "drop": 0.1},
        }
        transformer = make_model(temporal_position="rope", conditions=conditions)
        pipe = MagiVideoPipeline(
            transformer,
            codec,
            height=8,
            width=8,
            frame_rate=10.0,
            action_names=["LEFT", "RIGHT", "FIRE"],
            class_names=["cats", "dogs"],
            mask_steps=2,
            denoise_steps=2,
        )
        pipe.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save
