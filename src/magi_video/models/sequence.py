"""What the transformer reads: frames, which of their tokens are masked, and which frame may attend to which."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from magi_video.models.dropout import Dropout

OBSERVATION, MASKED = 0, 1
"""Kinds of frame; each has its own learned position embedding (paper, section 4)."""


@dataclass
class FrameSequence:
    """S frames of each of B clips.

    Attributes:
        tokens_BSND: token values; a value under `masked_BSN` is never read.
        masked_BSN: True where the mask token takes the token's place.
        kind_S: `OBSERVATION` or `MASKED` for every frame, `[S]`, or `[B, S]` where clips differ.
        position_S: temporal position of every frame, not necessarily an integer.
        interval_B: interval between frames, 1…25, integers.
        conditions: value of each condition by name, `[B, S]` or `[B, S, size]`; a missing name is unknown.
        mask_SS: temporal mask, True where the row's frame may attend to the column's; None over a cache.
        spatial_SLL: spatial mask over the places of each frame (condition tokens, then tokens); None: all see all.
        predicted: the last so many frames are asked for, the others are only seen; None for all frames.
        dropout: what a training pass drops; None elsewhere.
    """

    tokens_BSND: Tensor
    masked_BSN: Tensor
    kind_S: Tensor
    position_S: Tensor
    interval_B: Tensor
    conditions: dict[str, Tensor] = field(default_factory=dict)
    mask_SS: Tensor | None = None
    spatial_SLL: Tensor | None = None
    predicted: int | None = None
    dropout: Dropout | None = None

    @staticmethod
    def join(parts: "list[FrameSequence]") -> "FrameSequence":
        """Sequences of the same clips one after another; masks and `predicted` are left open."""
        first = parts[0]
        return FrameSequence(
            tokens_BSND=torch.cat([part.tokens_BSND for part in parts], dim=1),
            masked_BSN=torch.cat([part.masked_BSN for part in parts], dim=1),
            kind_S=torch.cat([part.kind_S for part in parts], dim=-1),
            position_S=torch.cat([part.position_S for part in parts]),
            interval_B=first.interval_B,
            conditions={name: torch.cat([part.conditions[name] for part in parts], dim=1) for name in first.conditions},
        )


def causal_mask(frames: int, window: int | None = None, device: torch.device | str = "cpu") -> Tensor:
    """`[S, S]`: True where frame (row) may see frame (column): itself and the past, at most `window` frames in all."""
    row = torch.arange(frames, device=device)[:, None]
    column = torch.arange(frames, device=device)[None]
    allowed = column <= row
    return allowed if window is None else allowed & (row - column < window)


def raster_mask(conditions: int, tokens: int, device: torch.device | str = "cpu") -> Tensor:
    """Spatial mask `[L, L]` of a frame in raster order: token i sees the condition tokens and tokens 0…i.

    Condition tokens see each other alone: what they carry reaches every token, so they may not read any.
    """
    mask = torch.ones(conditions + tokens, conditions + tokens, dtype=torch.bool, device=device).tril()
    mask[:conditions, :conditions] = True
    return mask
