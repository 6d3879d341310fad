"""Folders of an earlier revision load, go on where it stopped, and refuse other settings. `make.py` made them."""

import dataclasses
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from magi_video.errors import MagiError
from magi_video.evaluation.generation import evaluate
from magi_video.pipeline import MagiPipeline
from magi_video.presets import load_preset
from magi_video.recipe import Preset
from magi_video.recordings.record import record
from magi_video.training.encode import encode
from magi_video.training.run import train
from tests.evaluation.networks import small_detectors

GAME: dict[str, Any] = {"seed": 0, "max_frames": 24, "height": 16, "width": 16}


@pytest.fixture(autouse=True)
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder holds them; names in them are relative to it."""
    with tarfile.open(Path(__file__).with_name("folders.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAGI_CACHE", str(tmp_path / ".cache"))


@pytest.fixture
def preset() -> Preset:
    return load_preset("recipe.json")


def losses(run: str) -> list[float]:
    return [json.loads(line)["loss"] for line in (Path(run) / "log.jsonl").read_text().splitlines()]


def assert_same_weights(one: str, other: str) -> None:
    """Equal but for what another CPU rounds otherwise."""
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-4, err_msg=name)


def test_a_recording_goes_on(tmp_path: Path) -> None:
    summary = record("magi/BouncingBalls-v0", "record_stopped", episodes=2, **GAME)
    assert (summary.kept, summary.episodes) == (1, 2)
    actions, described = "episode_00001.actions.jsonl", "recording.json"
    assert (Path("record_stopped") / actions).read_text() == (Path("record") / actions).read_text()
    now, whole = (json.loads((Path(name) / described).read_text()) for name in ("record_stopped", "record"))
    assert now == whole | {"player": "explorer 1"}, "who played is recorded now"
    with pytest.raises(MagiError, match="seed 0 → 1"):
        record("magi/BouncingBalls-v0", "record_stopped", episodes=2, **GAME | {"seed": 1})


def test_a_run_goes_on(preset: Preset) -> None:
    train(preset, "record", "run_stopped")
    np.testing.assert_allclose(losses("run_stopped"), losses("run"), rtol=1e-3)
    part = "transformer/diffusion_pytorch_model.safetensors"
    assert_same_weights(f"run_stopped/{part}", f"run/{part}")
    with pytest.raises(MagiError, match="depth 1 → 2"):
        train(dataclasses.replace(preset, model=dataclasses.replace(preset.model, depth=2)), "record", "run_stopped")


def test_a_finished_run_is_a_model(preset: Preset) -> None:
    before = Path("run/transformer/diffusion_pytorch_model.safetensors").read_bytes()
    train(preset, "record", "run")
    assert Path("run/transformer/diffusion_pytorch_model.safetensors").read_bytes() == before
    frames = MagiPipeline.from_pretrained("run")(image=np.zeros((16, 16, 3), np.uint8), num_frames=3).frames
    assert frames.shape == (1, 3, 16, 16, 3)


def test_the_training_of_a_codec_goes_on(preset: Preset) -> None:
    train(preset, "record", "codec_stopped")
    part = "codec/diffusion_pytorch_model.safetensors"
    assert_same_weights(f"codec_stopped/{part}", f"run/{part}")
    np.testing.assert_allclose(losses("codec_stopped"), losses("run"), rtol=1e-2)
    wider = dataclasses.replace(preset, small_vae=dataclasses.replace(preset.small_vae, width=16))
    with pytest.raises(MagiError, match="width 8 → 16"):
        train(wider, "record", "codec_stopped")


def test_a_latent_cache_goes_on_and_is_trained_on(preset: Preset) -> None:
    assert encode(preset, "record", "cache", shard_bytes=1000).shards == []
    kept = Path("cache_stopped/shards/00000.safetensors").stat().st_mtime_ns
    assert encode(preset, "record", "cache_stopped", shard_bytes=1000).shards == [1]
    assert Path("cache_stopped/shards/00000.safetensors").stat().st_mtime_ns == kept
    train(preset, None, "of_cache", latents="cache_stopped")
    np.testing.assert_allclose(losses("of_cache"), losses("run"), rtol=1e-2)
    with pytest.raises(MagiError, match="seed 0 → 1"):
        encode(preset, "record", "cache", shard_bytes=1000, seed=1)


def test_an_evaluation_goes_on() -> None:
    options: dict[str, Any] = {"frames": 10, "num": 2, "detectors": small_detectors(), "over_length": False}
    options |= {"cache": False, "batch_size": 1, "precision": "float32"}
    first = Path("evaluation_stopped/samples/000000.npy").stat().st_mtime_ns
    result = evaluate("run", "record", out="evaluation_stopped", **options)
    assert Path("evaluation_stopped/samples/000000.npy").stat().st_mtime_ns == first
    ours, theirs = (np.load(f"{out}/samples/000001.npy").astype(int) for out in ("evaluation_stopped", "evaluation"))
    assert np.abs(ours - theirs).max() <= 1
    before = json.loads(Path("evaluation/metrics.json").read_text())["generation"]
    assert {name: result["generation"][name] for name in before} == before
    with pytest.raises(MagiError, match="seed 0 → 1"):
        evaluate("run", "record", out="evaluation_stopped", **options, seed=1)
