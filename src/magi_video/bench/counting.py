"""Floating-point operations counted while they run, and the share of the machine's peak that they are.

The formulas of `flops.py` count all passes in full; a program that leaves out what nobody reads does less. So what
really ran is counted too, and shares of a machine's peak are taken from the smaller of the two.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry


def count_executed(function: Callable[[], Any], device: str = "cpu") -> int | None:
    """Operations that a call performs, counted as it runs; None if it runs a matrix product that cannot be counted."""
    watch = _Uncounted()
    # The CPU's fused attention is none of the operators that PyTorch counts; its plain form multiplies as much.
    attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    with attention, watch, FlopCounterMode(display=False) as counter:
        function()
    return None if watch.found else counter.get_total_flops()


class _Uncounted(TorchDispatchMode):
    """Notes operators that multiply matrices, by their names, and that PyTorch has no formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        products = ("mm", "matmul", "linear", "attention", "convolution")
        if any(word in name for word in products) and getattr(func, "overloadpacket", func) not in flop_registry:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def peak_share(algorithm: int, executed: int | None, seconds: float, peak_gflops: float) -> float:
    """Share of the measured peak: the smaller count over the seconds it took, over the peak."""
    return min(algorithm, algorithm if executed is None else executed) / seconds / (peak_gflops * 1e9)
