"""Diffusion Forcing from recipe to figures: steps, counts, plan, and what it is refused for."""

from pathlib import Path

import pytest
import torch

from magi_video.bench.counting import count_executed
from magi_video.bench.flops import Sizes
from magi_video.bench.generation import Generator, middle_flops
from magi_video.bench.hardware import Hardware
from magi_video.bench.plan import make_plan
from magi_video.bench.subject import make_subject
from magi_video.codecs.pixels import PixelCodec
from magi_video.errors import MagiError
from magi_video.files.shapes import parameters_by_part
from magi_video.hub.export import export_model
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.presets import load_preset
from magi_video.sampling.sampling import Sampling
from magi_video.training.sizing import find_architecture

NAMES = ["diffusion", "diffusion-v"]
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_brings_its_steps_its_levels_and_its_head(name: str) -> None:
    preset = load_preset("doom", forcing=name)
    model = find_architecture(preset)
    assert preset.sample.denoise_steps == 50
    assert model.specs["noise_level"].kind == "time"
    assert model.head == ("velocity" if name == "diffusion-v" else "epsilon")
    assert sum(parameters_by_part(model).values()) == sum(
        p.numel() for p in make_subject("x", preset).outline.parameters()
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_counted_operations_of_a_frame(name: str) -> None:
    subject = make_subject("tiny", load_preset("tiny", forcing=name))
    model = subject.load(torch.float32)
    sampling = Sampling(denoise_steps=12).resolve(model.diffusion_head)
    generator = Generator(subject, model, sampling, 1, CPU)
    counted = count_executed(generator.middle_frame(2), "cpu")
    expected = middle_flops(generator, 2)
    assert Sizes.of(model.architecture).velocity == (name == "diffusion-v")
    # The fast past reads one given frame more: what it would have joined with the pass after it.
    assert counted is not None and 0.9 * expected.total < counted <= 1.06 * expected.total


def test_one_draw_a_token_is_planned() -> None:
    hardware = Hardware("a machine", 1, 1, 64)
    plans = {name: make_plan("x", load_preset("tiny", forcing=name), 1, hardware) for name in ("masked", "diffusion")}
    assert plans["diffusion"].flops.head < plans["masked"].flops.head / 2


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_for_it_is_said(name: str, tmp_path: Path) -> None:
    preset = load_preset("tiny", forcing=name)
    model = make_subject("x", preset).load(torch.float32)
    pipe = MagiVideoPipeline(model, PixelCodec(), forcing=name, height=16, width=16)
    with pytest.raises(MagiError, match=f"not for the paradigm {name}"):
        export_model(pipe, tmp_path)
    with pytest.raises(MagiError, match="has no mask steps"):
        pipe(num_frames=2, mask_steps=4)
    with pytest.raises(MagiError, match=r"level as a time"):
        MagiVideoPipeline(make_subject("x", load_preset("tiny")).load(torch.float32), PixelCodec(), forcing=name)
