"""What frames are made for, as an engine is chosen and prepared: model, sampling, number of videos, their length."""

from dataclasses import dataclass

import torch
from torch import Tensor

from magi_video.codecs.base import Codec
from magi_video.fast.engine import Engine
from magi_video.fast.noise import make_noise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import ResolvedSampling

SLOTS = 16
"""The cache of a rollout of fixed length is rounded up to so many slots: each number needs a graph of its own."""


@dataclass(frozen=True)
class Job:
    """What frames are made for.

    Attributes:
        paradigm, model, codec: of the model; None for no codec: latents are not decoded.
        sampling: of a frame.
        batch: videos made together, B.
        total_frames: latent frames of a rollout; None for one without end.
    """

    paradigm: Paradigm
    model: MagiVideoTransformer
    codec: Codec | None
    sampling: ResolvedSampling
    batch: int = 1
    total_frames: int | None = None

    def begin(self, engine: Engine) -> Rollout:
        """A rollout by an engine, with a random frame behind it, for measuring frames."""
        total = None if self.model.config.temporal_position == "rope" else cache_slots(self.model, self.total_frames)
        device = self.model.device
        rollout = Rollout(
            self.model,
            self.paradigm,
            make_noise([torch.Generator().manual_seed(seed) for seed in range(self.batch)], device),
            self.sampling,
            torch.ones(self.batch, dtype=torch.long, device=device),
            total,
            past=engine.begin_past(self.paradigm, self.model, self.batch, total, self.sampling),
        )
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, self.model.num_tokens, self.model.token_dim)
        rollout.observe(torch.randn(shape, generator=generator).to(device))
        return rollout

    def latents(self) -> Tensor:
        """Random latents `[B, C, h, w]`."""
        config, generator = self.model.config, torch.Generator().manual_seed(0)
        shape = (self.batch, config.latent_channels, config.latent_height, config.latent_width)
        return torch.randn(shape, generator=generator).to(self.model.device)


def cache_slots(model: MagiVideoTransformer, total_frames: int | None) -> int:
    """Slots of the cache of a rollout."""
    trained = model.config.num_frames
    if model.config.temporal_position == "rope":  # the window, and the frame in the making
        return trained + 1
    return -(-(total_frames or trained) // SLOTS) * SLOTS


def describe(job: Job) -> str:
    """Sampling and number of videos, in words."""
    one = job.sampling
    videos = "one video" if job.batch == 1 else f"{job.batch} videos together"
    guided = ", guided" if one.guided else ""
    return f"{one.mask_steps} mask × {one.denoise_steps} denoise steps ({one.sampler}{guided}) of {videos}"
