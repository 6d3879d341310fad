"""Masking (MAR; paper, sections 4 and 5.2): which tokens training masks, and how masked tokens appear in generation."""

import math
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


@dataclass(frozen=True)
class MaskStep:
    """One pass over frames in the making, and what the head makes of it.

    Attributes:
        past: the frames before.
        frames: in the making, of R rows: B samples, or 2B with guidance.
        head: of the model.
        noise: one generator a sample.
        options: of the head's `sample`.
        progress: share of the mask steps that are done after this one, in (0, 1].
        appeared_Rm: places that have appeared in the step before, where they and those of this step may be read alone;
            None where all are read.
    """

    past: Past
    frames: FrameSequence
    head: TokenHead
    noise: SampleNoise
    options: dict[str, Any]
    progress: float
    appeared_Rm: Tensor | None = None

    def read(self, places_Bn: Tensor) -> Tensor:
        """z `[R, n, W]` at some places of each sample."""
        return self.past.read(self.frames, *self._places(places_Bn))

    def sample(self, places_Bn: Tensor) -> Tensor:
        """The head's tokens `[B, n, D]` at some places of each sample."""
        return self.past.sample(self.head, self.frames, *self._places(places_Bn), self.noise, self.options)

    def _places(self, places_Bn: Tensor) -> tuple[Tensor, Tensor | None]:
        """Places of all rows, and those whose input has changed."""
        places_Rn = places_Bn.repeat(len(self.frames.tokens_BSND) // len(places_Bn), 1)
        changed = None if self.appeared_Rm is None else torch.cat([self.appeared_Rm, places_Rn], dim=1)
        return places_Rn, changed


class RandomOrder:
    """Tokens appear in a uniformly random order, drawn at the start (MAR)."""

    def __init__(self, noise: SampleNoise, num_tokens: int) -> None:
        self.left_Bm = noise.permutation(num_tokens)

    def predict(self, step: MaskStep, count: int) -> tuple[Tensor, Tensor]:
        """Predict the tokens of a mask step, so many: their places `[B, count]`, and the tokens `[B, count, D]`."""
        places_Bn, self.left_Bm = self.left_Bm[:, :count], self.left_Bm[:, count:]
        return places_Bn, step.sample(places_Bn)


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

    def predict(self, step: MaskStep, count: int) -> tuple[Tensor, Tensor]:
        """See `RandomOrder.predict`."""
        head = step.head
        assert isinstance(head, CategoricalHead)
        codes_Bm, confidence_Bm = head.sample_codes(step.read(self.left_Bm), step.noise, **step.options)
        uniform_Bm = step.noise.uniform(self.left_Bm.shape[1]).clamp(min=torch.finfo(torch.float32).tiny)
        gumbel_Bm = -(-uniform_Bm.log()).log()
        confidence_Bm = confidence_Bm + self.temperature * (1 - step.progress) * gumbel_Bm
        order_Bm = confidence_Bm.argsort(dim=-1, descending=True, stable=True)
        stay_Bn, go_Bm = order_Bm[:, :count], order_Bm[:, count:].sort(-1).values
        places_Bn, self.left_Bm = self.left_Bm.gather(1, stay_Bn), self.left_Bm.gather(1, go_Bm)
        return places_Bn, head.look_up(codes_Bm.gather(1, stay_Bn))


def masked_generation(
    model: MagiVideoTransformer, past: Past, frames: FrameSequence, noise: SampleNoise, sampling: ResolvedSampling
) -> None:
    """Generate frames over K mask steps (paper, section 4; MAR): arguments as of `Paradigm.generate`.

    The tokens of several frames appear together, in one order. The head makes those of each step.
    """
    head = model.diffusion_head
    tokens_RMD = frames.tokens_BSND.view(len(frames.tokens_BSND), -1, model.token_dim)
    masked_RM = frames.masked_BSN.view(len(tokens_RMD), -1)
    tokens, halves = masked_RM.shape[1], len(masked_RM) // len(noise.generators)
    order = (
        ConfidenceOrder(noise, tokens, sampling.choice_temperature)
        if sampling.order == "confidence"
        else RandomOrder(noise, tokens)
    )
    counts, done = unmasking_schedule(tokens, sampling.mask_steps), 0
    appeared_Rn = torch.empty(len(masked_RM), 0, dtype=torch.long, device=masked_RM.device)
    for number, count in enumerate(counts):
        done += count
        options = {name: getattr(sampling, name) for name in head.options}
        options["guidance"] = sampling.guidance(done / tokens)
        if "denoise_steps" in options:
            options["denoise_steps"] = sampling.denoise_steps_at(number, len(counts))
        may_reuse = number % sampling.refresh > 0
        step = MaskStep(
            past, frames, head, noise, options, (number + 1) / len(counts), appeared_Rn if may_reuse else None
        )
        places_Bn, tokens_BnD = order.predict(step, count)
        appeared_Rn, tokens_RnD = places_Bn.repeat(halves, 1), tokens_BnD.repeat(halves, 1, 1)
        tokens_RMD.scatter_(1, appeared_Rn[..., None].expand_as(tokens_RnD), tokens_RnD)
        masked_RM.scatter_(1, appeared_Rn, False)
