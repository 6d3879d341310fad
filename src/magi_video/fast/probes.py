"""What this machine computes quickly, measured in some milliseconds: which precision a CPU is given.

CPUs differ by a hundred times in bfloat16: with matrix units it is several times as fast as float32; without, the
products of a backward pass fall to a scalar loop and take dozens of times as long. So nothing is assumed: a small piece
of the work is timed, once a process, on one thread, by the time that this thread computes, whatever else is running.
`MAGI_PROBES=off` leaves nothing to a timing: then results are the same at every start on a machine.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from magi_video.errors import MagiError
from magi_video.fast.linear import pack_linears
from magi_video.fast.precision import Settled, check_precision

PRECISIONS: dict[Settled, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}
GAIN, GENERATION_GAIN = 1.25, 1.6
"""How many times as fast as float32 bfloat16 must be to be chosen: the exact one wins a tie. In generation, where small
products are measured and much else is done, it must be clearly faster."""
TRIALS = 5
HOPELESS = 4.0
"""After a trial that takes so many times as long as the other side's, no more are made."""
SIZES = ((1,), (4,))
"""Of a piece of work: where the small one does not tell enough, the larger one does, as calls cost it less."""

PROBES = "MAGI_PROBES"
"""Environment variable: "off" where nothing is to be chosen by a timing."""

Work = Literal["training", "convolution", "detector", "generation"]
NAMES: dict[Work, str] = {
    "training": "a training-shaped product",
    "convolution": "a training-shaped convolution",
    "detector": "a convolution of the video network",
    "generation": "a layer of this model",
}


@dataclass(frozen=True)
class Choice:
    """A precision and why it was chosen; as text the line that tells so."""

    precision: Settled
    why: str

    @property
    def dtype(self) -> torch.dtype:
        """Of PyTorch."""
        return PRECISIONS[self.precision]

    def __str__(self) -> str:
        return f"precision: {self.precision} ({self.why})"


def probes_on() -> bool:
    """Whether timings may choose: precisions, kernels, engines, threads. `MAGI_PROBES=off` says that they may not.

    Raises:
        MagiError: the variable is neither "on" nor "off".
    """
    given = os.environ.get(PROBES) or "on"
    if given not in ("on", "off"):
        raise MagiError(f"{PROBES} must be on or off, got {given!r}")
    return given == "on"


def choose_precision(
    asked: str, device: torch.device | str, work: Work, shape: tuple[int, ...] = (), reason: str = "as asked"
) -> Choice:
    """The precision to compute in: the one asked for, or by "auto" the quicker one on this machine.

    Args:
        asked: "auto", "float32" or "bf16".
        device: that computes.
        work: what is computed.
        shape: of the work "generation", as `generation_pass` takes it.
        reason: of a precision that is not "auto"; where another is much quicker here, the line says so.

    Raises:
        MagiError: there is no such precision.
    """
    check_precision(asked)
    kind = torch.device(device).type
    if kind == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        settled: Settled = "bf16" if has else "float32"
        why = "this GPU has bfloat16 units" if has else "this GPU has no bfloat16 units"
        return Choice(settled, why) if asked == "auto" else Choice(asked, reason)  # type: ignore[arg-type]
    if kind != "cpu":
        return Choice("float32", "not measured on this device") if asked == "auto" else Choice(asked, reason)  # type: ignore[arg-type]
    if not probes_on():
        return Choice("float32", f"{PROBES}=off") if asked == "auto" else Choice(asked, reason)  # type: ignore[arg-type]
    gain = low_precision_gain(work, shape)
    if asked == "auto":
        needed = GENERATION_GAIN if work == "generation" else GAIN
        if gain >= needed:
            return Choice("bf16", compare(gain, work))
        wanted = f", which is chosen from {needed:g}× on" if gain >= 1 else ""
        return Choice("float32", compare(gain, work) + wanted)
    slow = gain < 1 / GAIN if asked == "bf16" else gain > 2 * GAIN
    return Choice(asked, f"{reason}; {compare(gain, work)}" if slow else reason)  # type: ignore[arg-type]


def compare(gain: float, work: Work) -> str:
    """What a gain of bfloat16 means, in words."""
    if gain >= 1:
        return f"in bf16 {NAMES[work]} is {gain:.1f}× as fast as in float32 on this CPU"
    return f"in bf16 {NAMES[work]} takes {1 / gain:.1f}× as long as in float32 on this CPU"


@cache
def low_precision_gain(work: Work, shape: tuple[int, ...] = ()) -> float:
    """Seconds of a piece of work in float32 over those in bfloat16, on one thread of this CPU."""
    makers: dict[Work, Callable[..., Callable[[], Any]]] = {
        "training": training_step, "convolution": convolution_step, "detector": detector_pass,
        "generation": generation_pass,
    }  # fmt: skip
    gain = 0.0
    with one_thread(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for sizes in [shape] if work == "generation" else SIZES:
            gain = gain_of(makers[work](torch.float32, *sizes), makers[work](torch.bfloat16, *sizes))
            if gain < 1 / HOPELESS:  # nothing larger, which would take too long
                break
    return gain


def gain_of(plain: Callable[[], Any], other: Callable[[], Any]) -> float:
    """How many times as fast as `plain` another way is: the best of some trials of each, in turns."""
    best = [float("inf"), float("inf")]
    for trial in range(-1, TRIALS):  # the first of each is not counted, unless it tells enough
        for side, function in enumerate((plain, other)):
            began = time.thread_time()
            function()
            seconds = max(time.thread_time() - began, 1e-9)
            if trial >= 0 or (side == 1 and seconds > 0.02):
                best[side] = min(best[side], seconds)
        if trial >= 0 and max(best) > HOPELESS * min(best):
            break
    return best[0] / best[1]


class one_thread:  # noqa: N801 — a context manager, as `torch.no_grad`
    """While entered PyTorch computes on the calling thread alone."""

    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.threads)


def training_step(dtype: torch.dtype, size: int) -> Callable[[], Any]:
    """Forward and backward of a linear layer with float32 weights, computed in a precision: `size` × 0.1 GFLOP."""
    weight_OI = torch.randn(256, 256)
    x_RI, g_RO = torch.randn(2, 256 * size, 256).to(dtype).unbind(0)

    def step() -> Any:
        low = weight_OI.to(dtype)
        return F.linear(x_RI, low), g_RO @ low, (g_RO.t() @ x_RI).float()

    return step


def convolution_step(dtype: torch.dtype, size: int) -> Callable[[], Any]:
    """Forward and backward of a convolution as the small VAE has them: `size` × 0.1 GFLOP."""
    weight = torch.randn(64, 64, 3, 3).contiguous(memory_format=torch.channels_last).to(dtype)
    x = torch.randn(2 * size, 64, 16, 16).contiguous(memory_format=torch.channels_last).to(dtype)
    sides = [1, 1]
    back = torch.ops.aten.convolution_backward

    def step() -> Any:
        y = F.conv2d(x, weight, padding=1)
        return back(y, x, weight, None, sides, sides, sides, False, [0, 0], 1, [True, True, False])

    return step


def detector_pass(dtype: torch.dtype, size: int) -> Callable[[], Any]:
    """Forward of a convolution over time and space as I3D has them: `size` × 0.1 GFLOP."""
    weight, x = torch.randn(32, 32, 3, 3, 3).to(dtype), torch.randn(size, 32, 6, 16, 16).to(dtype)
    return lambda: F.conv3d(x, weight, padding=1)


def generation_pass(
    dtype: torch.dtype, rows: int, width: int, mlp_width: int, tokens: int, head_width: int, head_calls: int
) -> Callable[[], Any]:
    """A pass of a frame through an MLP as the transformer's, and the head's calls for it on the tokens of a mask step.

    Args:
        dtype: of the weights.
        rows, width, mlp_width: of the transformer's pass; large ones are cut.
        tokens, head_width, head_calls: of the head, for each layer of the transformer that a frame passes.
    """

    def mlp(width: int, inner: int) -> torch.nn.Module:
        layers = (nn.LayerNorm(width), nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        made = torch.nn.Sequential(*layers).to(dtype).eval()
        pack_linears(made)
        return made

    width, head_width = min(width, 1024), min(head_width, 1024)
    block, head = mlp(width, min(mlp_width, 2048)), mlp(head_width, head_width)
    x, drawn = torch.randn(min(rows, 256), width).to(dtype), torch.randn(min(tokens, 256), head_width)

    def frame() -> None:
        block(x)
        for _ in range(min(head_calls, 16)):  # tokens stay float32 between the steps
            head(drawn.to(dtype)).float()

    return frame
