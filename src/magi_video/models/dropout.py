"""Dropout whose masks follow from seeds: the same in every process, after every stop, and when computed again.

PyTorch's own takes its masks from the device's one generator, so a clip's would depend on the clips before it, and on
how a batch is spread over processes. Here every clip has a seed for each place where something is dropped. Nothing is
dropped unless seeds are handed in, which a paradigm's loss alone does (`paradigms/base.py`): generation and evaluation
cannot drop anything.
"""

from functools import partial
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from magi_video.models.random import Generators, draw
from magi_video.settings import settings

ATTENTION, PROJECTION, HIDDEN, OUTPUT = PLACES = range(4)
"""Where a layer drops: attention weights, the output of attention, and in the MLP after GELU and at its end."""
SEEDS = 2**62


Rate = Annotated[float, Field(ge=0, lt=1)]


@settings
class DropoutRates:
    """Probabilities that a number is dropped (the rest is scaled up to keep the mean).

    Attributes:
        attention: of an attention weight (MAR's `attn_dropout`).
        projection: of a number of attention's output projection (MAR's `proj_dropout`).
        mlp: of a number in the MLP, after GELU and after its last layer, where timm's `Block` drops by the same
            `proj_dropout`.
    """

    attention: Rate = 0.0
    projection: Rate = 0.0
    mlp: Rate = 0.0

    @property
    def any(self) -> bool:
        """Whether anything is dropped."""
        return max(self.attention, self.projection, self.mlp) > 0


class Dropout(NamedTuple):
    """What is dropped in a pass, in one block of it (`at(block)`), or in one layer of that (`at(layer)`).

    Attributes:
        rates: one for each of `PLACES`.
        seeds: int64 on the CPU, `[B, blocks, 2, 4]`, `[B, 2, 4]` or `[B, 4]`.
    """

    rates: tuple[float, ...]
    seeds: Tensor

    @classmethod
    def drawn(
        cls, rates: DropoutRates, batch: int, blocks: int, generator: Generators, device: torch.device
    ) -> "Dropout":
        """Seeds for B clips, from their generators on `device`."""
        seeds = draw(partial(torch.randint, SEEDS), (batch, blocks, 2, len(PLACES)), generator, device)
        return cls((rates.attention, rates.projection, rates.mlp, rates.mlp), seeds.cpu())

    def at(self, index: int) -> "Dropout":
        """That of a block, or of a layer of a block (0 spatial, 1 temporal)."""
        return Dropout(self.rates, self.seeds[:, index])

    def drop(self, x: Tensor, place: int) -> Tensor:
        """Of a layer's `x` `[B, …]` what is kept at one of `PLACES`, scaled."""
        rate = self.rates[place]
        if rate == 0:
            return x
        return torch.where(kept(x.shape, rate, self.seeds[:, place], x.device), x * (1 / (1 - rate)), 0)


def kept(shape: tuple[int, ...], rate: float, seed_B: Tensor, device: torch.device) -> Tensor:
    """Boolean `[B, …]`: True with probability 1 − `rate`; a clip's part follows from its seed alone."""
    mask = torch.empty(shape, dtype=torch.bool, device=device)
    for row, seed in zip(mask, seed_B.tolist(), strict=True):
        row.bernoulli_(1 - rate, generator=torch.Generator(device).manual_seed(seed))
    return mask
