"""VideoMAR (Yu et al. 2025): one frame of a clip is learned after the complete frames before it, in T frames, not 2T.

sequence   o_1 … o_{f−1}  m_f  h_{f+1} … h_T   f drawn for every clip; observations noise-injected, h masked wholly
o_t sees   o_1 … o_t
m_f sees   o_1 … o_{f−1} and itself            never what follows it
loss       on the masked tokens of m_f alone
generates  as complete teacher forcing
cache      finished frames, as observations at noise level 0: just what m_f saw in training

Complete teacher forcing's conditioning without its doubled sequence: half of its work, and one frame with a loss where
it has T. f is uniform over all T frames, so that a video may begin without a given one. The authors' text embedding,
next-frame noise schedule and falling temperature are not part of the rule.
"""

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.random import Generators, draw
from magi_video.models.sequence import MASKED, OBSERVATION, Clip, FrameSequence, causal_mask
from magi_video.paradigms.base import register
from magi_video.paradigms.masked_frames import MaskedFrames, own_frame


@register
class VideoMAR(MaskedFrames):
    """CTF's conditioning for one frame of a clip."""

    name = "videomar"
    title = "one random frame of a clip learns from the complete frames before it (VideoMAR)"
    training_frames = 1
    cached_kind = OBSERVATION
    unit = "frame"
    temporal_attention = "causal"
    cached = True
    variable_context = True
    past = "complete"
    loss_frames = "one"

    @override
    def draw_masks(self, clip: Clip, generator: Generators) -> Tensor:
        """`mask_ratio` of frame f, one that may have a loss, and all of the frames after it."""
        (batch, frames, tokens, _), device = clip.tokens_BTND.shape, clip.tokens_BTND.device
        learned_BT = torch.ones(batch, frames, device=device) if clip.learned_BT is None else clip.learned_BT
        rank_BT = learned_BT.cumsum(1)
        chosen_B = (draw(torch.rand, (batch,), generator, device) * rank_BT[:, -1]).long()
        f_B = (rank_BT <= chosen_B[:, None]).sum(1)
        masked_BTN = self.mask_ratio.draw(batch, 1, tokens, generator, device).repeat(1, frames, 1)
        t = torch.arange(frames, device=device)
        after_BT1, before_BT1 = (t > f_B[:, None])[..., None], (t < f_B[:, None])[..., None]
        return (masked_BTN | after_BT1) & ~before_BT1

    @override
    def counted(self, masked_BTN: Tensor) -> Tensor:
        """In the first frame that has masked tokens."""
        has_BT = masked_BTN.any(-1)
        return masked_BTN & (has_BT.cumsum(1) == 1)[..., None]

    @override
    def sequence(self, clip: Clip, masked_BTN: Tensor) -> FrameSequence:
        """T frames; those with nothing masked are observations."""
        frames, device = clip.tokens_BTND.shape[1], clip.tokens_BTND.device
        past_BTND, level_BT = clip.shown
        kind_BT = torch.where(masked_BTN.any(-1), MASKED, OBSERVATION)
        observed_BT = kind_BT == OBSERVATION
        return FrameSequence(
            tokens_BSND=torch.where(observed_BT[..., None, None], past_BTND, clip.tokens_BTND),
            masked_BSN=masked_BTN,
            kind_S=kind_BT,
            position_S=torch.arange(frames, device=device),
            interval_B=clip.interval_B,
            conditions={**clip.conditions, NOISE_LEVEL: torch.where(observed_BT, level_BT, 0)},
            mask_SS=causal_mask(frames, device=device),
        )

    @override
    def visible(self, masked_TN: Tensor) -> Tensor:
        """What its own frame and the frames before show."""
        past = causal_mask(len(masked_TN), device=masked_TN.device).tril(-1)[:, None, :, None]
        return past & ~masked_TN[None, None] | own_frame(masked_TN)
