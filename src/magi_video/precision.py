"""Precision of weights by name, and float32 products on CPUs: the fast path where it is as exact as the slow one."""

import torch

from magi_video.errors import MagiError

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}

TOLERANCE = 1e-5
"""Largest error, relative to the largest entry, that still counts as float32."""


def find_precision(name: str) -> torch.dtype:
    """The precision of that name, or a `MagiError` that lists the names."""
    if name not in PRECISIONS:
        raise MagiError(f"unknown precision {name!r}: choose from {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def use_fast_float32() -> bool:
    """Let float32 matrix products on this CPU take oneDNN's fast path, if it gives float32 results here.

    "medium" precision sends `F.linear` to another kernel, twice as fast on the machines of docs/performance.md. On some
    CPUs (AMX) it rounds to bfloat16 on the way; a small product tells, and then the setting is taken back.

    Returns:
        Whether the fast path is on.
    """
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator).unbind(0)
    exact = a.double() @ b.double().T
    torch.set_float32_matmul_precision("medium")
    error = (torch.nn.functional.linear(a, b) - exact).abs().max() / exact.abs().max()
    if error > TOLERANCE:
        torch.set_float32_matmul_precision(before)
    return bool(error <= TOLERANCE)
