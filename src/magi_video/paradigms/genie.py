"""Masked teacher forcing as Genie does it (Bruce et al. 2024; Jasmine's code): one rate a clip, the first frame shown.

sequence   c_1 m_2 … m_T             the first frame complete, then masked frames; visible tokens noise-injected
m_t sees   c_1 m_2 … m_t
loss       on the masked tokens of m_2 … m_T
generates  as complete teacher forcing, by 25 mask steps a frame unless the recipe says otherwise
cache      finished frames, as frames with nothing masked: training showed the first such frame alone

Every token of a later frame is masked with the clip's own probability, drawn from U(`mask_rate_min`, 1); the paper's
`masked` draws a share of 70–100 % for every frame and masks the first one too. So later frames see one complete frame
here, and the gap between training and generation is smaller, on short clips above all.

Genie adds its actions to the embeddings, and has discrete tokens with cross-entropy; here actions are condition tokens,
and tokens continuous with a diffusion head, or discrete with the categorical one, for every paradigm alike.
"""

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.random import Generators, draw
from magi_video.models.sequence import Clip
from magi_video.paradigms.base import register
from magi_video.paradigms.masked import MaskedTeacherForcing


@register
class Genie(MaskedTeacherForcing):
    """MTF with Genie's masks; `mask_ratio` is not used.

    Attributes:
        mask_rate_min: least probability, in [0, 1], that a token of a later frame is masked.
    """

    name = "genie"
    title = "masked teacher forcing as in Genie: one mask rate a clip, the first frame shown"
    shown_frames = 1
    loss_frames = "later"
    loss_share = 0.75
    steps: ClassVar[dict[str, int]] = {"mask_steps": 25}
    options: ClassVar[dict[str, int | float | str]] = {"mask_rate_min": 0.5}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"mask_rate_min": (0, 1)}
    mask_rate_min: float

    @override
    def draw_masks(self, clip: Clip, generator: Generators) -> Tensor:
        """At least one token of every clip, none of its first frame."""
        shape = clip.tokens_BTND.shape[:3]
        device = clip.tokens_BTND.device
        uniform_B = draw(torch.rand, shape[:1], generator, device)
        rate_B = self.mask_rate_min + (1 - self.mask_rate_min) * uniform_B
        uniform_BTN = draw(torch.rand, shape, generator, device)
        uniform_BTN[:, 0] = torch.inf
        least_B = uniform_BTN.amin((1, 2))
        return uniform_BTN <= torch.maximum(rate_B, least_B)[:, None, None]

    @override
    def check_context(self, given: int, total_frames: int | None) -> None:
        """No frame was ever learned without one before it."""
        if given == 0:
            raise MagiError("genie never learned a first frame: give one to go on from")
