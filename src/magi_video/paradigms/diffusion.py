"""Diffusion Forcing (Chen et al. 2024): every frame at a noise level of its own, after the noisy frames before it.

sequence   n_1 … n_T            frames noised each to its own level, drawn independently; no mask token
n_t sees   n_1 … n_t            and each frame's level, as a condition token (256 sinusoids, an MLP)
loss       on all tokens, one draw of level and noise a token
generates  from level to level, by a schedule: one frame after another ("autoregressive"), each a step behind the one
           before it ("pyramid"), or all at once ("full-sequence"); S passes a frame, no mask steps
cache      finished frames, at the stabilisation level: scaled by √ᾱ, conditioned on level 14, not noised; training
           showed such levels, with noise

`diffusion` denoises by the same head as every other row: head(x_k, k, z), with x_k and k the frame's *own* noisy token
and level and z from the noisy sequence, so that nothing but the paradigm differs. `diffusion-v` is the authors' own: a
linear layer from z to the velocity, its error weighted by min-SNR or fused SNR.

Where paper and code differ, the code of v1.5 is followed: levels 0 … 999 and −1 for a clean frame; S steps go evenly
from −1 to 999 (with the epsilon head to its sampler's first step, see `models/epsilon.py`); DDIM with η = 0 for the
velocity. Ours: the cosine schedule for both (theirs is a sigmoid; DFoT's is the cosine), no clipping of the noise at 6
standard deviations, and the cache (they read the whole window in every step). With the flow head, levels are its
logit-normal times.
"""

from copy import copy
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.random import Generators, SampleNoise, draw
from magi_video.models.sequence import MASKED, Clip, FrameSequence, causal_mask
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm, register
from magi_video.paradigms.levels import alpha_bar, levels_of, schedule_matrix, velocity_weights
from magi_video.sampling.past import Past
from magi_video.sampling.sampling import ResolvedSampling, Sampling

OF_GENERATION = ("schedule", "uncertainty", "horizon")
"""Options that a `Sampling` may choose anew."""


@register
class DiffusionForcing(Paradigm):
    """Diffusion Forcing through the per-token head; neither `mask_ratio`, `exposure` nor `diffusion_batch_mul` is used.

    Attributes:
        schedule: of generation, where a sampling chooses none; see `schedule_matrix`.
        uncertainty: of the pyramid.
        horizon: frames that the pyramid and the full sequence make together; 0: all that are left.
        context_level: time, 0…999, that finished frames are scaled by and conditioned on.
    """

    name = "diffusion"
    title = "Diffusion Forcing through the same head: every frame at its own noise level"
    training_frames = 1
    cached_kind = MASKED
    unit = "frame"
    temporal_attention = "causal"
    cached = True
    variable_context = True
    past = "noisy"
    loss_share = 1.0
    draws = 1
    heads = ("epsilon", "flow")
    steps: ClassVar[dict[str, int]] = {"mask_steps": 0, "denoise_steps": 50}
    conditions: ClassVar[dict[str, dict[str, object]]] = {"noise_level": {"size": 1000, "kind": "time"}}
    options: ClassVar[dict[str, int | float | str]] = {
        "schedule": "autoregressive", "uncertainty": 1.0, "horizon": 0, "context_level": 14,
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"schedule": ("autoregressive", "pyramid", "full-sequence")}
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "uncertainty": (0, 1000), "horizon": (0, 65536), "context_level": (0, 999),
    }  # fmt: skip
    schedule: str
    uncertainty: float
    horizon: int
    context_level: int

    @override
    def check_model(self, model: MagiVideoTransformer) -> None:
        """It needs levels as times, and a head that denoises."""
        spec = model.condition_tokens.specs.get(NOISE_LEVEL)
        if spec is None or spec.kind != "time":
            raise MagiError(f"{self.name} tells every frame its noise level as a time; this model takes none")
        super().check_model(model)

    @override
    def visible(self, masked_TN: Tensor) -> Tensor:
        """Every token of its own frame and of the frames before, all of them noisy."""
        frames, tokens = masked_TN.shape
        causal_TT = causal_mask(frames, device=masked_TN.device)
        return causal_TT[:, None, :, None].expand(frames, tokens, frames, tokens)

    def sequence(self, clip: Clip, noisy_BTND: Tensor, time_BT: Tensor) -> FrameSequence:
        """The training sequence of a clip whose frames are noised to the times 0…1000."""
        frames, device = clip.tokens_BTND.shape[1], clip.tokens_BTND.device
        return FrameSequence(
            tokens_BSND=noisy_BTND,
            masked_BSN=torch.zeros(noisy_BTND.shape[:3], dtype=torch.bool, device=device),
            kind_S=torch.full((frames,), MASKED, device=device),
            position_S=torch.arange(frames, device=device),
            interval_B=clip.interval_B,
            conditions={**clip.conditions, NOISE_LEVEL: time_BT},
            mask_SS=causal_mask(frames, device=device),
        )

    @override
    def total_loss(
        self, model: MagiVideoTransformer, clip: Clip, generator: Generators = None
    ) -> tuple[Tensor, Tensor]:
        """Over all tokens; what the head is given is what the transformer has read."""
        tokens_BTND, conditions = clip.tokens_BTND.float(), model.condition_tokens.drop(clip.conditions, generator)
        clip, device = replace(clip, tokens_BTND=tokens_BTND, conditions=conditions), tokens_BTND.device
        uniform_BT = draw(torch.rand, tokens_BTND.shape[:2], generator, device)
        eps_BTND = draw(torch.randn, tokens_BTND.shape, generator, device)
        head = levels_of(model.diffusion_head).head
        noisy_BTND, time_BTN = head.add_noise(
            tokens_BTND, uniform_BT[..., None].expand_as(tokens_BTND[..., 0]), eps_BTND
        )
        time_BT = time_BTN[..., 0]
        z_BTNW = self.read(model, self.sequence(clip, noisy_BTND, time_BT), generator)
        with torch.autocast(device.type, enabled=False):  # the head is float32 throughout
            losses_1M = head.loss(
                tokens_BTND.flatten(0, 2),
                z_BTNW.flatten(0, 2).float(),
                uniform_BT[..., None].expand_as(time_BTN).reshape(1, -1),
                eps_BTND.flatten(0, 2)[None],
            )
            learned_BT = torch.ones_like(time_BT) if clip.learned_BT is None else clip.learned_BT.to(time_BT)
            weight_BTN = (self.weights(time_BT) * learned_BT)[..., None].expand_as(time_BTN)
            return (losses_1M[0] * weight_BTN.flatten()).sum(), learned_BT.sum() * time_BTN.shape[-1]

    def weights(self, time_BT: Tensor) -> Tensor:
        """Weight of every frame's loss, by the times of the clip's frames; the head's own, 1."""
        return torch.ones_like(time_BT, dtype=torch.float32)

    @override
    def check_context(self, given: int, total_frames: int | None) -> None:
        """Frames that are made together must have an end."""
        super().check_context(given, total_frames)
        if total_frames is None and self.schedule != "autoregressive" and not self.horizon:
            raise MagiError(f"schedule {self.schedule!r} makes all frames together: say how many, or give a horizon")

    @override
    def sampled(self, sampling: Sampling) -> "DiffusionForcing":
        """By the schedule that is asked for."""
        asked = {name: value for name, value in sampling.given().items() if name in OF_GENERATION}
        if not asked:
            return self
        changed = copy(self)
        vars(changed).update(asked)
        return changed

    @override
    def check_sampling(self, asked: Sampling) -> None:
        """Only the pyramid is uncertain, and one frame alone has no horizon."""
        super().check_sampling(asked)
        schedule = self.sampled(asked).schedule
        if asked.uncertainty is not None and schedule != "pyramid":
            raise MagiError(f"uncertainty is of the schedule 'pyramid'; this one is {schedule!r}")
        if asked.horizon is not None and schedule == "autoregressive":
            raise MagiError("horizon counts the frames that are made together; 'autoregressive' makes one at a time")

    @override
    def step_frames(self, model: MagiVideoTransformer, begun: int, total_frames: int | None) -> int:
        if self.schedule == "autoregressive":
            return 1
        left = self.horizon if total_frames is None else total_frames - begun
        return max(1, min(left, self.horizon or left))

    @override
    def as_past(self, model: MagiVideoTransformer, frame: FrameSequence) -> FrameSequence:
        """Scaled and conditioned as a frame of `context_level`, without its noise."""
        signal = levels_of(model.diffusion_head).signal(self.context_level)
        level_BS = torch.full(frame.tokens_BSND.shape[:2], float(self.context_level), device=frame.tokens_BSND.device)
        conditions = frame.conditions | {NOISE_LEVEL: level_BS}
        return replace(frame, tokens_BSND=signal * frame.tokens_BSND, conditions=conditions)

    @override
    def generate(
        self,
        model: MagiVideoTransformer,
        past: Past,
        frames: FrameSequence,
        noise: SampleNoise,
        sampling: ResolvedSampling,
    ) -> None:
        """A pass over the frames for each row of the schedule.

        Frames that are still to be begun are not read, since none before them sees them; frames of the step that are
        finished are read as the past is. Guidance has its full scale throughout: no token appears before another.
        """
        levels, device = levels_of(model.diffusion_head), frames.tokens_BSND.device
        sampler = levels.find_sampler(sampling.sampler)
        times = levels.times(sampling.denoise_steps, sampling.first_step)
        halves = len(frames.tokens_BSND) // len(noise.generators)
        count, tokens, size = frames.tokens_BSND.shape[1:]
        x_BSND = noise.normal(count, tokens, size) * sampling.temperature
        context = levels.signal(self.context_level)
        rows = schedule_matrix(self.schedule, sampling.denoise_steps, count, self.uncertainty)
        for now_S, then_S in pairwise(rows):
            moving = (now_S != then_S).nonzero()[:, 0]
            read = int(moving[-1]) + 1
            finished_S = now_S[:read] == 0
            told_S = torch.where(finished_S, self.context_level, times[now_S[:read]].double()).float().to(device)
            scale_S = torch.where(finished_S, context, 1.0).to(x_BSND)
            seen = first_frames(frames, read)
            seen.tokens_BSND = (scale_S[:, None, None] * x_BSND[:, :read]).repeat(halves, 1, 1, 1)
            seen.masked_BSN = torch.zeros_like(seen.masked_BSN)
            seen.conditions |= {NOISE_LEVEL: told_S.expand(len(seen.tokens_BSND), -1)}
            places_n = (moving[:, None] * tokens + torch.arange(tokens)).flatten().to(device)
            z_RnW = past.read(seen, places_n.expand(len(seen.tokens_BSND), -1))
            now, then = times[now_S[moving]], times[then_S[moving]]
            time = now.to(device)
            time = time[0] if len(moving) == 1 else time.repeat_interleave(tokens)
            x_BMND = x_BSND[:, moving.to(device)]
            output_BnD = levels.head.predict(x_BMND.flatten(1, 2), time, z_RnW, sampling.guidance(1))
            output_BMND = output_BnD.unflatten(1, (-1, tokens))
            drawn = noise.normal(len(moving), tokens, size) * sampling.temperature if sampler == "ancestral" else None
            x_BSND[:, moving.to(device)] = levels.step(x_BMND, output_BMND, now, then, sampler, drawn)
        frames.tokens_BSND.copy_(x_BSND.repeat(halves, 1, 1, 1))
        frames.masked_BSN.fill_(False)


@register
class DiffusionForcingVelocity(DiffusionForcing):
    """Diffusion Forcing with its authors' output: a linear layer to the velocity.

    Attributes:
        weights_by: "fused" (their default for video), "min-snr" or "none"; see `velocity_weights`.
        snr_clip, snr_decay: of these weights.
    """

    name = "diffusion-v"
    title = "Diffusion Forcing with its authors' linear velocity output"
    head = "velocity"
    options: ClassVar[dict[str, int | float | str]] = DiffusionForcing.options | {
        "weights_by": "fused", "snr_clip": 5.0, "snr_decay": 0.96,
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = DiffusionForcing.choices | {
        "weights_by": ("none", "min-snr", "fused")
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = DiffusionForcing.limits | {
        "snr_clip": (0.001, 1e6), "snr_decay": (0, 1),
    }  # fmt: skip
    weights_by: str
    snr_clip: float
    snr_decay: float

    @override
    def weights(self, time_BT: Tensor) -> Tensor:
        """By signal-to-noise ratio."""
        level_BT = alpha_bar(time_BT.cpu())
        snr_BT = level_BT / (1 - level_BT)
        weights_BT = velocity_weights(snr_BT, self.weights_by, self.snr_clip, self.snr_decay)
        return weights_BT.float().to(time_BT.device)


def first_frames(frames: FrameSequence, count: int) -> FrameSequence:
    """So many frames of a sequence; its masks are left open."""
    return FrameSequence(
        tokens_BSND=frames.tokens_BSND[:, :count],
        masked_BSN=frames.masked_BSN[:, :count],
        kind_S=frames.kind_S[..., :count],
        position_S=frames.position_S[:count],
        interval_B=frames.interval_B,
        conditions={name: value[:, :count] for name, value in frames.conditions.items()},
    )
