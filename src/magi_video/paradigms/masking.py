"""Masking (MAR; paper, sections 4 and 5.2): which tokens training masks, and how masked tokens appear in generation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.models.random import Generators, SampleNoise, draw
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.past import Past
from magi_video.sampling.settings import SamplingSettings


@dataclass(frozen=True)
class MaskRatio:
    """Truncated normal on [`minimum`, 1], centred at 1: 70–100 % of a frame in the paper.

    Attributes:
        minimum: least share of a frame's tokens that is masked, in (0, 1].
        std: of the normal before truncation.
    """

    minimum: float = 0.7
    std: float = 0.25

    def draw(self, batch: int, frames: int, tokens: int, generator: Generators, device: torch.device | str) -> Tensor:
        """Boolean `[B, T, N]`, True = masked: ceil(N · ratio) tokens of every frame, in uniformly random places."""
        uniform_BT = draw(torch.rand, (batch, frames), generator, device, dtype=torch.float64)
        # Inverse distribution function of the normal restricted to [minimum, 1], whose upper end is its mean.
        lowest = 0.5 * (1 + math.erf((self.minimum - 1) / self.std / math.sqrt(2)))
        ratio_BT = 1 + self.std * torch.special.ndtri(lowest + uniform_BT * (0.5 - lowest))
        count_BT = torch.ceil(tokens * ratio_BT.clamp(self.minimum, 1)).clamp(1, tokens)
        order_BTN = draw(torch.rand, (batch, frames, tokens), generator, device).argsort(-1).argsort(-1)
        return order_BTN < count_BT[..., None]


def unmasking_schedule(num_tokens: int, num_mask_steps: int) -> list[int]:
    """Tokens newly predicted at each step, in order: one pass of the transformer for each.

    After step k of K, max(1, min(masked − 1, floor(N · cos(π/2 · (k+1)/K)))) tokens stay masked (MAR): every step
    predicts at least one token, and the last step predicts all that are left. N = 256 and K = 64 give 64 steps, the
    first 13 of one token each.

    Args:
        num_tokens: N of a frame.
        num_mask_steps: K ≥ 1; more than N count as N, since every step must predict something.

    Returns:
        min(K, N) positive counts that sum to N.
    """
    if num_mask_steps < 1:
        raise MagiError(f"mask steps must be at least 1, got {num_mask_steps}")
    steps = min(num_mask_steps, num_tokens)
    counts = []
    masked = num_tokens
    for k in range(steps):
        left = max(1, min(masked - 1, math.floor(num_tokens * math.cos(math.pi / 2 * (k + 1) / steps))))
        left = 0 if k == steps - 1 else left
        counts.append(masked - left)
        masked = left
    return counts


def masked_generation(
    model: MagiVideoTransformer, past: Past, frame: FrameSequence, noise: SampleNoise, settings: SamplingSettings
) -> None:
    """Generate a frame by masked diffusion (paper, section 4; MAR): arguments as of `Paradigm.generate`, of one frame.

    The tokens appear in a random order, over K mask steps; the head denoises those of each step from pure noise.
    """
    tokens_RND, masked_RN = frame.tokens_BSND[:, 0], frame.masked_BSN[:, 0]
    halves = len(tokens_RND) // len(noise.generators)
    order_RN = noise.permutation(model.num_tokens).repeat(halves, 1)
    before = done = 0
    for step, count in enumerate(unmasking_schedule(model.num_tokens, settings.num_mask_steps)):
        places_Rn = order_RN[:, done : done + count]
        changed_Rm = None if step % settings.refresh == 0 else order_RN[:, before : done + count]
        z_RnW = past.read(frame, places_Rn, changed_Rm)
        before, done = done, done + count
        predicted_BnD = model.diffusion_head.sample(
            z_RnW,
            noise,
            settings.num_denoise_steps,
            sampler=settings.sampler,
            first_step=settings.first_step,
            temperature=settings.temperature,
            guidance=settings.guidance(done / model.num_tokens),
        )
        predicted_RnD = predicted_BnD.repeat(halves, 1, 1)
        tokens_RND.scatter_(1, places_Rn[..., None].expand_as(predicted_RnD), predicted_RnD)
        masked_RN.scatter_(1, places_Rn, False)
