"""A codec is one file: a new one is trained on, generates, is planned for and cached by being written."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.adding import added
from tests.data.examples import write_numbered

from magi_video.cli import main
from magi_video.codecs.base import CODECS
from magi_video.codecs.registry import load_codec
from magi_video.pipeline import MagiVideoPipeline

FILE = '''
"""Every other pixel, each by a number that the weights hold."""

import torch
from torch import nn

from magi_video.codecs.base import Codec, register
from magi_video.models.configured import capture_config


@register
class Halves(Codec):
    name = "halves"
    title = "half as high and half as wide"
    latent_channels = 3
    spatial_factor = 2
    temporal_factor = 1

    @capture_config
    def __init__(self, latents_mean=(0.0,) * 3, latents_std=(1.0,) * 3):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.set_statistics(latents_mean, latents_std)

    def encode_raw(self, video_BTCHW):
        return self.gain * video_BTCHW[..., ::2, ::2]

    def decode_raw(self, latents_BTCHW):
        return (latents_BTCHW / self.gain).repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
'''
RECIPE = {
    "data": {"height": 16, "width": 16, "num_frames": 4, "max_interval": 2},
    "codec": {"codec": "halves"},
    "model": {"patch_size": 4, "hidden": 32, "depth": 1, "heads": 2, "mlp": 64, "head_width": 32, "head_depth": 1},
    "train": {"batch_size": 2, "steps": 2, "workers": 0, "sample_every": 0},
    "sample": {"mask_steps": 2, "denoise_steps": 2},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[Path]:
    """A recipe that names such a codec, which there is while the test runs."""
    for number in range(2):
        write_numbered(tmp_path / "videos" / f"{number}.mp4", 12, height=16, width=16)
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    with added(tmp_path / "halves.py", FILE, CODECS, "halves"):
        yield tmp_path / "recipe.json"


def test_one_file_trains_and_generates(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, samples = tmp_path / "run", tmp_path / "samples"
    train = ["train", str(recipe), "--data", str(tmp_path / "videos"), "--out", str(out)]
    assert main(train) == 0, capsys.readouterr().err
    codec = load_codec(out / "codec")
    assert type(codec).__name__ == "Halves" and codec.config["latents_std"] != [1.0] * 3, "measured on the data"
    assert MagiVideoPipeline.from_pretrained(out).transformer.config.latent_height == 8
    assert (out / "latents" / "index.json").is_file(), "its latents are kept, not made in every step"
    context = ["--context", str(tmp_path / "videos" / "0.mp4"), "--context-frames", "1"]
    assert main(["generate", str(out), *context, "--frames", "3", "--save-arrays", "--out", str(samples)]) == 0
    frames = np.load(samples / "sample_000.npy")
    assert frames.shape[1:] == (16, 16, 3) and (frames[:, ::2, ::2] == frames[:, 1::2, 1::2]).all(), "it decoded them"


def test_the_plan_and_the_cache_know_it(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "cache"
    assert main(["plan", str(recipe), "--devices", "1", "--data", str(tmp_path / "videos"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["latents"]["bytes"] == 2 * 12 * 3 * 8 * 8 * 2
    assert main(["encode", str(recipe), "--data", str(tmp_path / "videos"), "--out", str(cache)]) == 0
    assert main(["train", str(recipe), "--latents", str(cache), "--out", str(tmp_path / "run")]) == 0
    other = ["train", str(recipe), "--latents", str(cache), "--out", str(tmp_path / "other"), "--codec", "pixels"]
    assert main(other) == 1 and "codec halves → pixels" in capsys.readouterr().err


def test_a_name_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "v.mp4").touch()
    assert main(["train", "tiny", "--data", str(tmp_path), "--out", "never", "--codec", "halves"]) == 1
    assert "codec must be one of image_vae, omnitokenizer, pixels, small_vae, video_vae" in capsys.readouterr().err
