"""A model's folder as `magi info` reads it, whatever lies there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from magi_video.errors import MagiError
from magi_video.files.weights import SHIPPED
from magi_video.pipeline.description import DEFAULTS, FORMER_SAMPLING, describe_model, model_facts
from magi_video.pipeline.pipeline import MagiVideoPipeline


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "atari", tmp_path / "model"))


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def set_sampling(model: Path, sampling: dict[str, object]) -> None:
    """As its own, in place of what the folder says in the way of earlier versions."""
    path = model / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index = {name: value for name, value in index.items() if name not in FORMER_SAMPLING}
    path.write_text(json.dumps(index | {"sampling": sampling}), encoding="utf-8")


def test_settings_that_are_left_out_are_the_pipelines_own() -> None:
    import inspect

    parameters = inspect.signature(MagiVideoPipeline.__init__).parameters
    defaults = {
        name: parameters[name].default for name in parameters if name not in ("self", "transformer", "codec", "steps")
    }
    assert {name: value or DEFAULTS[name] for name, value in defaults.items()} == DEFAULTS


def test_a_preset_is_no_model_and_it_is_said_what_it_is() -> None:
    with pytest.raises(MagiError, match="tiny is a preset, a recipe without weights: magi train tiny"):
        describe_model("tiny")


def test_of_sampling_only_what_the_model_makes_use_of_is_shown(model: Path) -> None:
    sampling = {
        "mask_steps": 4, "denoise_steps": 10, "speed": "fast", "temperature": 0.9, "refresh": 2, "order": "random",
        "choice_temperature": 4.5, "top_p": 1.0, "guidance_scale": 2.0, "guide": ["action"],
    }  # fmt: skip
    set_sampling(model, sampling)
    facts = model_facts(str(model))
    assert {name: facts[name] for name in ("refresh", "guidance_scale", "mask_steps")} == {
        "refresh": 2, "guidance_scale": 2.0, "mask_steps": 4,
    }  # fmt: skip
    assert not {"order", "choice_temperature", "top_p"} & set(facts)
    change(model / "model_index.json", forcing="raster")
    assert "refresh" not in model_facts(str(model))


def test_of_a_model_nothing_is_said_that_it_does_not_have(model: Path) -> None:
    set_sampling(model, {"guidance_scale": 1.0, "guide": ["label", "text"]})
    change(model / "transformer" / "config.json", max_interval=1)
    facts = model_facts(str(model))
    assert facts["guide"] == [] and facts["intervals"] == "1"
    assert "label" not in json.dumps({name: one for name, one in facts.items() if name != "training_data"})


@pytest.mark.parametrize(("file", "changes", "message"), [
    ("model_index.json", {"_class_name": "FluxPipeline"}, "not a MagiVideoPipeline but 'FluxPipeline'"),
    ("model_index.json", {"height": -1}, "height is -1"),
    ("model_index.json", {"forcing": ["complete"]}, "unknown forcing"),
    ("model_index.json", {"training": [1]}, "training is"),
    ("transformer/config.json", {"depth": 60_000}, "does not hold the weights its config describes: missing blocks.4"),
    ("transformer/config.json", {"depth": 3}, "24 tensors that its config does not describe"),
    ("transformer/config.json", {"mlp_width": 512}, "mlp_in.weight is [1024, 256], not [512, 256]"),
    ("transformer/config.json", {"_class_name": "UNet"}, "holds UNet; expected MagiVideoTransformer"),
    ("codec/config.json", {"_class_name": "Flux"}, "holds Flux; expected a codec: ImageVAECodec"),
])  # fmt: skip
def test_a_folder_that_is_not_what_it_says_is_refused(
    model: Path, file: str, changes: dict[str, object], message: str
) -> None:
    change(model / file, **changes)
    with pytest.raises(MagiError) as refused:
        describe_model(model)
    assert message in str(refused.value)


def test_a_header_that_lies_is_refused_and_half_precision_is_read(model: Path) -> None:
    file = model / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file({name: weight.to(torch.bfloat16) for name, weight in weights.items()}, file, {"format": "pt"})
    assert describe_model(model).architecture.depth == 4
    file.write_bytes((10**15).to_bytes(8, "little") + b"{}")
    with pytest.raises(MagiError, match="a header of 1000000000000000 bytes"):
        describe_model(model)
    file.unlink()
    with pytest.raises(MagiError, match="no diffusion_pytorch_model"):
        describe_model(model)
