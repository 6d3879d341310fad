"""What the transformer reads: frames, which of their tokens are masked, and which frame may attend to which."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from magi_video.models.dropout import Dropout

OBSERVATION, MASKED = 0, 1
"""Kinds of frame; each has its own learned position embedding (paper, section 4)."""


@dataclass
class Clip:
    """T complete frames of each of B clips: what a paradigm learns from.

    Attributes:
        tokens_BTND: clean tokens, zero mean and unit variance per latent channel.
        interval_B: interval between frames, 1…25.
        conditions: name → `[B, T]` or `[B, T, size]`; all but those that the paradigm sets (the noise level).
        past_BTND: the frames as those after them see them, where that is not as they are (`exposure`).
        level_BT: the noise level of each of them, a condition; 0 if not given.
        learned_BT: True for the frames that may have a loss; None for all. The others are only seen.
    """

    tokens_BTND: Tensor
    interval_B: Tensor
    conditions: dict[str, Tensor] = field(default_factory=dict)
    past_BTND: Tensor | None = None
    level_BT: Tensor | None = None
    learned_BT: Tensor | None = None

    @property
    def shown(self) -> tuple[Tensor, Tensor]:
        """What later frames see: tokens `[B, T, N, D]` and noise levels `[B, T]`."""
        tokens_BTND = self.tokens_BTND if self.past_BTND is None else self.past_BTND
        clean_BT = torch.zeros(tokens_BTND.shape[:2], dtype=torch.long, device=tokens_BTND.device)
        return tokens_BTND, clean_BT if self.level_BT is None else self.level_BT


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
        spatial_SNN: spatial mask over the tokens of each frame, True where the row may attend to the column; None: all
            see all.
        flat_SNSN: mask over the tokens of all frames together. Given, every layer attends among all of them, and
            neither `mask_SS` nor `spatial_SNN` is asked.
        canvas_BCND: of the last C frames, what a model that has a canvas reads in masked places beside the mask token.
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
    spatial_SNN: Tensor | None = None
    flat_SNSN: Tensor | None = None
    canvas_BCND: Tensor | None = None
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
            canvas_BCND=parts[-1].canvas_BCND,
        )


def causal_mask(frames: int, window: int | None = None, device: torch.device | str = "cpu") -> Tensor:
    """`[S, S]`: True where frame (row) may see frame (column): itself and the past, at most `window` frames in all."""
    row = torch.arange(frames, device=device)[:, None]
    column = torch.arange(frames, device=device)[None]
    allowed = column <= row
    return allowed if window is None else allowed & (row - column < window)


def spatial_places(mask_SNN: Tensor, conditions: int) -> Tensor:
    """A spatial mask with the frame's condition tokens in front, `[S, L, L]`.

    Every token sees every condition. What a condition token reads reaches every token, so it sees the other conditions
    and the tokens that all tokens see.
    """
    frames, tokens = mask_SNN.shape[:2]
    places = conditions + tokens
    mask_SLL = mask_SNN.new_ones(frames, places, places)
    mask_SLL[:, :conditions, conditions:] = mask_SNN.all(1, keepdim=True)
    mask_SLL[:, conditions:, conditions:] = mask_SNN
    return mask_SLL


def flat_places(mask_SNSN: Tensor, conditions: int) -> Tensor:
    """A mask over the tokens of all frames with each frame's condition tokens in front, `[S · L, S · L]`.

    The conditions of a frame are seen by the frames that see any token of it; they see as in `spatial_places`.
    """
    frames, tokens = mask_SNSN.shape[:2]
    places = conditions + tokens
    seen_SS = mask_SNSN.flatten(2).any(1).unflatten(1, (frames, tokens)).any(-1)
    mask_SLSL = seen_SS[:, None, :, None].repeat(1, places, 1, places)
    mask_SLSL[:, :conditions, :, conditions:] = mask_SNSN.all(1, keepdim=True)
    mask_SLSL[:, conditions:, :, conditions:] = mask_SNSN
    return mask_SLSL.view(frames * places, frames * places)
