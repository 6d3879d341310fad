"""Masked teacher forcing, the rival: every masked frame learns from the *masked* frames before it.

sequence   m_1 … m_T                 masked frames, their visible tokens noise-injected
m_t sees   m_1 … m_t
loss       on the hidden tokens of m_1 … m_T
cache      finished frames, as masked frames with nothing hidden: training never showed such a past, and that gap
           between training and inference is the paper's argument
"""

import torch
from torch import Tensor

from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.random import Generators
from magi_video.models.sequence import MASKED, FrameSequence, causal_mask
from magi_video.paradigms.base import Clip, Forcing


class MaskedTeacherForcing(Forcing):
    """MTF (paper, section 3, eq. 3; Genie)."""

    name = "masked"
    cached_kind = MASKED

    def build(self, clip: Clip, hidden_BTN: Tensor, generator: Generators) -> FrameSequence:
        """See `Forcing.build`: T frames, all predicted."""
        frames, device = clip.tokens_BTND.shape[1], clip.tokens_BTND.device
        noisy_BTND, level_BT = self.noise.inject(clip.tokens_BTND, generator)
        return FrameSequence(
            tokens_BSND=noisy_BTND,
            hidden_BSN=hidden_BTN,
            kind_S=torch.full((frames,), MASKED, device=device),
            position_S=torch.arange(frames, device=device),
            interval_B=clip.interval_B,
            conditions={**clip.conditions, NOISE_LEVEL: level_BT},
            mask_SS=causal_mask(frames, device=device),
        )
