"""Jobs for engines: small rollouts in which everything is asked for that graphs have to get right."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from magi_video.fast.engine import Engine
from magi_video.fast.job import Job
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import make_paradigm
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling

FRAMES = 8
"""Past the 5 trained ones: the window slides, or positions interpolate."""
Make = Callable[..., MagiVideoTransformer]


def make_job(make_model: Make, batch: int = 1, sampling: Sampling | None = None, **model: Any) -> Job:
    """`FRAMES` frames of a small model; one block, so that a graph takes a second."""
    made = make_model(**{"depth": 1, "head_depth": 1, "temporal_position": "rope"} | model)
    resolved = (sampling or Sampling(mask_steps=1, denoise_steps=3)).resolve(made.diffusion_head)
    total = None if made.config.temporal_position == "rope" else FRAMES
    return Job(make_paradigm("complete"), made, None, resolved, batch, total)


def begin(job: Job, engine: Engine) -> Rollout:
    """A rollout of a job."""
    past = engine.begin_past(job.paradigm, job.model, job.batch, job.total_frames, job.sampling)
    noise, interval = SampleNoise.from_seeds(list(range(job.batch))), torch.full((job.batch,), 2)
    return Rollout(job.model, job.paradigm, noise, job.sampling, interval, job.total_frames, past=past)


def roll(job: Job, engine: Engine, given: int = 2, rollout: Rollout | None = None) -> Tensor:
    """Tokens `[B, T, N, D]` of a video with actions, after some given frames."""
    rollout = rollout or begin(job, engine)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(job.batch, given, job.model.num_tokens, job.model.token_dim, generator=generator)
    actions = torch.rand(FRAMES, job.batch, 3, generator=generator)
    for t in range(given):
        rollout.observe(tokens[:, t], {"action": actions[t]})
    return torch.stack([rollout.predict({"action": actions[t]}) for t in range(given, FRAMES)], dim=1)


CASES: dict[str, dict[str, Any]] = {
    "one mask step": {},
    "every mask step reads the frame": {"sampling": Sampling(mask_steps=4, denoise_steps=2)},
    "work is reused": {"sampling": Sampling(mask_steps=3, denoise_steps=2, refresh=4)},
    "reused and read again": {"sampling": Sampling(mask_steps=4, denoise_steps=2, refresh=2, sampler="ddim")},
    "guided, two videos": {
        "batch": 2,
        "sampling": Sampling(
            mask_steps=2, denoise_steps=2, guidance_scale=2.5, guide=("action",), temperature=0.9, sampler="dpmsolver++"
        ),
    },
    "positions interpolate": {"temporal_position": "interpolate"},
    "few-step head": {"head": "distributional", "sampling": Sampling(mask_steps=2, denoise_steps=2)},
    "flow head": {"head": "flow", "sampling": Sampling(mask_steps=1, denoise_steps=4, sampler="midpoint")},
}
