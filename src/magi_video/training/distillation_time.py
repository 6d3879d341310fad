"""How long distilling a head is going to take, from small pieces of the work."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from magi_video.fast.speed import speed_up
from magi_video.models.distributional import DistributionalHead
from magi_video.models.head import DiffusionHead
from magi_video.models.random import SampleNoise
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.sampling import ResolvedSampling
from magi_video.training.display import duration
from magi_video.training.distillation_options import DistillOptions
from magi_video.training.head_inputs import ROLLOUT_SPEEDS, rollout_sampling

PIECE = 512
"""Samples of the old head that are timed."""


def head_seconds(
    teacher: DiffusionHead, student: DistributionalHead, width: int, own: ResolvedSampling, options: DistillOptions
) -> tuple[float, float]:
    """Seconds of all samples of the old head, and of all training steps of the new one, from one piece of each.

    Args:
        teacher, student: the heads; neither is changed.
        width: numbers in a condition.
        own: how the model is sampled.
        options: say how many samples and steps there will be.
    """
    device, generator = next(teacher.parameters()).device, torch.Generator().manual_seed(0)
    rows = min(PIECE, options.tokens * options.draws)
    batch = min(options.batch_size, options.tokens)
    z_MW = torch.randn(max(rows, batch), width, generator=generator).to(device)
    target_MD = torch.randn(batch, teacher.token_dim, generator=generator).to(device)
    uniform_1M = torch.rand(1, batch, generator=generator).to(device)
    eps_1MD = torch.randn(1, batch, student.noise_dim, generator=generator).to(device)

    @torch.no_grad()
    def sample() -> Tensor:
        noise = SampleNoise.from_seeds([0], device)
        return teacher.sample(
            z_MW[None, :rows], noise, own.denoise_steps, sampler=own.sampler, first_step=own.first_step
        )

    fast = speed_up(student)

    def step() -> Tensor:
        loss = fast.loss(target_MD, z_MW[:batch], uniform_1M, eps_1MD).mean()
        return torch.autograd.grad(loss, list(fast.parameters()))[0]

    return seconds_of(sample) * options.tokens * options.draws / rows, seconds_of(step) * options.steps


def seconds_of(work: Callable[[], Tensor]) -> float:
    """Of a piece of work, the second time that it is done; reading a number waits for the device."""
    work().sum().item()
    began = time.perf_counter()
    work().sum().item()
    return time.perf_counter() - began


def batch_costs(pipe: MagiVideoPipeline, batches: int, makes_clips: bool, rolls_out: bool) -> list[int]:
    """What each batch of conditions costs, in mask steps for every frame; the one pass of training counts as one.

    Args:
        pipe: says how many mask steps there are.
        batches: how many there are.
        makes_clips: whether the model makes the clips itself, by its own sampling.
        rolls_out: whether conditions come from rollouts, too.
    """
    own = pipe.resolve().mask_steps if makes_clips else 0
    steps = [rollout_sampling(pipe, number).mask_steps if rolls_out else 0 for number in range(len(ROLLOUT_SPEEDS))]
    return [1 + own + steps[number % len(steps)] for number in range(batches)]


def inputs_seconds(first_batch: float, costs: list[int]) -> float:
    """Seconds of all batches of conditions, from those of the first.

    Args:
        first_batch: its seconds.
        costs: of each batch; they count against each other alone.
    """
    return first_batch * sum(costs) / costs[0]


def estimate(inputs: float, samples: float, steps: float) -> str:
    """What is said of these seconds."""
    parts = f"{duration(inputs)} for the conditions, {duration(samples)} for samples, {duration(steps)} for training"
    return f"about {duration(inputs + samples + steps)} in all: {parts}"
