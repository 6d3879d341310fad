"""Which tokens of a frame are hidden in training (MAR's masking, drawn for every clip and frame by itself)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from magi_video.models.random import Generators, draw


@dataclass(frozen=True)
class MaskRatio:
    """Truncated normal on [`minimum`, 1], centred at 1: 70–100 % of a frame in the paper.

    Attributes:
        minimum: least share of a frame's tokens that is hidden, in (0, 1].
        std: of the normal before truncation.
    """

    minimum: float = 0.7
    std: float = 0.25

    def draw(self, batch: int, frames: int, tokens: int, generator: Generators, device: torch.device | str) -> Tensor:
        """Boolean `[B, T, N]`, True = hidden: ceil(N · ratio) tokens of every frame, in uniformly random places."""
        uniform_BT = draw(torch.rand, (batch, frames), generator, device, dtype=torch.float64)
        # Inverse distribution function of the normal restricted to [minimum, 1], whose upper end is its mean.
        lowest = 0.5 * (1 + math.erf((self.minimum - 1) / self.std / math.sqrt(2)))
        ratio_BT = 1 + self.std * torch.special.ndtri(lowest + uniform_BT * (0.5 - lowest))
        hidden_count_BT = torch.ceil(tokens * ratio_BT.clamp(self.minimum, 1)).clamp(1, tokens)
        order_BTN = draw(torch.rand, (batch, frames, tokens), generator, device).argsort(-1).argsort(-1)
        return order_BTN < hidden_count_BT[..., None]
