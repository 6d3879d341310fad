"""What is masked and what is noised (paper, sections 3, 4 and 5.2): a clip in training, a frame in generation."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.models.random import Generators, draw


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


@dataclass(frozen=True)
class NoiseInjection:
    """Dynamic noise injection (GameNGen): the past in training is as imperfect as a rollout's own.

    x + σ_l ε with a level l drawn uniformly from 0…`levels` for every frame, σ_l = `max_sigma` · l / `levels`.

    Level 0 is trained because inference uses it. `levels=0` switches the injection off.

    Attributes:
        levels: highest level, 5 in the paper.
        max_sigma: its standard deviation on unit-variance latents.
    """

    levels: int = 5
    max_sigma: float = 0.7

    def inject(self, tokens_BTND: Tensor, generator: Generators) -> tuple[Tensor, Tensor]:
        """Noisy tokens `[B, T, N, D]` and the level of every frame `[B, T]`; the input is left as it is."""
        device = tokens_BTND.device
        level_BT = draw(partial(torch.randint, self.levels + 1), tokens_BTND.shape[:2], generator, device)
        if self.levels == 0:
            return tokens_BTND, level_BT
        sigma_BT = self.max_sigma * level_BT / self.levels
        eps = draw(torch.randn, tokens_BTND.shape, generator, device, dtype=tokens_BTND.dtype)
        return tokens_BTND + sigma_BT[..., None, None] * eps, level_BT

    def inject_clip(self, tokens_BTND: Tensor, generator: Generators) -> tuple[Tensor, Tensor]:
        """As `inject`, with one level for all frames of a clip (GameNGen)."""
        noisy_B1MD, level_B1 = self.inject(tokens_BTND.flatten(1, 2)[:, None], generator)
        return noisy_B1MD.view_as(tokens_BTND), level_B1.expand(tokens_BTND.shape[:2])


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
