"""The operations of every paradigm by formula, against what is counted while it runs."""

import pytest
import torch

from magi_video.bench.counting import count_executed
from magi_video.bench.flops import Sizes, training_flops
from magi_video.bench.generation import Generator, count_frame, middle_flops
from magi_video.bench.subject import make_subject
from magi_video.bench.training import Stepper, mean_share, sequence_frames
from magi_video.presets import load_preset
from magi_video.sampling.sampling import Sampling
from magi_video.training.sizing import attends_flat

FRAMES = 4
BUILDS = [
    ("window", {"context": 2}, (0.85, 1)),  # the last block computes the new frame alone
    ("joint", {}, (0.9, 1)),
    ("raster", {}, (0.99, 1)),
    ("raster", {"attention": "flat"}, (1, 1.4)),  # the frames before are given here, and read once
]


@pytest.mark.parametrize(("name", "options", "share"), BUILDS)
def test_a_frame(name: str, options: dict[str, object], share: tuple[float, float]) -> None:
    subject = make_subject(name, load_preset("tiny", forcing=name, **options))
    sampling = Sampling(mask_steps=4, denoise_steps=5).resolve(subject.outline.diffusion_head)
    generator = Generator(subject, subject.load(torch.float32), sampling, 2, torch.device("cpu"))
    with torch.no_grad():
        counted, seconds = count_frame(generator, FRAMES), generator.time_frames(5)[0]
    assert counted is not None and share[0] <= counted / middle_flops(generator, FRAMES).total <= share[1]
    assert len(seconds) == 5 and min(seconds) > 0


@pytest.mark.parametrize(("name", "options", "share"), BUILDS)
def test_a_training_step(name: str, options: dict[str, object], share: tuple[float, float]) -> None:
    preset = load_preset("tiny", forcing=name, **options)
    subject = make_subject(name, preset)
    stepper = Stepper(subject, subject.load(torch.float32), 4, "float32", torch.device("cpu"))
    batch, frames, tokens = stepper.clip.tokens_BTND.shape[:3]
    forward, backward = training_flops(
        Sizes.of(stepper.model.architecture),
        batch,
        sequence_frames(subject),
        predicted=round(batch * frames * tokens * mean_share(stepper.paradigm, tokens, frames)),
        repeats=stepper.paradigm.diffusion_batch_mul,
        flat=attends_flat(name, preset.forcing_options),
    )
    counted = [count_executed(stepper.step) or 0 for _ in range(4)]
    assert 0.9 < sum(counted) / 4 / (forward + backward).total < 1.1
