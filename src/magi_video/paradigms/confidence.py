"""The order in which discrete tokens appear by confidence, as in MaskGIT: `Sampling.order` "confidence"."""

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.categorical import CategoricalHead
from magi_video.models.random import SampleNoise
from magi_video.paradigms.masked_frames import ORDERS, MaskStep, RandomOrder
from magi_video.sampling.sampling import ResolvedSampling


class ConfidenceOrder(RandomOrder):
    """All tokens that are still masked are predicted, and those stay of which the head is most confident (MaskGIT).

    Confidence is the log-probability of what was drawn plus Gumbel noise, which falls linearly to zero over the mask
    steps (Chang et al. 2022; MAGVIT's `choice_temperature`).
    """

    @override
    def __init__(self, noise: SampleNoise, num_tokens: int, columns: int, sampling: ResolvedSampling) -> None:
        self.temperature = sampling.choice_temperature
        self.left_Bm = torch.arange(num_tokens, device=noise.device).repeat(len(noise.generators), 1)

    @override
    def predict(self, step: MaskStep, count: int) -> tuple[Tensor, Tensor]:
        head = step.head
        assert isinstance(head, CategoricalHead)
        codes_Bm, confidence_Bm = head.sample_codes(step.read(self.left_Bm), step.noise, **step.options)
        uniform_Bm = step.noise.uniform(self.left_Bm.shape[1]).clamp(min=torch.finfo(torch.float32).tiny)
        gumbel_Bm = -(-uniform_Bm.log()).log()
        confidence_Bm = confidence_Bm + self.temperature * (1 - step.progress) * gumbel_Bm
        order_Bm = confidence_Bm.argsort(dim=-1, descending=True, stable=True)
        stay_Bn, go_Bm = order_Bm[:, :count], order_Bm[:, count:].sort(-1).values
        places_Bn, self.left_Bm = self.left_Bm.gather(1, stay_Bn), self.left_Bm.gather(1, go_Bm)
        return places_Bn, head.look_up(codes_Bm.gather(1, stay_Bn))


ORDERS["confidence"] = ConfidenceOrder
