"""A model's folder: saved and loaded, in half precision, from a file of weights, damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from magi_video.errors import MagiError
from magi_video.pipeline.pipeline import MagiVideoPipeline
from tests.pipeline.pipeline_examples import STEPS, picture, seeded


def test_saved_and_loaded_gives_the_same(pipe: MagiVideoPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    loaded = MagiVideoPipeline.from_pretrained(tmp_path / "model")
    kwargs = {"image": picture(), "num_frames": 3, **STEPS}
    one, two = (each(generator=seeded(0), **kwargs).frames for each in (pipe, loaded))
    assert np.allclose(one, two, atol=1e-5)
    assert loaded.config.action_names == ["LEFT", "RIGHT", "FIRE"] and loaded.config.forcing == "complete"
    loaded.save_pretrained(tmp_path / "again")
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "again").rglob("*.json"))
    kinds = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}, "nothing that would have to be unpickled"


def test_saved_in_half_precision_it_is_half_as_large_and_still_itself(pipe: MagiVideoPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "whole")
    pipe.save_pretrained(tmp_path / "half", torch_dtype=torch.float16)
    size = {
        name: (tmp_path / name / "transformer/diffusion_pytorch_model.safetensors").stat().st_size
        for name in ("whole", "half")
    }
    assert size["half"] < 0.6 * size["whole"]
    loaded = MagiVideoPipeline.from_pretrained(tmp_path / "half")
    assert loaded.transformer.token_in.weight.dtype == torch.float32
    assert pipe.transformer.token_in.weight.dtype == torch.float32, "saving leaves the pipeline as it was"
    assert torch.allclose(loaded.transformer.token_in.weight, pipe.transformer.token_in.weight, atol=1e-3)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16])
def test_weights_that_are_saved_from_a_file_leave_the_file_as_it_is(
    pipe: MagiVideoPipeline, tmp_path: Path, dtype: torch.dtype | None
) -> None:
    checkpoint = tmp_path / "ema.safetensors"
    save_file({name: one + 1 for name, one in pipe.transformer.state_dict().items()}, checkpoint)
    before = checkpoint.read_bytes()
    pipe.save_pretrained(tmp_path / "model", torch_dtype=dtype, weights=checkpoint)
    assert checkpoint.read_bytes() == before
    saved = load_file(tmp_path / "model/transformer/diffusion_pytorch_model.safetensors")["token_in.weight"]
    assert saved.dtype == (dtype or torch.float32)
    assert torch.allclose(saved.float(), pipe.transformer.token_in.weight + 1, atol=1e-3)
    assert {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()} == {".json", ".safetensors"}


def damage_truncate(folder: Path) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_numbers(folder: Path) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[-1] = torch.nan
    save_file(weights, path, {"format": "pt"})


def damage_shape(folder: Path) -> None:
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"width": 64}))


def damage_class(folder: Path) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "StableDiffusionPipeline"}))


def damage_codec(folder: Path) -> None:
    path = folder / "codec" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "os.system"}))


def damage_json(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name":')


def damage_missing(folder: Path) -> None:
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()


def damage_extra(folder: Path) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"safety_checker": 1}))


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_numbers,
        damage_shape,
        damage_class,
        damage_codec,
        damage_json,
        damage_missing,
        damage_extra,
    ],
)
def test_damaged_checkpoints_are_told_in_one_line(
    pipe: MagiVideoPipeline, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    pipe.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(MagiError) as error:
        MagiVideoPipeline.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_unknown_models_are_told_what_there_is() -> None:
    with pytest.raises(MagiError, match="give a folder, a hub id, or one of"):
        MagiVideoPipeline.from_pretrained("no-such-model")
