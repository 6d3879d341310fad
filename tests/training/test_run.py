"""What a run keeps to when it goes on, and what may change."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from magi_video.claims import differences
from magi_video.data import write_video
from magi_video.errors import MagiError
from magi_video.presets import Preset, load_preset
from magi_video.training import train
from magi_video.training.run import lasting
from tests.training.conftest import moving_square


def record(seed: int = 0, **groups: dict[str, Any]) -> dict[str, Any]:
    """A run's record as it is read from the disk, with some settings changed."""
    preset = load_preset("tiny")
    changed = {name: dataclasses.replace(getattr(preset, name), **values) for name, values in groups.items()}
    return json.loads(json.dumps({"preset": dataclasses.asdict(dataclasses.replace(preset, **changed)), "seed": seed}))


def changes(now: dict[str, Any], before: dict[str, Any] | None = None, **options: Any) -> list[str]:
    return differences(lasting(record() if before is None else before, **options), lasting(now, **options))


def test_a_run_keeps_to_what_is_made_of_it() -> None:
    now = record(1, model={"text_encoder": "x/y", "depth": 3}, data={"height": 32})
    assert changes(now, made=()) == []
    assert changes(now, made=("codec",)) == ["height 16 → 32", "seed 0 → 1"]
    assert [one.split()[0] for one in changes(now, made=("text_encoder",))] == ["text_encoder"]
    assert len(changes(now)) == 4


def test_how_long_and_how_often_may_change_and_what_is_learned_may_not() -> None:
    assert changes(record(train={"steps": 7, "workers": 3, "sharding": "full"}, sample={"mask_steps": 3})) == []
    assert changes(record(train={"batch_size": 3})) == [f"batch_size {load_preset('tiny').train.batch_size} → 3"]
    assert changes(record(small_vae={"steps": 7})) == [f"steps {load_preset('tiny').small_vae.steps} → 7"]
    assert changes(record(seed=1)) == ["seed 0 → 1"]


def test_a_setting_that_there_was_not_yet_was_at_its_default() -> None:
    before = record()
    before["preset"]["exposure"].pop("noise_sigma")
    assert changes(record(exposure={"noise_sigma": Preset().exposure.noise_sigma}), before) == []
    assert len(changes(record(exposure={"noise_sigma": 0.1}), before)) == 1


def test_what_failed_at_its_start_can_be_mended_in_the_same_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "0.mp4", moving_square(12, 0, 1), 10.0)

    def start(seed: int = 0, steps: int = 0, **groups: dict[str, Any]) -> Path:
        preset = load_preset("tiny")
        groups["train"] = groups.get("train", {}) | {"steps": steps, "tracker": "none", "sample_every": 0}
        changed = {name: dataclasses.replace(getattr(preset, name), **values) for name, values in groups.items()}
        return train(dataclasses.replace(preset, **changed), tmp_path / "videos", tmp_path / "run", seed)

    with pytest.raises(MagiError, match="nowhere"):
        start(seed=5, codec={"codec": "image_vae", "vae": "nowhere"})
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 5
    with pytest.raises(MagiError, match="multiple of 4"):
        start(model={"hidden": 30})
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
