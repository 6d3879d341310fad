"""A paradigm is one file: a new one trains and generates by being written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from magi_video.cli import main
from magi_video.paradigms import PARADIGMS
from magi_video.pipeline import MagiVideoPipeline
from tests.adding import added

FILE = '''
"""Frames that know nothing of each other."""

import torch

from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.sequence import MASKED, FrameSequence
from magi_video.paradigms import MaskedFrames, register
from magi_video.paradigms.masked_frames import own_frame


@register
class Alone(MaskedFrames):
    name = "alone"
    title = "every frame by itself"
    training_frames = 1
    cached_kind = MASKED
    unit = "frame"
    temporal_attention = "causal"
    cached = True
    variable_context = False
    past = "masked"
    options = {"strength": 1.0}

    def sequence(self, clip, masked_BTN):
        frames = clip.tokens_BTND.shape[1]
        level_BT = torch.zeros(masked_BTN.shape[:2], dtype=torch.long)
        return FrameSequence(
            clip.tokens_BTND * self.strength, masked_BTN, torch.full((frames,), MASKED), torch.arange(frames),
            clip.interval_B, {**clip.conditions, NOISE_LEVEL: level_BT}, torch.eye(frames, dtype=torch.bool),
        )

    def visible(self, masked_TN):
        return own_frame(masked_TN)
'''


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    with added(tmp_path / "alone.py", FILE, PARADIGMS, "alone"):
        yield


@pytest.mark.usefixtures("alone")
def test_one_file_trains_and_generates(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, recipe = tmp_path / "run", tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"data": {"height": 16, "width": 16, "num_frames": 4, "max_interval": 2},
                                  "codec": {"codec": "pixels"}, "model": {"patch_size": 8, "hidden": 32, "depth": 1,
                                  "heads": 2, "mlp": 64, "head_width": 32, "head_depth": 1},
                                  "train": {"batch_size": 2, "workers": 0, "sample_every": 0},
                                  "sample": {"mask_steps": 2, "denoise_steps": 2}}))  # fmt: skip
    options = ["--forcing", "alone", "--forcing-options", "strength", "2", "--steps", "2"]
    assert main(["train", str(recipe), "--data", str(videos), "--out", str(out), *options]) == 0, (
        capsys.readouterr().err
    )
    assert MagiVideoPipeline.from_pretrained(out).config.forcing == "alone"
    assert MagiVideoPipeline.from_pretrained(out).config.forcing_options == {"strength": "2"}
    assert main(["generate", str(out), "--frames", "3", "--out", str(tmp_path / "samples")]) == 0
    assert (tmp_path / "samples" / "sample_000.mp4").stat().st_size > 0


def test_a_name_or_an_option_that_is_not_there_is_refused(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--forcing", "alone"], "forcing must be one of complete, "),
        (["--forcing-options", "strength", "2"], "'strength' is none of complete's; it has none"),
    ):
        assert main(["train", "tiny", "--data", str(videos), "--out", "never", *options]) == 1
        assert message in capsys.readouterr().err
