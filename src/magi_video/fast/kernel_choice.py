"""Which kernels compute products on this CPU, where the choice changes how results round: settled once for a whole run.

A kernel takes the place of PyTorch's own where it is faster here, which is measured. A gain near the threshold may come
out on either side of it, so the processes of a run, and a run that goes on, do not each measure for themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from magi_video.fast.kernels import LinearProduct
from magi_video.fast.linear import PackedLinear, packing_works
from magi_video.fast.probes import gain_of, one_thread, probes_on

if TYPE_CHECKING:
    from magi_video.distributed import Processes

KERNEL_GAIN = 1.1
"""How many times as fast as PyTorch's own another kernel must be to be used."""
TOLERANCE = 1e-5
"""Largest error, relative to the largest entry, that still counts as float32."""
FAST_FLOAT32, PACKED_WEIGHTS, LINEAR_KERNELS = "fast_float32", "packed_weights", "linear_kernels"
"""oneDNN's fast path for float32 products; `linear.PackedLinear`, for bfloat16 ones; `kernels.LinearProduct`, in
training under bfloat16 autocast."""


class Kernel:
    """A kernel that may take the place of PyTorch's own.

    Args:
        works: whether this CPU has it and it gives right results here; hangs on no timing.
        gain: measures how many times as fast as PyTorch's own it is.
    """

    def __init__(self, works: Callable[[], bool], gain: Callable[[], float]) -> None:
        self._works, self._gain = works, gain
        self.settled: bool | None = None

    @cached_property
    def works(self) -> bool:
        """Whether it may be used here."""
        return self._works()

    @cached_property
    def gain(self) -> float:
        """How many times as fast as PyTorch's own it is here; measured once a process."""
        return self._gain()

    @property
    def pays(self) -> bool:
        """Whether it works and is faster here; never where nothing is to be measured."""
        return probes_on() and self.works and self.gain >= KERNEL_GAIN

    @property
    def used(self) -> bool:
        """Whether it computes: as settled (`settle_kernels`), else where it pays."""
        return self.pays if self.settled is None else self.settled


def choose_kernels(names: Iterable[str], kept: Any = None) -> dict[str, bool]:
    """Which kernels a run asks for, to be recorded: its own from when it began, else those that pay here.

    What is recorded is the choice, not what computed: a machine that lacks a kernel does without it (`settle_kernels`),
    and the run takes it up again where it works.

    Args:
        names: of `KERNELS`; of no others anything is measured.
        kept: what the run has recorded. Anything but an object of kernel names with true or false is ignored.

    Returns:
        Name → whether it is asked for; those that are recorded, whether they are among `names` or not.
    """
    recorded = known_kernels(kept)
    return recorded | {name: KERNELS[name].pays for name in names if name not in recorded}


def known_kernels(kept: Any) -> dict[str, bool]:
    """The choices in a record, from which nothing else is believed."""
    record = kept if isinstance(kept, Mapping) else {}
    return {name: one for name in KERNELS if isinstance(one := record.get(name), bool)}


def settle_kernels(names: Iterable[str], processes: "Processes | None" = None, kept: Any = None) -> dict[str, bool]:
    """Settle which kernels compute from now on, in all processes of a run.

    Args:
        names: of `KERNELS`.
        processes: of the run, which call this together: the main one chooses, and a kernel is used where it works in
            all of them. This one alone if not given.
        kept: see `choose_kernels`; the main process's counts.

    Returns:
        Name → whether it is used.
    """
    names = list(names)

    def choose() -> dict[str, bool]:
        asked = choose_kernels(names, kept)
        return {name: asked[name] for name in names}

    def work() -> dict[str, bool]:
        return {name: asked and KERNELS[name].works for name, asked in chosen.items()}

    chosen = choose() if processes is None else processes.once(choose)
    everywhere = [work()] if processes is None else processes.each(work)
    settled = {name: all(one[name] for one in everywhere) for name in names}
    for name, used in settled.items():
        KERNELS[name].settled = used
    if settled.get(FAST_FLOAT32):
        torch.set_float32_matmul_precision("medium")  # sends `F.linear` to oneDNN
    elif FAST_FLOAT32 in settled and torch.get_float32_matmul_precision() == "medium":  # as an earlier run had it
        torch.set_float32_matmul_precision("highest")
    return settled


def missing_kernels(asked: Mapping[str, bool], used: Mapping[str, bool]) -> str:
    """A line that names the kernels that are asked for and cannot be used here; "" where there are none."""
    missing = [name for name, one in used.items() if asked.get(name) and not one]
    return (
        f"not on this CPU: {', '.join(missing)}; results are rounded differently than where this began"
        if missing
        else ""
    )


def use_fast_float32() -> bool:
    """Let float32 matrix products on this CPU take oneDNN's fast path, if it is faster here and gives float32 results.

    Returns:
        Whether the fast path is on.
    """
    return settle_kernels([FAST_FLOAT32])[FAST_FLOAT32]


def generation_kernels(precision: str) -> list[str]:
    """Names of the kernels that generation in a precision may use on a CPU."""
    return [FAST_FLOAT32, PACKED_WEIGHTS] if precision == "bf16" else [FAST_FLOAT32]


def training_kernels(precision: str) -> list[str]:
    """Names of the kernels that training in a precision may use on a CPU."""
    return [FAST_FLOAT32, LINEAR_KERNELS] if precision == "bf16" else [FAST_FLOAT32]


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """While entered, float32 matrix products have a precision of PyTorch's names."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fast_float32_is_exact() -> bool:
    """Whether the fast path gives float32 results: on CPUs with AMX it rounds to bfloat16 on the way."""
    a, b = square_matrices()
    exact = a.double() @ b.double().T
    with matmul_precision("medium"), one_thread(), torch.no_grad():
        return bool((F.linear(a, b) - exact).abs().max() <= TOLERANCE * exact.abs().max())


def fast_float32_gain() -> float:
    """Of the fast path over PyTorch's own, in a product of 0.03 GFLOP."""
    a, b = square_matrices()

    def product(precision: str) -> Tensor:
        torch.set_float32_matmul_precision(precision)
        return F.linear(a, b)

    with matmul_precision("highest"), one_thread(), torch.no_grad():
        return gain_of(lambda: product("highest"), lambda: product("medium"))


def square_matrices() -> tuple[Tensor, ...]:
    """Two float32 matrices `[256, 256]`, always the same."""
    return torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0)).unbind(0)


def packing_gain() -> float:
    """Of packed weights, in a bfloat16 product with few rows."""
    with torch.random.fork_rng(devices=[]):
        plain, packed = (PackedLinear(512, 512).to(torch.bfloat16).eval() for _ in range(2))
    packed.pack()
    x = torch.ones(64, 512, dtype=torch.bfloat16)
    with one_thread(), torch.no_grad():
        return gain_of(lambda: plain(x), lambda: packed(x))


def linear_product_gain() -> float:
    """Of `LinearProduct` over PyTorch's own linear layer under autocast, both ways."""
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(512, 256, generator=generator), torch.randn(512, generator=generator)
    x = torch.randn(512, 256, generator=generator).to(torch.bfloat16).requires_grad_()
    for parameter in (weight, bias):
        parameter.requires_grad_()

    def step(product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            y = product(x, weight, bias)
        torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))

    with one_thread(), torch.enable_grad():
        return gain_of(lambda: step(F.linear), lambda: step(LinearProduct.apply))


KERNELS = {
    FAST_FLOAT32: Kernel(fast_float32_is_exact, fast_float32_gain),
    PACKED_WEIGHTS: Kernel(packing_works, packing_gain),
    LINEAR_KERNELS: Kernel(lambda: True, linear_product_gain),
}
