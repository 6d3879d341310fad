"""What a teacher-forcing paradigm is: how a clip becomes a training sequence, and what the cache holds at inference.

The trainer calls `loss`, the rollout reads `cached_kind`; neither knows which paradigm it serves.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from magi_video.models.dropout import Dropout, DropoutRates
from magi_video.models.random import Generators, draw
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiTransformer
from magi_video.paradigms.masking import MaskRatio
from magi_video.paradigms.noise import NoiseInjection


@dataclass
class Clip:
    """T complete frames of each of B clips.

    Attributes:
        tokens_BTND: clean tokens, zero mean and unit variance per latent channel.
        interval_B: interval between frames, 1…25.
        conditions: name → `[B, T]` or `[B, T, size]`; all but the noise level, which the paradigm sets.
    """

    tokens_BTND: Tensor
    interval_B: Tensor
    conditions: dict[str, Tensor] = field(default_factory=dict)


class Forcing(ABC):
    """One paradigm.

    Args:
        mask_ratio: how many tokens of a frame are hidden.
        noise: what is done to the frames that are observed.
        diffusion_batch_mul: independent diffusion draws for each hidden token.
        dropout: of the transformer, while it is in training mode.
    """

    name: ClassVar[str]
    cached_kind: ClassVar[int]
    """Kind of frame as which a finished frame enters the cache: the one that training let later frames see."""

    def __init__(
        self,
        mask_ratio: MaskRatio | None = None,
        noise: NoiseInjection | None = None,
        diffusion_batch_mul: int = 4,
        dropout: DropoutRates | None = None,
    ) -> None:
        self.mask_ratio = mask_ratio or MaskRatio()
        self.noise = noise or NoiseInjection()
        self.diffusion_batch_mul = diffusion_batch_mul
        self.dropout = dropout or DropoutRates()

    @abstractmethod
    def build(self, clip: Clip, hidden_BTN: Tensor, generator: Generators) -> FrameSequence:
        """The sequence for a clip whose masked frames hide `hidden_BTN`; `generator` draws the noise.

        Its `predicted` are the T frames that stand for the clip's frames 1…T.
        """

    def loss(self, model: MagiTransformer, clip: Clip, generator: Generators = None) -> Tensor:
        """Mean head loss over the hidden tokens of all frames, a float32 scalar; arguments as in `total_loss`."""
        total, tokens = self.total_loss(model, clip, generator)
        return total / tokens

    def total_loss(self, model: MagiTransformer, clip: Clip, generator: Generators = None) -> tuple[Tensor, Tensor]:
        """Head losses of the hidden tokens of all frames, summed, and the number of these tokens: float32 scalars.

        A batch may be split between processes and in parts: its mean loss is the sum of the totals over the sum of the
        numbers, not the mean of the parts' means.

        Args:
            model: the transformer; runs under the caller's autocast.
            clip: what to learn from.
            generator: source of every draw (ratios, orders, noise, dropout, dropped conditions), on the clip's device.
        """
        batch, frames, tokens, size = clip.tokens_BTND.shape
        device = clip.tokens_BTND.device
        hidden_BTN = self.mask_ratio.draw(batch, frames, tokens, generator, device)
        clip = Clip(clip.tokens_BTND, clip.interval_B, model.condition_tokens.drop(clip.conditions, generator))
        sequence = self.build(clip, hidden_BTN, generator)
        if model.training and self.dropout.any:
            sequence.dropout = Dropout.drawn(self.dropout, batch, len(model.blocks), generator, device)
        z_BTNW = model(sequence)
        # Drawn for every token: what a token gets does not depend on how many others are hidden.
        each = (batch, self.diffusion_batch_mul, frames * tokens)
        uniform_BRK = draw(torch.rand, each, generator, device)
        eps_BRKD = draw(torch.randn, (*each, size), generator, device)
        picked_M, weight_M = padded_selection(hidden_BTN)
        # The target is the clip itself, never what masking or noise made of it; the head is float32 throughout.
        with torch.autocast(device.type, enabled=False):
            losses_RM = model.diffusion_head.loss(
                clip.tokens_BTND.flatten(0, 2)[picked_M].float(),
                z_BTNW.flatten(0, 2)[picked_M].float(),
                uniform_BRK.transpose(0, 1).flatten(1, 2)[:, picked_M],
                eps_BRKD.transpose(0, 1).flatten(1, 2)[:, picked_M],
            )
            return (losses_RM * weight_M).sum() / self.diffusion_batch_mul, weight_M.sum()


def padded_selection(hidden_BTN: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the hidden tokens, padded to one of 16 sizes, and their weights (0 for padding), both `[M]`.

    The number of hidden tokens differs from step to step. oneDNN keeps kernels and buffers for every shape that it
    meets, gigabytes in the end, and a compiler would compile for each; a few sizes cost 3 % of the head's work.
    """
    places = hidden_BTN.flatten().nonzero()[:, 0]
    size = math.ceil(hidden_BTN.numel() / 16)
    padding = -len(places) % size
    weight_M = torch.ones(len(places) + padding, device=places.device)
    weight_M[len(places) :] = 0
    return torch.cat([places, places[:1].expand(padding)]), weight_M
