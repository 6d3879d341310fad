"""Dynamic noise injection (paper, section 3; GameNGen): the past in training is as imperfect as a rollout's own."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from magi_video.models.random import Generators, draw


@dataclass(frozen=True)
class NoiseInjection:
    """x + σ_l ε with a level l drawn uniformly from 0…`levels` for every frame, σ_l = `max_sigma` · l / `levels`.

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
