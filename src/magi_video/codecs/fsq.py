"""Finite scalar quantisation (Mentzer et al. 2023): each number of a vector is rounded to one of a few levels.

The codes are the points of a grid, so there is no codebook to learn and none to collapse.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def bound(z: Tensor, levels: Sequence[int]) -> Tensor:
    """Numbers `[…, C]` squashed to as wide a range as each has levels, so that rounding gives exactly these.

    Of L levels the roundings are −⌊L/2⌋ … ⌈L/2⌉ − 1 (the paper's function f; appendix A.1).
    """
    levels_C = torch.tensor(levels, dtype=torch.float32, device=z.device)
    half_C = (levels_C - 1) * (1 + 1e-3) / 2
    offset_C = torch.where(levels_C % 2 == 0, 0.5, 0.0)
    return torch.tanh(z.float() + torch.atanh(offset_C / half_C)) * half_C - offset_C


def quantize(z: Tensor, levels: Sequence[int]) -> Tensor:
    """Vectors `[…, C]` rounded to the grid, in [−1, 1]; gradients pass straight through the rounding."""
    bounded = bound(z, levels)
    rounded = bounded + (bounded.round() - bounded).detach()
    return rounded / torch.tensor([one // 2 for one in levels], dtype=torch.float32, device=z.device)


def codebook(levels: Sequence[int]) -> Tensor:
    """The grid `[V, C]`; code i has the digits of i in the mixed base of the levels, the first the fastest."""
    index_V = torch.arange(prod(levels))
    columns = []
    for level in levels:
        columns.append((index_V % level - level // 2) / (level // 2))
        index_V = index_V // level
    return torch.stack(columns, dim=1)
