"""Masked teacher forcing, the baseline: every masked frame learns from the *masked* frames before it.

sequence   m_1 … m_T                 masked frames, their visible tokens noise-injected
m_t sees   m_1 … m_t
loss       on the masked tokens of m_1 … m_T
generates  as complete teacher forcing
cache      finished frames, as masked frames with nothing masked: training never showed such a past, and that gap
           between training and inference is the paper's argument
"""

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.sequence import MASKED, Clip, FrameSequence, causal_mask
from magi_video.paradigms.base import register
from magi_video.paradigms.masked_frames import MaskedFrames, own_frame


@register
class MaskedTeacherForcing(MaskedFrames):
    """MTF (paper, section 3, eq. 3; Genie)."""

    name = "masked"
    title = "masked teacher forcing, the baseline: masked frames learn from masked frames"
    training_frames = 1
    cached_kind = MASKED
    unit = "frame"
    temporal_attention = "causal"
    cached = True
    variable_context = True
    past = "masked"

    @override
    def sequence(self, clip: Clip, masked_BTN: Tensor) -> FrameSequence:
        """T frames, all predicted."""
        frames, device = clip.tokens_BTND.shape[1], clip.tokens_BTND.device
        past_BTND, level_BT = clip.shown
        return FrameSequence(
            tokens_BSND=past_BTND,
            masked_BSN=masked_BTN,
            kind_S=torch.full((frames,), MASKED, device=device),
            position_S=torch.arange(frames, device=device),
            interval_B=clip.interval_B,
            conditions={**clip.conditions, NOISE_LEVEL: level_BT},
            mask_SS=causal_mask(frames, device=device),
        )

    @override
    def visible(self, masked_TN: Tensor) -> Tensor:
        """What its own frame and the frames before show."""
        past = causal_mask(len(masked_TN), device=masked_TN.device).tril(-1)[:, None, :, None]
        return past & ~masked_TN[None, None] | own_frame(masked_TN)
