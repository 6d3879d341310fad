"""Noise from generators on the CPU for a model on a GPU, which does not wait for it.

A copy from ordinary memory makes the host wait until the GPU has done all queued work, in every mask step.
"""

import torch
from torch import Tensor

from magi_video.models.random import SampleNoise


class PinnedNoise(SampleNoise):
    """`SampleNoise`, the same numbers, whose copies go through pinned memory and are not waited for."""

    def put(self, draws: list[Tensor]) -> Tensor:
        """See `SampleNoise`."""
        together = torch.stack(draws)
        return together if together.is_cuda else together.pin_memory().to(self.device, non_blocking=True)


def make_noise(generators: list[torch.Generator], device: torch.device) -> SampleNoise:
    """The noise of a rollout on a device; `PinnedNoise` for a GPU."""
    return (PinnedNoise if device.type == "cuda" else SampleNoise)(generators, device)
