"""What the transformer reads: frames, which of their tokens are hidden, and which frame may attend to which."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from magi_video.models.dropout import Dropout

OBSERVATION, MASKED = 0, 1
"""Kinds of frame; each has its own learned position embedding."""


class FrameConstants(NamedTuple):
    """What of a frame's input does not depend on its tokens: the same in every pass over it.

    Attributes:
        embedding_BSLW: the condition tokens, and every embedding that is added to the tokens.
        cos_Sd, sin_Sd: rotary angles of the frames' positions; None without "rope".
    """

    embedding_BSLW: Tensor
    cos_Sd: Tensor | None
    sin_Sd: Tensor | None


@dataclass
class FrameSequence:
    """S frames of each of B clips, and what is asked about them.

    Attributes:
        tokens_BSND: token values; what lies under `hidden_BSN` is never read.
        hidden_BSN: True where the mask token stands in for the token.
        kind_S: `OBSERVATION` or `MASKED` for every frame.
        position_S: temporal position of every frame, not necessarily an integer.
        interval_B: interval between frames, 1…25, as integers.
        conditions: value of each condition by name, `[B, S]` or `[B, S, size]`; a missing name is unknown.
        mask_SS: True where the row's frame may attend to the column's in the temporal layers; None with a cache.
        predicted: the frames whose output is wanted: the others are there to be seen.
        places_Bn: the tokens of them whose output is wanted; None for all N.
        read_Bn: the tokens that this pass computes, those wanted at the end; None for all. The others are seen as the
            cache's memory holds them. One frame alone (S = 1).
        constants: `MagiTransformer.constants` of these frames, when they are read more than once.
        dropout: what a training pass drops; None elsewhere.
    """

    tokens_BSND: Tensor
    hidden_BSN: Tensor
    kind_S: Tensor
    position_S: Tensor
    interval_B: Tensor
    conditions: dict[str, Tensor] = field(default_factory=dict)
    mask_SS: Tensor | None = None
    predicted: slice = field(default_factory=lambda: slice(None))
    places_Bn: Tensor | None = None
    read_Bn: Tensor | None = None
    constants: FrameConstants | None = None
    dropout: Dropout | None = None

    @staticmethod
    def join(parts: "list[FrameSequence]") -> "FrameSequence":
        """Sequences of the same clips one after another; what is asked, and the mask, are left open."""
        first = parts[0]
        constants = [part.constants for part in parts if part.constants is not None]
        return FrameSequence(
            tokens_BSND=torch.cat([part.tokens_BSND for part in parts], dim=1),
            hidden_BSN=torch.cat([part.hidden_BSN for part in parts], dim=1),
            kind_S=torch.cat([part.kind_S for part in parts]),
            position_S=torch.cat([part.position_S for part in parts]),
            interval_B=first.interval_B,
            conditions={name: torch.cat([part.conditions[name] for part in parts], dim=1) for name in first.conditions},
            constants=join_constants(constants) if len(constants) == len(parts) else None,
        )


def join_constants(parts: list[FrameConstants]) -> FrameConstants:
    """Constants of sequences one after another."""
    embeddings, cosines, sines = zip(*parts, strict=True)
    angles = (None, None) if cosines[0] is None else (torch.cat(cosines), torch.cat(sines))
    return FrameConstants(torch.cat(embeddings, dim=1), *angles)


def causal_mask(frames: int, window: int | None = None, device: torch.device | str = "cpu") -> Tensor:
    """`[S, S]`: True where frame (row) may see frame (column): itself and the past, at most `window` frames in all."""
    row = torch.arange(frames, device=device)[:, None]
    column = torch.arange(frames, device=device)[None]
    allowed = column <= row
    return allowed if window is None else allowed & (row - column < window)
