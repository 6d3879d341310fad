"""What bfloat16 costs by arithmetic, whatever machine computes it: the bound of tests that compare precisions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

SLACK = 2.0
"""How many times the emulated error a measured one may be; eight codecs: 1.15 at most, with AMX and with AVX2."""


class Rounding(TorchDispatchMode):
    """Rounds the result of every operator to bfloat16, the numbers staying float32: what bfloat16 is by definition.

    Sums are those of float32. Machines differ in what they round on the way, and fuse some operators into one.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(one.alias_info for one in func._schema.returns):  # a view, or in place: the same memory must come back
            return out
        return tree_map_only(torch.Tensor, lambda one: rounded(one) if one.is_floating_point() else one, out)


def rounded(tensor: Tensor) -> Tensor:
    """A tensor's numbers as bfloat16 holds them."""
    return tensor.to(torch.bfloat16).to(tensor.dtype)


def emulate(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that computes as bfloat16 would."""

    def emulated(*args: Any, **kwargs: Any) -> Any:
        with Rounding():
            return function(*args, **kwargs)

    return emulated


def distance(ours: Tensor, exact: Tensor) -> float:
    """Norm of the difference relative to the norm of what is exact."""
    return float((ours - exact).norm() / exact.norm().clamp(min=1e-6))


def assert_near(ours: Tensor, emulated: Tensor, exact: Tensor) -> None:
    """Assert that a bfloat16 result is about as near to the float32 one as the emulated result."""
    assert distance(ours, exact) <= SLACK * distance(emulated, exact)
