"""Complete teacher forcing, the paper's contribution: every masked frame learns from the *complete* frames before it.

sequence   o_1 … o_T  m_1 … m_T      complete (noise-injected) observations, then masked frames
o_t sees   o_1 … o_t
m_t sees   o_1 … o_{t−1} and itself  never o_t, never another masked frame
loss       on the masked tokens of m_1 … m_T
generates  frame by frame, by masked diffusion over the frame cache: K passes and one more
cache      finished frames, as observations at noise level 0: just what m_t saw in training
"""

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.sequence import MASKED, OBSERVATION, Clip, FrameSequence, causal_mask
from magi_video.paradigms.base import register
from magi_video.paradigms.masked_frames import MaskedFrames, own_frame


def complete_mask(frames: int, device: torch.device | str = "cpu") -> Tensor:
    """The temporal mask of o_1…o_T m_1…m_T, `[2T, 2T]`, True where the row may see the column (paper, Fig. 3)."""
    past_or_self = causal_mask(frames, device=device)
    itself = torch.eye(frames, dtype=torch.bool, device=device)
    nothing = torch.zeros_like(itself)
    observations = torch.cat([past_or_self, nothing], dim=1)
    masked = torch.cat([past_or_self & ~itself, itself], dim=1)
    return torch.cat([observations, masked])


@register
class CompleteTeacherForcing(MaskedFrames):
    """CTF (paper, section 3, eq. 4)."""

    name = "complete"
    title = "MAGI: masked frames learn from the complete frames before them"
    training_frames = 2
    cached_kind = OBSERVATION
    unit = "frame"
    temporal_attention = "causal"
    cached = True
    variable_context = True
    past = "complete"

    @override
    def sequence(self, clip: Clip, masked_BTN: Tensor) -> FrameSequence:
        """2T frames, the second half predicted."""
        frames, device = clip.tokens_BTND.shape[1], clip.tokens_BTND.device
        past_BTND, level_BT = clip.shown
        conditions = {name: torch.cat([value, value], dim=1) for name, value in clip.conditions.items()}
        conditions[NOISE_LEVEL] = torch.cat([level_BT, torch.zeros_like(level_BT)], dim=1)
        return FrameSequence(
            tokens_BSND=torch.cat([past_BTND, clip.tokens_BTND], dim=1),
            masked_BSN=torch.cat([torch.zeros_like(masked_BTN), masked_BTN], dim=1),
            kind_S=torch.tensor([OBSERVATION, MASKED], device=device).repeat_interleave(frames),
            position_S=torch.arange(frames, device=device).repeat(2),
            interval_B=clip.interval_B,
            conditions=conditions,
            mask_SS=complete_mask(frames, device),
            predicted=frames,
        )

    @override
    def visible(self, masked_TN: Tensor) -> Tensor:
        """The frames before, and what its own frame shows."""
        past = causal_mask(len(masked_TN), device=masked_TN.device).tril(-1)[:, None, :, None]
        return past | own_frame(masked_TN)
