"""Recipes: every one parses, the rivals differ in one key, files are checked."""

import dataclasses
import json
from pathlib import Path

import pytest

from magi_video.errors import MagiError
from magi_video.presets import PRESETS, load_preset
from magi_video.recipe import Preset
from magi_video.settings import from_json


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_json_round_trip(name: str, tmp_path: Path) -> None:
    preset = load_preset(name)
    path = tmp_path / "preset.json"
    path.write_text(json.dumps(dataclasses.asdict(preset)))
    assert load_preset(str(path)) == preset


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("-mtf")])
def test_ctf_and_mtf_differ_in_one_key_only(name: str) -> None:
    masked, complete = (dataclasses.asdict(load_preset(one)) for one in (name, name.removesuffix("-mtf")))
    different = {key for key in masked if masked[key] != complete[key]}
    assert different == {"forcing"} and (complete["forcing"], masked["forcing"]) == ("complete", "masked")


def test_paper_recipe() -> None:
    """SPEC of the paper's UCF-101 model; the defaults are the paper's."""
    preset = load_preset("ucf101")
    assert (preset.model.hidden, preset.model.depth, preset.model.heads, preset.model.mlp) == (1280, 20, 16, 5120)
    assert (preset.model.head_width, preset.model.head_depth, preset.model.patch_size) == (1024, 3, 2)
    assert (preset.data.height, preset.data.num_frames, preset.data.max_interval) == (256, 16, 25)
    assert (preset.train.learning_rate, preset.train.batch_size, preset.train.warmup_steps) == (1e-4, 128, 10_000)
    assert (preset.train.weight_decay, preset.train.clip_norm, preset.train.ema_decay) == (0.02, 3.0, 0.9999)
    assert preset.train.steps == pytest.approx(1400 * 9537 / 128, rel=0.01)
    assert (preset.exposure.noise_levels, preset.exposure.noise_sigma, preset.exposure.diffusion_batch_mul) == (
        5,
        0.7,
        4,
    )
    assert (preset.own_sampling.mask_steps, preset.own_sampling.denoise_steps) == (64, 100)


@pytest.mark.parametrize(("name", "videos", "epochs", "batch", "rate"), [
    ("ucf101", 9_537, 1400, 128, 1e-4), ("ucf101-cosmos", 9_537, 1400, 128, 1e-4), ("k600", 392_622, 150, 256, 2e-4),
])  # fmt: skip
def test_the_papers_recipes(name: str, videos: int, epochs: int, batch: int, rate: float) -> None:
    """Appendix A.3; all else is the same for the three models."""
    preset = load_preset(name)
    assert (preset.train.batch_size, preset.train.learning_rate) == (batch, rate)
    assert abs(preset.train.steps * batch - epochs * videos) <= batch / 2
    own = {"steps": preset.train.steps, "batch_size": batch, "learning_rate": rate}
    # MAR's: a constant decay of the averages, and dropout (its block gives `proj_dropout` to the MLP as well).
    dropout = {"attention_dropout": 0.1, "projection_dropout": 0.1, "mlp_dropout": 0.1}
    assert preset.train == dataclasses.replace(Preset().train, **own, **dropout, ema_warmup=False)
    assert (preset.model, preset.exposure, preset.sample) == (Preset().model, Preset().exposure, Preset().sample)
    assert preset.data.flip == 0.5 and load_preset(f"{name}-mtf").data.flip == 0.5
    assert (preset.data.height, preset.data.width, preset.data.min_interval, preset.data.max_interval) == (
        256,
        256,
        1,
        25,
    )
    assert preset.data.num_frames == (16 if preset.codec.codec == "image_vae" else 17)
    assert preset.data.dataset == ("kinetics600" if name == "k600" else "ucf101")


def test_dropout_and_flips_are_off_in_small_worlds_and_kept_away_from_what_names_a_side() -> None:
    for name in ("tiny", "doom", "atari", "base"):
        preset = load_preset(name)
        assert preset.data.flip == 0
        assert preset.train.attention_dropout == preset.train.projection_dropout == preset.train.mlp_dropout == 0
    ucf101 = load_preset("ucf101")
    for condition in ("actions", "text"):
        with pytest.raises(MagiError, match="may name a side: give --flip 0"):
            dataclasses.replace(ucf101, model=dataclasses.replace(ucf101.model, **{condition: True}))
    dataclasses.replace(ucf101, model=dataclasses.replace(ucf101.model, labels=True))
    with pytest.raises(MagiError, match="mlp_dropout must be below 1, got 1"):
        dataclasses.replace(ucf101, train=dataclasses.replace(ucf101.train, mlp_dropout=1.0))
    with pytest.raises(MagiError, match=r"flip must lie in 0…1, got 1\.5"):
        dataclasses.replace(ucf101, data=dataclasses.replace(ucf101.data, flip=1.5))


def test_a_file_needs_only_what_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"forcing": "masked", "model": {"depth": 8}, "exposure": {"noise_sigma": 1}}')
    preset = load_preset(str(path))
    assert preset.forcing == "masked" and preset.model.depth == 8 and preset.exposure.noise_sigma == 1.0
    assert preset.train == Preset().train


def test_a_number_that_may_be_left_open_is_a_number_or_null() -> None:
    assert from_json(Preset, {"sample": {"first_step": 999}}, "x").sample.first_step == 999
    assert from_json(Preset, {"sample": {"first_step": None}}, "x").sample.first_step is None


@pytest.mark.parametrize(("content", "message"), [
    ('{"modle": {}}', "unknown setting 'modle'"),
    ('{"model": {"depth": "8"}}', "model.depth must be a whole number"),
    ('{"model": {"depth": true}}', "model.depth must be a whole number"),
    ('{"forcing": "noisy"}', "forcing must be one of complete, "),
    ('{"data": {"max_interval": 26}}', "data.max_interval must lie in 1…25, got 26"),
    ('{"exposure": {"mask_ratio_min": 0}}', "mask_ratio_min"),
    ('{"train": {"workers": -1}}', "train.workers must lie in 0…1,024, got -1"),
    ('{"train": {"checkpoint_every": 0}}', "train.checkpoint_every must be at least 1"),
    ('{"train": {"ema_decay": 1.5}}', "train.ema_decay must lie in 0…1, got 1.5"),
    ('{"data": {"height": 1000000}}', "data.height must lie in 1…16,384"),
    ('{"small_vae": {"width": 0}}', "small_vae.width must lie in 1…4,096"),
    ('{"sample": {"first_step": 1000}}', "sample.first_step must lie in 0…999, got 1000"),
    ('{"sample": {"first_step": "999"}}', "sample.first_step must be a whole number"),
    ('{"model": {"head": "flow"}, "sample": {"first_step": 999}}', "a flow head has no first denoise step"),
    ("[1, 2]", "expected a JSON object"),
    ("{", "not a readable JSON"),
])  # fmt: skip
def test_bad_files_are_told_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(MagiError, match=message):
        load_preset(str(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    for name in ("learning_rate", "clip_norm", "weight_decay"):
        with pytest.raises(MagiError, match=rf"{name} must be .*, got {value}"):
            Preset(train=dataclasses.replace(Preset().train, **{name: value}))


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(MagiError, match="doom"):
        load_preset("dooom")


def test_wrong_types_inside_tuples_are_refused() -> None:
    with pytest.raises(MagiError, match="encoder_blocks"):
        from_json(Preset, {"small_vae": {"encoder_blocks": 3}}, "x")
