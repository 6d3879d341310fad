"""From videos to discrete tokens and back by the commands alone: a VQ codec, a categorical head, both orders."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.cli import main
from magi_video.codecs.discrete import DiscreteCodec
from magi_video.codecs.registry import load_codec
from magi_video.errors import MagiError
from magi_video.models.categorical import CategoricalHead
from magi_video.pipeline import MagiVideoPipeline
from magi_video.sampling.sampling import Sampling
from tests.codecs.codec_examples import make_vae
from tests.data.examples import write_numbered

RECIPE: dict[str, Any] = {
    "data": {"height": 16, "width": 16, "num_frames": 4, "max_interval": 2},
    "codec": {"codec": "vq"},
    "vq": {
        "width": 8, "encoder_blocks": [0, 1, 1], "decoder_blocks": [1, 1, 0], "codebook_size": 32, "code_dim": 4,
        "steps": 20, "batch_size": 4, "warmup_steps": 5, "restart_every": 5,
    },
    "model": {"patch_size": 1, "hidden": 32, "depth": 1, "heads": 2, "mlp": 64, "head": "categorical"},
    "train": {
        "batch_size": 2, "steps": 4, "workers": 0, "sample_every": 4, "checkpoint_every": 2, "warmup_steps": 1,
        "precision": "float32", "tracker": "none", "label_smoothing": 0.1,
    },
    "sample": {"mask_steps": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(2):
        write_numbered(folder / f"{number}.mp4", 12, height=16, width=16)
    return folder


def train(recipe: dict[str, Any], videos: Path, out: Path, *options: str) -> int:
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps(recipe))
    return main(["train", str(file), "--data", str(videos), "--out", str(out), *options])


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(RECIPE, videos, out) == 0
    return out


def test_the_head_has_the_codecs_codes(run: Path) -> None:
    pipe = MagiVideoPipeline.from_pretrained(run)
    head, codec = pipe.transformer.diffusion_head, pipe.codec
    assert isinstance(head, CategoricalHead) and isinstance(codec, DiscreteCodec)
    assert torch.equal(head.codebook, codec.codebook()) and head.codebook.shape == (32, 4)
    assert pipe.resolve().denoise_steps == 1
    assert head.logits.weight.abs().max() > 0, "it was trained"


def test_the_record_and_info_say_how_codes_are_used(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((run / "codec" / "training.json").read_text())
    assert 0 < record["codes_used"] <= 1 <= record["perplexity"] <= 32
    assert main(["info", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["head"] == "categorical, 32 codes" and facts["denoise_steps"] == 1
    assert facts["codes"] == f"{record['codes_used']:.0%} of them used, perplexity {record['perplexity']:.0f}"


def test_what_it_generates_are_pictures_of_codes(run: Path, videos: Path) -> None:
    pipe = MagiVideoPipeline.from_pretrained(run)
    seen: list[torch.Tensor] = []

    def look(_pipe: Any, _step: int, _timestep: int, values: dict[str, Any]) -> dict[str, Any]:
        seen.append(values["latents"])
        return values

    made = pipe(num_frames=4, generator=torch.Generator().manual_seed(0), callback_on_step_end=look).frames
    assert made.shape == (1, 4, 16, 16, 3)
    latents = torch.stack(seen, dim=1)
    assert isinstance(pipe.codec, DiscreteCodec)
    assert torch.allclose(pipe.codec.look_up(pipe.codec.find_codes(latents)), latents, atol=1e-6)
    expected = pipe.codec.decode(latents).add(1).div(2).movedim(2, -1).numpy()
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_a_run_goes_on_to_the_same_bits(run: Path, videos: Path, tmp_path: Path) -> None:
    parts = tmp_path / "run"
    assert train(RECIPE, videos, parts, "--steps", "2") == 0
    assert train(RECIPE, videos, parts) == 0
    whole, again = (MagiVideoPipeline.from_pretrained(folder).transformer.state_dict() for folder in (run, parts))
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_another_codecs_codes_are_refused(run: Path) -> None:
    pipe = MagiVideoPipeline.from_pretrained(run)
    assert isinstance(pipe.codec, DiscreteCodec)
    pipe.codec.set_statistics([5.0] * 4, [1.0] * 4)
    with pytest.raises(MagiError, match="trained for other codes"):
        MagiVideoPipeline(pipe.transformer, pipe.codec, height=16, width=16)


def test_a_model_with_codes_is_exported(run: Path, tmp_path: Path) -> None:
    """What drives the programs: tests/hub/test_export.py."""
    assert main(["export", str(run), "--out", str(tmp_path)]) == 0
    assert {file.stem for file in tmp_path.iterdir()} == {"frame", "logits", "look_up", "encode", "decode", "export"}


@pytest.mark.parametrize(("forcing", "options", "sampling"), [
    ("raster", {"attention": "flat"}, {"top_k": 5}), ("genie", {}, {"temperature": 2.0, "top_p": 0.9}),
    ("joint", {}, {"order": "confidence", "mask_steps": 3}),
])  # fmt: skip
def test_the_originals_in_kind_train_and_generate(
    forcing: str, options: dict[str, str], sampling: dict[str, Any], run: Path, videos: Path, tmp_path: Path
) -> None:
    """VideoGPT, Genie and MAGVIT: the recipes of docs/discrete.md, small, on latents that are there."""
    recipe = RECIPE | {"forcing": forcing, "forcing_options": options}
    recipe |= {"train": RECIPE["train"] | {"sample_every": 0, "steps": 2}}
    shutil.copytree(run / "codec", tmp_path / "run" / "codec")
    assert train(recipe, videos, tmp_path / "run", "--steps", "2") == 0
    pipe = MagiVideoPipeline.from_pretrained(tmp_path / "run")
    assert isinstance(pipe.codec, DiscreteCodec)
    first = np.zeros((16, 16, 3), np.uint8)
    seen: list[torch.Tensor] = []

    def look(_pipe: Any, _step: int, _timestep: int, values: dict[str, Any]) -> dict[str, Any]:
        seen.append(values["latents"])
        return values

    made = pipe(first, num_frames=4, sampling=Sampling(**sampling), callback_on_step_end=look).frames
    latents = torch.stack(seen, dim=1)
    assert made.shape == (1, 4, 16, 16, 3) and latents.shape[1] == 3
    assert torch.allclose(pipe.codec.look_up(pipe.codec.find_codes(latents)), latents, atol=1e-6)
    if forcing == "raster":
        with pytest.raises(MagiError, match="raster makes its tokens in an order of its own"):
            pipe(first, num_frames=4, sampling=Sampling(order="confidence"))


def test_a_diffusers_vq_model_from_a_folder(videos: Path, tmp_path: Path) -> None:
    make_vae("vq_model").save_pretrained(tmp_path / "vqgan")
    recipe = RECIPE | {"codec": {"codec": "vq_model", "vae": str(tmp_path / "vqgan"), "vae_subfolder": ""}}
    recipe |= {"train": RECIPE["train"] | {"sample_every": 0}}
    assert train(recipe, videos, tmp_path / "run") == 0
    codec = load_codec(tmp_path / "run" / "codec")
    assert isinstance(codec, DiscreteCodec) and codec.codes == 30
    assert 0 < codec.config["codes_used"] <= 1 <= codec.config["perplexity"] <= 30
    head = MagiVideoPipeline.from_pretrained(tmp_path / "run").transformer.diffusion_head
    assert isinstance(head, CategoricalHead) and torch.equal(head.codebook, codec.codebook())


@pytest.mark.parametrize(("group", "changes", "message"), [
    ("codec", {"codec": "pixels"}, "a categorical head needs a codec of codes"),
    ("model", {"patch_size": 2}, "patch_size must be 1, got 2"),
    ("vq", {"codebook_size": 1}, "vq.codebook_size must lie in 2…65,536, got 1"),
    ("vq", {"fsq_levels": [8, 1]}, "vq.fsq_levels.1 must be at least 2, got 1"),
    ("train", {"label_smoothing": 1.0}, "train.label_smoothing must be below 1, got 1.0"),
    ("sample", {"first_step": 990}, "a categorical head has no first denoise step"),
])  # fmt: skip
def test_recipes_that_cannot_be_are_refused(
    group: str, changes: dict[str, Any], message: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(RECIPE | {group: RECIPE.get(group, {}) | changes}, videos, tmp_path / "run") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "codec").exists(), "before anything is trained"
