"""What a recipe makes impossible is refused before a video is decoded or weights are fetched."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL

from magi_video.cli import main
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.sizes import UntrainedCodec
from magi_video.codecs.video_vae import VideoVAECodec
from magi_video.errors import MagiError
from magi_video.presets import load_preset
from magi_video.recipe import Preset, check_cure_begins
from magi_video.settings import from_json
from magi_video.training.encode import encode
from magi_video.training.run import train
from tests.codecs.codec_examples import IMAGE_VAES, KL_CONFIG, VIDEO_VAES, make_codec

TINY: dict[str, Any] = {
    "data": {"height": 16, "width": 16, "num_frames": 4},
    "codec": {"codec": "small_vae"},
    "model": {"patch_size": 1, "hidden": 32, "depth": 1, "heads": 2, "mlp": 64, "head_width": 32, "head_depth": 1},
    "train": {"batch_size": 2, "workers": 0},
}


def recipe(**groups: Any) -> Preset:
    merged = {
        name: TINY[name] | values if isinstance(TINY.get(name), dict) else values for name, values in groups.items()
    }
    preset: Preset = from_json(Preset, TINY | merged, "test")
    return preset


CANNOT = [
    ({"forcing": "diffusion", "model": {"head": "categorical"}}, "head must be epsilon or flow, got 'categorical'"),
    ({"forcing": "diffusion-v", "model": {"head": "categorical"}}, "head must be epsilon or flow, got 'categorical'"),
    (
        {"forcing": "window"},
        "window learns from clips of 5 frames or more, got clips of 4: give --forcing-options context 3 or "
        "--num-frames 5",
    ),
    ({"forcing": "joint", "forcing_options": {"given": "4"}}, "joint learns from clips of 5 frames or more"),
    ({"forcing": "genie", "data": {"num_frames": 1}}, "genie learns from clips of 2 frames or more, got clips of 1"),
]
"""Recipes of four frames that a paradigm cannot learn from, whatever the data, and why."""


@pytest.mark.parametrize(("groups", "message"), CANNOT)
def test_what_no_paradigm_can_learn_is_refused_in_python_and_in_files(
    groups: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MagiError, match=message):
        recipe(**groups)
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(TINY | groups | {name: TINY[name] | groups.get(name, {}) for name in ("data", "model")}))
    with pytest.raises(MagiError, match=message):
        load_preset(file)


@pytest.mark.parametrize("verb", ["train", "plan"])
def test_what_no_paradigm_can_learn_is_refused_by_commands(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.mp4").touch()
    command = [verb, "tiny", *{"train": ["--data", str(tmp_path), "--out", "never"], "plan": ["--devices", "1"]}[verb]]
    for options, message in (
        (["--forcing", "window"], "window learns from clips of 5 frames or more"),
        (["--forcing", "diffusion", "--codec", "vq", "--head", "categorical", "--patch-size", "1"], "must be epsilon"),
    ):
        assert main([*command, *options]) == 1
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    assert main(["plan", "tiny", "--devices", "1", "--forcing", "window", "--num-frames", "8", "--json"]) == 0


def test_a_paradigm_and_its_options_are_one_choice() -> None:
    assert load_preset("tiny", forcing="window", context=3).forcing_options == {"context": "3"}
    with pytest.raises(MagiError, match="--forcing-options context 3"):
        load_preset("tiny", forcing="window")
    with pytest.raises(MagiError, match="a recipe is the name of a preset or a file, got 3"):
        load_preset(3)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_video_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("stages", "encode"):
        monkeypatch.setattr(f"magi_video.training.{module}.open_videos", lambda *_: pytest.fail("looked at the data"))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"model": {"patch_size": 3}}, "latent size 2×2 is not a multiple of patch size 3"),
        ({"model": {"heads": 3}}, "width 32 must be a multiple of 4 and of twice the 3 heads"),
        ({"model": {"depth": 10**9}}, "depth must lie in 1…65,536, got 1000000000"),
        ({"model": {"depth": 60_000, "hidden": 16_384, "mlp": 65_536}}, "parameters, which need .* GiB in training"),
        ({"data": {"height": 20}}, "expected .* sides that 8 divides"),
        ({"data": {"height": 16_384, "width": 16_384}, "model": {"patch_size": 64}, "train": {"batch_size": 2**20}},
         "clips at once of 4 frames of 16384×16384 pixels, which need"),
        ({"train": {"accumulate": 4}}, "batch_size 2 does not divide into 1 processes × accumulate 4"),
        ({"codec": {"codec": "omnitokenizer", "vae": "nowhere"}}, "no folder nowhere/vae"),
        ({"codec": {"codec": "vq"}, "model": {"head": "categorical", "patch_size": 2}}, "patch_size must be 1, got 2"),
        ({"model": {"head": "categorical"}}, "a categorical head needs a codec of codes"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused_first(tmp_path: Path, groups: dict[str, Any], message: str) -> None:
    with pytest.raises(MagiError, match=message) as caught:
        train(recipe(**groups), tmp_path, tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_latent_frames_are_counted_where_a_codec_compresses_time(tmp_path: Path) -> None:
    codec: Any = make_codec(next(iter(VIDEO_VAES)))
    codec.vae.save_config(tmp_path / "vae")
    settings = {"codec": "video_vae", "vae": str(tmp_path)}
    frames = 1 + 3 * codec.temporal_factor
    cannot = recipe(codec=settings, data={"num_frames": frames, "height": 64, "width": 64})
    cannot = dataclasses.replace(cannot, forcing="window")  # enough pixel frames for a context of 4
    with pytest.raises(MagiError, match=r"5 latent frames or more, got clips of 4: .* context 3 or a larger --num-f"):
        train(cannot, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_frames_that_a_codec_does_not_take_are_refused_before_encoding(tmp_path: Path) -> None:
    with pytest.raises(MagiError, match="sides that 8 divides"):
        encode(recipe(data={"width": 12}), tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [("train", "batch_size", 10**9), ("train", "workers", 10**5), ("data", "num_frames", 10**9),
     ("data", "height", 10**6), ("small_vae", "width", 10**6), ("sample", "denoise_steps", 10**6)],
)  # fmt: skip
def test_numbers_far_beyond_any_training_are_refused(group: str, name: str, value: int) -> None:
    with pytest.raises(MagiError, match=rf"{group}\.{name} must lie in \d…[\d,]+, got {value}$"):
        recipe(**{group: {name: value}})


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], r"small_vae.encoder_blocks must have at least 1 items, got \[\]$"),
        ([0] * 9, "small_vae.encoder_blocks must have at most 8 items, got"),
        ([0, 10**6], "small_vae.encoder_blocks.1 must be at most 64, got 1000000$"),
        ([0, -1], "small_vae.encoder_blocks.1 must be at least 0, got -1$"),
    ],
)
def test_levels_that_no_small_vae_has_are_refused(blocks: list[int], message: str) -> None:
    with pytest.raises(MagiError, match=message):
        recipe(small_vae={"encoder_blocks": blocks, "decoder_blocks": blocks})


def test_of_a_pretrained_vae_its_config_alone_is_read(tmp_path: Path) -> None:
    vae: Any = AutoencoderKL(**KL_CONFIG)
    vae.save_config(tmp_path / "vae")  # no weights at all
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    assert ImageVAECodec.sizes_of(str(tmp_path), "vae") == UntrainedCodec(vae.config.latent_channels, factor, 1)
    settings = {"codec": "image_vae", "vae": str(tmp_path)}
    with pytest.raises(MagiError, match="is not a multiple of patch size 3"):
        train(recipe(codec=settings, model={"patch_size": 3}), tmp_path, tmp_path / "run")
    with pytest.raises(MagiError, match="holds AutoencoderKL; expected one of"):
        VideoVAECodec.sizes_of(str(tmp_path), "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    for damage in ({"latent_channels": 10**9}, {"block_out_channels": 3}, {"latent_channels": "many"}):
        (tmp_path / "vae" / "config.json").write_text(json.dumps(config | damage))
        with pytest.raises(MagiError, match="config"):
            ImageVAECodec.sizes_of(str(tmp_path), "vae")


@pytest.mark.parametrize("kind", [*IMAGE_VAES, *VIDEO_VAES])
def test_a_config_tells_what_the_codec_says(tmp_path: Path, kind: str) -> None:
    codec: Any = make_codec(kind)
    codec.vae.save_config(tmp_path)
    sizes = UntrainedCodec(codec.latent_channels, codec.spatial_factor, codec.temporal_factor)
    assert type(codec).sizes_of(str(tmp_path)) == sizes


@pytest.mark.parametrize(("options", "steps"), [({}, 2250), ({"plain_steps": "20"}, 20)])
def test_a_cure_that_would_never_begin_is_refused_before_the_data_are_read(
    options: dict[str, str], steps: int, tmp_path: Path
) -> None:
    exposure = {"exposure": "resampling", "exposure_options": options}
    preset = recipe(exposure=exposure, train={"steps": steps})
    with pytest.raises(MagiError, match=f"give the exposure option plain_steps {steps * 2 // 5}, or more steps"):
        train(preset, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
    check_cure_begins(preset.exposure, 100_000)
    check_cure_begins(preset.exposure, 0)  # no training


def test_the_presets_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    from magi_video.distributed import Processes
    from magi_video.presets import PRESETS
    from magi_video.training import feasibility

    monkeypatch.setattr(feasibility, "machine_memory", lambda: 2**39)
    for make in PRESETS.values():
        preset = make()
        if preset.codec.codec in ("pixels", "small_vae"):
            feasibility.check_recipe(dataclasses.replace(preset), Processes("cpu"))
