"""Random draws for a batch: from one generator, or from one for each clip or sample.

With a generator a clip, a clip's draws do not depend on the others in the batch. So neither the number of processes nor
the number of parts in which they take a batch changes what is drawn; and a generated sample is the same in any batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Generators = torch.Generator | list[torch.Generator] | None
"""One generator a clip, one for all of them, or None for PyTorch's global one."""


def draw(
    kind: Callable[..., Tensor],
    shape: tuple[int, ...],
    generator: Generators,
    device: torch.device | str,
    **options: Any,
) -> Tensor:
    """Random numbers `[B, …]` for B clips.

    Args:
        kind: `torch.rand`, `torch.randn` or the like.
        shape: of the result; the first number is B.
        generator: on `device`; as many as there are clips, if several.
        device: of the result.
        options: for `kind`, such as `dtype`.
    """
    if not isinstance(generator, list):
        return kind(shape, generator=generator, device=device, **options)
    assert len(generator) == shape[0]
    return torch.stack([kind(shape[1:], generator=one, device=device, **options) for one in generator])


class SampleNoise:
    """Draws for B samples, each from its own generator: the batch does not change a sample, and with generators on the
    CPU (the default everywhere) neither does the device.

    Generators on the device draw there: nothing is copied, and the numbers are that device's own.

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
        return self.put([torch.randn(shape, generator=one, device=one.device) for one in self.generators])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), `[B, *shape]`, float32."""
        return self.put([torch.rand(shape, generator=one, device=one.device) for one in self.generators])

    def permutation(self, length: int) -> Tensor:
        """A uniformly random order of 0…length−1 for each sample, `[B, length]`."""
        return self.put([torch.randperm(length, generator=one, device=one.device) for one in self.generators])

    def put(self, draws: list[Tensor]) -> Tensor:
        """The draws of all samples on the device, `[B, …]`."""
        return torch.stack(draws).to(self.device)
