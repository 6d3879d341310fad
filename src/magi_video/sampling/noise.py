"""Randomness of a rollout: one generator a sample, so that a sample is the same in any batch."""

import torch
from torch import Tensor


class SampleNoise:
    """Draws for B samples, each from its own generator: the batch does not change a sample, and with generators on the
    CPU (the default everywhere) neither does the device.

    Args:
        generators: one a sample.
        device: where draws are put.
    """

    def __init__(self, generators: list[torch.Generator], device: torch.device | str = "cpu") -> None:
        self.generators = generators
        self.device = torch.device(device)

    @classmethod
    def from_seeds(cls, seeds: list[int], device: torch.device | str = "cpu") -> "SampleNoise":
        """One generator for each seed."""
        return cls([torch.Generator().manual_seed(seed) for seed in seeds], device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal `[B, *shape]`, float32."""
        draws = [torch.randn(shape, generator=one, device=one.device) for one in self.generators]
        return torch.stack(draws).to(self.device)

    def permutation(self, length: int) -> Tensor:
        """A uniformly random order of 0…length−1 for each sample, `[B, length]`."""
        draws = [torch.randperm(length, generator=one, device=one.device) for one in self.generators]
        return torch.stack(draws).to(self.device)
