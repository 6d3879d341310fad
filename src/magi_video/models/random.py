"""Random draws for a batch of clips: from one generator, or from one for each clip.

With a generator a clip, a clip's draws do not depend on the clips beside it. So neither the number of processes nor the
number of parts in which they take a batch changes what is drawn.
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
