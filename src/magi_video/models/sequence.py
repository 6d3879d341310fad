"""What the transformer reads: frames, which of their tokens are hidden, and which frame may attend to which."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

OBSERVATION, MASKED = 0, 1
"""Kinds of frame; each has its own learned position embedding."""


@dataclass
class FrameSequence:
    """S frames of each of B clips.

    Attributes:
        tokens_BSND: token values; what lies under `hidden_BSN` is never read.
        hidden_BSN: True where the mask token stands in for the token.
        kind_S: `OBSERVATION` or `MASKED` for every frame.
        position_S: temporal position of every frame, not necessarily an integer.
        interval_B: interval between frames, 1…25, as integers.
        conditions: value of each condition by name, `[B, S]` or `[B, S, size]`; a missing name is unknown.
        mask_SS: True where the row's frame may attend to the column's in the temporal layers; None with a cache.
    """

    tokens_BSND: Tensor
    hidden_BSN: Tensor
    kind_S: Tensor
    position_S: Tensor
    interval_B: Tensor
    conditions: dict[str, Tensor] = field(default_factory=dict)
    mask_SS: Tensor | None = None


def causal_mask(frames: int, window: int | None = None, device: torch.device | str = "cpu") -> Tensor:
    """`[S, S]`: True where frame (row) may see frame (column): itself and the past, at most `window` frames in all."""
    row = torch.arange(frames, device=device)[:, None]
    column = torch.arange(frames, device=device)[None]
    allowed = column <= row
    return allowed if window is None else allowed & (row - column < window)
