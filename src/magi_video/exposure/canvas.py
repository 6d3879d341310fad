"""A canvas (CanvasMAR, arXiv 2510.13669): a blurred next frame, made in one shot, in place of mask tokens.

A pass over the sequence with the predicted frames masked wholly gives z of each place, and a linear layer of it the
canvas: the mean of what may come, learned by squared error. Then masked tokens are read as their part of the canvas,
beside the mask token. So the few tokens that appear first agree with one another, and an error of theirs is carried on
less. Generation makes the canvas of a frame once, by one more pass. The past is noise-injected as by `noise`.

The authors' easy-to-hard order of the tokens, from a head of its own, is not part of it.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.exposure.base import register
from magi_video.exposure.noise import Noise
from magi_video.models.head import TokenHead
from magi_video.models.random import Generators
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer


@register
class Canvas(Noise):
    """Noise on the past, and a canvas in place of mask tokens.

    Attributes:
        weight: of the canvas's squared error beside the head's loss; 0.1 as the authors have it.
    """

    name = "canvas"
    title = "noise on the past, and a one-shot blurred frame in place of mask tokens (CanvasMAR)"
    canvas = True
    needs: ClassVar[dict[str, tuple[tuple[object, ...], str]]] = {
        "past": (
            ("complete",),
            "a canvas follows complete frames, and this paradigm shows none in training",
        ),
        "unit": (("frame",), "a canvas is of one frame with masked tokens, and this paradigm generates in other units"),
    }
    heads = ("epsilon", "flow")
    options: ClassVar[dict[str, int | float | str]] = {"weight": 0.1}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"weight": (0, 100)}
    weight: float

    @override
    def paint(self, model: MagiVideoTransformer, sequence: FrameSequence) -> None:
        assert model.canvas_out is not None
        wholly_BSN = sequence.masked_BSN.any(-1, keepdim=True).expand_as(sequence.masked_BSN)
        self._painted_BPND = model.canvas_out(model(replace(sequence, masked_BSN=wholly_BSN, canvas_BCND=None)))
        sequence.canvas_BCND = self._painted_BPND.detach()

    @override
    def learn(self, head: TokenHead, target: Tensor, z: Tensor, counted: Tensor, generator: Generators) -> Tensor:
        error_BPN = (self._painted_BPND.float() - target).square().mean(-1)
        return self.weight * torch.where(counted, error_BPN, 0.0).sum()
