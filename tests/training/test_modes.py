"""What a run and a saved model write is as readable as the process's umask has it, whichever library writes it."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.codecs.registry import load_codec
from magi_video.evaluation.features import FeatureStore
from magi_video.pipeline.saving import write_pipeline
from magi_video.training.run import train
from magi_video.video.video import write_video
from tests.training.conftest import moving_square, tiny_recipe


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()}


def test_all_files_of_a_run_and_of_its_copies_have_the_usual_mode(
    tmp_path: Path, umask: int, length_encoder: None
) -> None:
    write_video(tmp_path / "data" / "0.mp4", moving_square(12, 0, 1), 10.0)
    (tmp_path / "data" / "0.txt").write_text("a square")
    preset = tiny_recipe(steps=1, checkpoint_every=1)
    preset = replace(
        preset,
        codec=replace(preset.codec, codec="small_vae"),
        small_vae=replace(preset.small_vae, steps=1, batch_size=2),
        model=replace(preset.model, text=True, text_tokens=2, patch_size=1),
    )
    run = train(preset, tmp_path / "data", tmp_path / "run")
    write_pipeline(load_codec(run / "codec").save_pretrained, tmp_path / "copy", torch.bfloat16, None)
    FeatureStore(tmp_path / "features").get(lambda: np.zeros((2, 3), np.float32), clips="a")
    for folder, among in (("run", "captions.safetensors"), ("copy", "config.json"), ("features", "")):
        found = modes(tmp_path / folder)
        assert any(name.endswith(".safetensors") for name in found) and any(among in name for name in found)
        assert set(found.values()) == {0o666 & ~umask}, found
        assert not [name for name in found if name.endswith(".mode")]
    assert any("codec" in name and name.endswith(".safetensors") for name in modes(run))
