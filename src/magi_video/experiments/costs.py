"""What a row costs: operations of a training step and of a generated frame, counted as they run; seconds by frame."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from statistics import fmean, median
from typing import Any

import torch

from magi_video.bench.counting import count_executed
from magi_video.bench.subject import make_subject
from magi_video.bench.training import Stepper
from magi_video.experiments.worlds import World
from magi_video.fast.speed import begin_past
from magi_video.models.random import SampleNoise
from magi_video.paradigms import make_paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import Preset
from magi_video.sampling.rollout import Rollout

COUNTED_STEPS = 8
"""Training steps that are counted: how many tokens are hidden is drawn again in each."""
TIMED_ROLLOUTS = 3


def training_step_flops(preset: Preset) -> float:
    """Mean operations of a training step, forward and backward, all its matrix products.

    The draws are seeded, so a recipe has one number. Weights are random: operations hang on shapes alone.
    """
    subject = make_subject(preset.forcing, preset)
    stepper = Stepper(subject, subject.load(torch.float32), preset.train.batch_size, "float32", torch.device("cpu"))
    counts = [count_executed(stepper.step) for _ in range(COUNTED_STEPS)]
    return fmean(count for count in counts if count is not None)


def equal_steps(preset: Preset, reference: Preset) -> int:
    """The steps of a recipe that cost the operations of all steps of another."""
    return round(reference.train.steps * training_step_flops(reference) / training_step_flops(preset))


def generation_costs(pipe: MagiVideoPipeline, world: World) -> dict[str, Any]:
    """Cost of each generated frame of one video, without encoding and decoding.

    Frames that are made in one step share its cost equally.

    Returns:
        frame: index of each generated frame; seconds_per_frame: median of `TIMED_ROLLOUTS` rollouts, for each frame;
        flops_per_frame: operations of each frame; parameters; threads.
    """
    rollouts = [spread(timed(steps(pipe, world))) for _ in range(1 + TIMED_ROLLOUTS)][1:]
    return {
        "frame": list(range(world.given, world.frames)),
        "seconds_per_frame": [round(median(values), 5) for values in zip(*rollouts, strict=True)],
        "flops_per_frame": [round(value) for value in spread(counted(steps(pipe, world)))],
        "parameters": sum(parameter.numel() for parameter in pipe.transformer.parameters()),
        "threads": torch.get_num_threads(),
    }


def steps(pipe: MagiVideoPipeline, world: World) -> Iterator[int]:
    """Make one video after random given frames, as the pipeline does; yields how many frames each step has made: first
    none, when the given ones are read."""
    model, config = pipe.transformer, pipe.config
    paradigm = make_paradigm(config.forcing, config.forcing_options)
    sampling = pipe.resolve()
    rollout = Rollout(
        model,
        paradigm,
        SampleNoise.from_seeds([0], torch.device("cpu")),
        sampling,
        torch.full((1,), world.interval),
        world.frames,
        past=begin_past(paradigm, model, 1, world.frames, sampling),
    )
    given = torch.Generator().manual_seed(0)
    for _ in range(world.given):
        rollout.observe(torch.randn(1, model.num_tokens, model.token_dim, generator=given))
    yield 0
    while rollout.begun < world.frames:
        count = rollout.step_frames
        rollout.predict_frames([{}] * count)
        yield count


def timed(made: Iterator[int]) -> Iterator[tuple[float, int]]:
    """Seconds of each step, and how many frames it made."""
    began = time.perf_counter()
    for count in made:
        yield time.perf_counter() - began, count
        began = time.perf_counter()


def counted(made: Iterator[int]) -> Iterator[tuple[float, int]]:
    """Operations of each step, and how many frames it made."""
    while True:
        count: list[int] = []
        flops = count_executed(lambda: count.extend(islice(made, 1)))  # noqa: B023 (called here and now)
        if not count:
            return
        yield flops or 0, count[0]


def spread(steps: Iterable[tuple[float, int]]) -> list[float]:
    """The cost of each step shared by its frames."""
    return [cost / count for cost, count in steps for _ in range(count)]
