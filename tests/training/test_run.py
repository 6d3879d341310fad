"""What a run keeps to when it goes on, and what may change."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from magi_video.errors import MagiError
from magi_video.files.artifact import differences
from magi_video.presets import load_preset
from magi_video.recipe import Preset, former
from magi_video.training.display import Silent
from magi_video.training.run import lasting, train
from magi_video.video.video import write_video
from tests.training.conftest import moving_square


def record(seed: int = 0, **groups: dict[str, Any]) -> dict[str, Any]:
    """A run's record as it is read from the disk, with some settings changed."""
    preset = load_preset("tiny")
    changed = {name: dataclasses.replace(getattr(preset, name), **values) for name, values in groups.items()}
    return json.loads(json.dumps({"preset": dataclasses.asdict(dataclasses.replace(preset, **changed)), "seed": seed}))


def changes(now: dict[str, Any], before: dict[str, Any] | None = None, **options: Any) -> list[str]:
    before = record() if before is None else before
    return differences(lasting(before, **options), lasting(now, **options), (before, now))


def test_a_run_keeps_to_what_is_made_of_it() -> None:
    now = record(1, model={"text_encoder": "x/y", "depth": 3}, data={"height": 32})
    assert changes(now, made=()) == []
    assert changes(now, made=("codec",)) == ["height 16 → 32", "seed 0 → 1"]
    assert [one.split()[0] for one in changes(now, made=("text_encoder",))] == ["text_encoder"]
    assert len(changes(now)) == 4


def test_how_long_and_how_often_may_change_and_what_is_learned_may_not() -> None:
    assert changes(record(train={"steps": 7, "workers": 3, "sharding": "full"}, sample={"mask_steps": 3})) == []
    assert changes(record(train={"batch_size": 3})) == [f"train.batch_size {load_preset('tiny').train.batch_size} → 3"]
    assert changes(record(small_vae={"steps": 7})) == [f"small_vae.steps {load_preset('tiny').small_vae.steps} → 7"]
    assert changes(record(seed=1)) == ["seed 0 → 1"]


def test_a_setting_that_there_was_not_yet_was_at_its_default() -> None:
    before = record()
    before["preset"]["exposure"].pop("noise_sigma")
    assert changes(record(exposure={"noise_sigma": Preset().exposure.noise_sigma}), before) == []
    assert len(changes(record(exposure={"noise_sigma": 0.1}), before)) == 1


def test_a_setting_that_replaced_what_runs_did_is_completed_with_what_they_did() -> None:
    before = record()
    before["preset"]["train"].pop("decay_embeddings")
    assert former(before["preset"]) == {"train": {"decay_embeddings": False}}
    assert changes(record(train={"decay_embeddings": False}), before) == []
    assert changes(record(), before) == ["decay_embeddings False → True"]


def test_a_run_of_an_earlier_version_goes_on_as_it_began(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "0.mp4", moving_square(12, 0, 1), 10.0)
    told: list[str] = []

    class Told(Silent):
        def say(self, text: str) -> None:
            told.append(text)

    def go_on(run: str, steps: int, **train_settings: Any) -> dict[str, torch.Tensor]:
        preset = load_preset("tiny")
        train_settings |= {"steps": steps, "tracker": "none", "sample_every": 0}
        preset = dataclasses.replace(preset, train=dataclasses.replace(preset.train, **train_settings))
        train(preset, tmp_path / "videos", tmp_path / run, display=Told())
        return load_file(tmp_path / run / "checkpoints" / f"step_{steps:08d}" / "ema.safetensors")

    went_through = go_on("through", 4, decay_embeddings=False, ema_warmup=True)
    go_on("earlier", 2, decay_embeddings=False, ema_warmup=True)
    path = tmp_path / "earlier" / "run.json"
    saved = json.loads(path.read_text())
    for name in ("decay_embeddings", "ema_warmup", "log_every"):  # the last may change whenever a run goes on
        saved["preset"]["train"].pop(name)
    saved["preset"]["sample"].pop("mask_steps")
    path.write_text(json.dumps(saved))
    assert not any("goes on as it began" in line for line in told)
    go_on("earlier", 3, ema_warmup=False, log_every=1)
    said = [line for line in told if "goes on as it began" in line]
    assert len(said) == 1 and said[0].endswith(": decay_embeddings True → False; ema_warmup False → True")
    assert json.loads(path.read_text())["former"] == {"train": {"decay_embeddings": False, "ema_warmup": True}}
    went_on = go_on("earlier", 4, ema_warmup=False)  # the record names the settings now, and the command may stay
    assert all(torch.equal(went_on[name], value) for name, value in went_through.items())
    with pytest.raises(MagiError, match="learning_rate"):
        go_on("earlier", 5, learning_rate=0.5)


def test_what_failed_at_its_start_can_be_mended_in_the_same_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "0.mp4", moving_square(12, 0, 1), 10.0)

    def start(seed: int = 0, steps: int = 0, **groups: dict[str, Any]) -> Path:
        preset = load_preset("tiny")
        groups["train"] = groups.get("train", {}) | {"steps": steps, "tracker": "none", "sample_every": 0}
        changed = {name: dataclasses.replace(getattr(preset, name), **values) for name, values in groups.items()}
        return train(dataclasses.replace(preset, **changed), tmp_path / "videos", tmp_path / "run", seed)

    with pytest.raises(MagiError, match="nowhere"):
        start(seed=5, codec={"codec": "image_vae", "vae": "nowhere"})
    assert not (tmp_path / "run").exists()
    with pytest.raises(MagiError, match="lie in no class folders"):
        start(model={"labels": True})
    assert (tmp_path / "run" / "codec").is_dir()
    with pytest.raises(MagiError, match=r"other settings \(height 16 → 32; seed 0 → 1\)"):
        start(seed=1, data={"height": 32})  # its codec is measured, on other frames and with another seed
    text = {"text": True, "text_encoder": str(tmp_path)}
    with pytest.raises(MagiError, match="no video has a caption"):
        start(model=text)
    start(steps=1)
    with pytest.raises(MagiError, match=r"other settings \(hidden 64 → 32\)"):
        start(steps=2, model={"hidden": 32})


@pytest.mark.parametrize("damage", [{}, {"preset": []}, {"preset": {"model": {"hidden": "wide"}}}])
def test_a_record_that_is_none_is_told_in_a_line(damage: dict[str, Any]) -> None:
    with pytest.raises(MagiError, match=r"run\.json"):
        lasting(damage)


def test_another_run_is_refused_as_such_and_not_for_the_codec_that_it_holds(tmp_path: Path) -> None:
    """Its codec has no codes, which the recipe that is asked for needs; that is not what is wrong here."""
    out, data = tmp_path / "run", tmp_path / "videos"
    write_video(data / "a.mp4", moving_square(8, 0, 1), 10.0, crf=4)
    first = load_preset("tiny")
    train(dataclasses.replace(first, train=dataclasses.replace(first.train, steps=1, sample_every=0)), data, out)
    model = dataclasses.replace(first.model, head="categorical", patch_size=1)
    codec = dataclasses.replace(first.codec, codec="vq")
    with pytest.raises(MagiError, match=r"holds a run made with other settings .*codec pixels → vq.*use another --out"):
        train(dataclasses.replace(first, model=model, codec=codec), data, out)
