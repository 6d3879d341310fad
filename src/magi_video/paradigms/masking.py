"""Masking (MAR; paper, sections 4 and 5.2): which tokens training masks, and how masked tokens appear in generation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.models.categorical import CategoricalHead
from magi_video.models.head import TokenHead
from magi_video.models.random import Generators, SampleNoise, draw
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.past import Past
from magi_video.sampling.sampling import ResolvedSampling

Read = Callable[[Tensor], Tensor]
"""Gives z `[R, n, W]` at places `[B, n]` of B samples; R is B, or 2B with guidance."""


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


def unmasking_schedule(num_tokens: int, mask_steps: int) -> list[int]:
    """Tokens newly predicted at each step, in order: one pass of the transformer for each.

    After step k of K, max(1, min(masked − 1, floor(N · cos(π/2 · (k+1)/K)))) tokens stay masked (MAR): every step
    predicts at least one token, and the last step predicts all that are left. N = 256 and K = 64 give 64 steps, the
    first 13 of one token each.

    Args:
        num_tokens: N of a frame.
        mask_steps: K ≥ 1; more than N count as N, since every step must predict something.

    Returns:
        min(K, N) positive counts that sum to N.
    """
    if mask_steps < 1:
        raise MagiError(f"mask steps must be at least 1, got {mask_steps}")
    steps = min(mask_steps, num_tokens)
    counts = []
    masked = num_tokens
    for k in range(steps):
        left = max(1, min(masked - 1, math.floor(num_tokens * math.cos(math.pi / 2 * (k + 1) / steps))))
        left = 0 if k == steps - 1 else left
        counts.append(masked - left)
        masked = left
    return counts


class RandomOrder:
    """Tokens appear in a uniformly random order, drawn at the start (MAR)."""

    def __init__(self, noise: SampleNoise, num_tokens: int) -> None:
        self.left_Bm = noise.permutation(num_tokens)

    def predict(
        self, head: TokenHead, read: Read, count: int, progress: float, noise: SampleNoise, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Predict the tokens of a mask step.

        Args:
            head: of the model.
            read: gives z `[R, n, W]` at places `[B, n]`.
            count: of tokens that appear in this step.
            progress: share of the mask steps that are done after this one, in (0, 1].
            noise: one generator a sample.
            options: of the head's `sample`.

        Returns:
            The places `[B, count]` and the tokens `[B, count, D]` there.
        """
        places_Bn, self.left_Bm = self.left_Bm[:, :count], self.left_Bm[:, count:]
        return places_Bn, head.sample(read(places_Bn), noise, **options)


class ConfidenceOrder(RandomOrder):
    """All tokens that are still masked are predicted, and those stay of which the head is most confident (MaskGIT).

    Confidence is the log-probability of what was drawn plus Gumbel noise, which falls linearly to zero over the mask
    steps (Chang et al. 2022; MAGVIT's `choice_temperature`).

    Args:
        num_tokens: N.
        temperature: of the noise at the beginning.
        noise: one generator a sample.
    """

    def __init__(self, noise: SampleNoise, num_tokens: int, temperature: float) -> None:
        self.temperature = temperature
        self.left_Bm = torch.arange(num_tokens, device=noise.device).repeat(len(noise.generators), 1)

    def predict(
        self, head: TokenHead, read: Read, count: int, progress: float, noise: SampleNoise, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """See `RandomOrder.predict`."""
        assert isinstance(head, CategoricalHead)
        codes_Bm, confidence_Bm = head.sample_codes(read(self.left_Bm), noise, **options)
        uniform_Bm = noise.uniform(self.left_Bm.shape[1]).clamp(min=torch.finfo(torch.float32).tiny)
        gumbel_Bm = -(-uniform_Bm.log()).log()
        confidence_Bm = confidence_Bm + self.temperature * (1 - progress) * gumbel_Bm
        order_Bm = confidence_Bm.argsort(dim=-1, descending=True, stable=True)
        stay_Bn, go_Bm = order_Bm[:, :count], order_Bm[:, count:].sort(-1).values
        places_Bn, self.left_Bm = self.left_Bm.gather(1, stay_Bn), self.left_Bm.gather(1, go_Bm)
        return places_Bn, head.look_up(codes_Bm.gather(1, stay_Bn))


def unmask(
    head: TokenHead,
    tokens_RND: Tensor,
    masked_RN: Tensor,
    read: Callable[[Tensor, Tensor | None], Tensor],
    noise: SampleNoise,
    sampling: ResolvedSampling,
) -> None:
    """Fill in masked tokens over K mask steps, in place; the head makes those of each step.

    Args:
        head: of the model.
        tokens_RND: of B samples, or of 2B with guidance; N may be tokens of several frames.
        masked_RN: all True.
        read: gives z `[R, n, W]` at places `[R, n]`; its second argument are the places whose input has changed since
            it was last called, those of the first at the end, or None where all are to be read (`Past.read`).
        noise: one generator a sample.
        sampling: steps, order and what the head takes.
    """
    tokens, halves = masked_RN.shape[1], len(masked_RN) // len(noise.generators)
    order = (
        ConfidenceOrder(noise, tokens, sampling.choice_temperature)
        if sampling.order == "confidence"
        else RandomOrder(noise, tokens)
    )
    options = {name: getattr(sampling, name) for name in head.options}
    counts, done = unmasking_schedule(tokens, sampling.mask_steps), 0
    appeared_Rn = torch.empty(len(masked_RN), 0, dtype=torch.long, device=masked_RN.device)
    for step, count in enumerate(counts):

        def read_both(places_Bn: Tensor, step: int = step, appeared_Rn: Tensor = appeared_Rn) -> Tensor:
            places_Rn = places_Bn.repeat(halves, 1)
            fresh = step % sampling.refresh == 0
            return read(places_Rn, None if fresh else torch.cat([appeared_Rn, places_Rn], dim=1))

        done += count
        options["guidance"] = sampling.guidance(done / tokens)
        if "denoise_steps" in options:
            options["denoise_steps"] = sampling.denoise_steps_at(step, len(counts))
        places_Bn, tokens_BnD = order.predict(head, read_both, count, (step + 1) / len(counts), noise, options)
        appeared_Rn, tokens_RnD = places_Bn.repeat(halves, 1), tokens_BnD.repeat(halves, 1, 1)
        tokens_RND.scatter_(1, appeared_Rn[..., None].expand_as(tokens_RnD), tokens_RnD)
        masked_RN.scatter_(1, appeared_Rn, False)


def masked_generation(
    model: MagiVideoTransformer, past: Past, frames: FrameSequence, noise: SampleNoise, sampling: ResolvedSampling
) -> None:
    """Generate frames over K mask steps (paper, section 4; MAR): arguments as of `Paradigm.generate`.

    The tokens of several frames appear together, in one order.
    """

    def read(places_Rn: Tensor, changed_Rm: Tensor | None) -> Tensor:
        return past.read(frames, places_Rn, changed_Rm)

    tokens_RMD = frames.tokens_BSND.view(len(frames.tokens_BSND), -1, model.token_dim)
    unmask(model.diffusion_head, tokens_RMD, frames.masked_BSN.view(len(tokens_RMD), -1), read, noise, sampling)
