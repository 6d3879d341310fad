"""Training under each cure: the same bits after a stop, in parts and from parts; no waiting; and it generates."""

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from magi_video.exposure import CURES
from magi_video.fast.speed import speed_up
from magi_video.models.sequence import Clip
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import CompleteTeacherForcing
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import ExposureConfig, Preset
from magi_video.training.run import train
from tests.exposure.test_cures import active, model_of
from tests.training.conftest import recipe, videos
from tests.training.test_trainer import final_state

__all__ = ["recipe", "videos"]
OPTIONS = {"resampling": {"plain_steps": "1"}, "error-bank": {"size": "6"}}
OTHERS = [name for name in CURES if name != "noise"]
"""`noise` is what every other test of training trains with."""


def under(preset: Preset, cure: str) -> Preset:
    return dataclasses.replace(preset, exposure=ExposureConfig(exposure=cure, exposure_options=OPTIONS.get(cure, {})))


@pytest.mark.parametrize("cure", OTHERS)
def test_a_run_that_was_stopped_ends_in_the_same_bits_and_in_parts_in_the_same_weights(
    cure: str, videos: Path, recipe: Callable[..., Preset], tmp_path: Path
) -> None:
    def run(out: str, steps: int, **more: int) -> dict[str, torch.Tensor]:
        train(under(recipe(steps=steps, checkpoint_every=2, **more), cure), videos, tmp_path / out, seed=3)
        found = final_state(tmp_path / out, steps)
        file = tmp_path / out / "checkpoints" / f"step_{steps:08d}" / "exposure.safetensors"
        assert file.is_file() == (cure == "error-bank"), "a checkpoint keeps what a cure has, and no empty file"
        return found | ({f"exposure/{key}": value for key, value in load_file(file).items()} if file.is_file() else {})

    whole = run("whole", 4)
    run("halves", 2)
    halves = run("halves", 4)
    assert whole.keys() == halves.keys() and all(torch.equal(whole[key], halves[key]) for key in whole)
    parts = run("parts", 4, accumulate=2)
    kept = [key for key in whole if key.startswith(("model/", "exposure/"))]
    assert all(torch.allclose(whole[key], parts[key], atol=2e-5) for key in kept)
    if cure == "error-bank":
        assert whole["exposure/errors"].abs().amax((1, 2)).min() > 0, "16 clips in 6 places"
    pipe = MagiVideoPipeline.from_pretrained(tmp_path / "whole")
    frames = pipe(num_frames=4, generator=torch.Generator().manual_seed(0)).frames
    assert frames.shape[:2] == (1, 4) and frames.std() > 0
    assert pipe.config.training["preset"]["exposure"]["exposure"] == cure
    assert (pipe.transformer.canvas_out is not None) == (cure == "canvas")


@pytest.mark.parametrize("cure", CURES)
def test_a_step_asks_for_no_value(
    cure: str, make_model: Callable[..., MagiVideoTransformer], clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor of the meta device has no values: whatever asks for one raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know the device
    conditions = {name: value.to("meta") for name, value in clip.conditions.items()}
    moved = Clip(clip.tokens_BTND.to("meta"), clip.interval_B.to("meta"), conditions)
    model = speed_up(model_of(make_model, cure).to("meta")).train()
    one = active(cure)
    for tensor in one.tensors(model):
        setattr(one, f"_{tensor}_KND", one.tensors(model)[tensor].to("meta"))
    one.begin_step(1)
    total, _ = CompleteTeacherForcing(exposure=one).total_loss(model, moved)
    total.backward()
    one.end_step(torch.ones((), dtype=torch.bool, device="meta"), lambda values: values)
    assert total.is_meta
