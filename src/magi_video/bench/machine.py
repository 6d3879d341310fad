"""The machine: what it is, what its matrix units reach, how much memory there is and was used."""

import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from magi_video.errors import MagiError
from magi_video.fast.probes import PRECISIONS
from magi_video.models.transformer import MagiVideoTransformer

PEAK_SIDE, PEAK_REPEATS = 2048, 10
LONG_PRODUCT = 0.5
"""Seconds of a product that is not repeated: a CPU without bfloat16 units takes one for each."""
BYTES_TRAINED = 16
"""Of a parameter in training: float32 weight, gradient and AdamW's two averages."""


@dataclass(frozen=True)
class Machine:
    """Where the figures come from.

    Attributes:
        device: that ran the model: "cpu", or the GPU's name.
        cpu: model of the processor.
        cores: that the process may use.
        threads: that PyTorch used for the peaks, and may use; each part records its own.
        torch: its version.
        capability: vector instructions that PyTorch uses on the CPU, or the GPU's compute capability.
        fast_float32: whether float32 products took oneDNN's fast path (`probes.py`).
    """

    device: str
    cpu: str
    cores: int
    threads: int
    torch: str
    capability: str
    fast_float32: bool


def describe_machine(device: torch.device, fast_float32: bool) -> Machine:
    """This machine, at its present settings."""
    on_cpu = device.type == "cpu"
    return Machine(
        device="cpu" if on_cpu else torch.cuda.get_device_name(device),
        cpu=cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        capability=torch.backends.cpu.get_cpu_capability()
        if on_cpu
        else ".".join(map(str, torch.cuda.get_device_capability(device))),
        fast_float32=fast_float32,
    )


def cpu_model() -> str:
    """The processor's name, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def time_calls(function: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of so many calls."""
    seconds = []
    for _ in range(repeats):
        began = clock(device)
        function()
        seconds.append(clock(device) - began)
    return seconds


def matmul_peaks(device: torch.device) -> dict[str, float]:
    """GFLOP/s of `F.linear` of two 2048² matrices by precision: the best of ten, after one that is not counted unless
    it takes long."""
    peaks: dict[str, float] = {}
    for name, dtype in PRECISIONS.items():
        a, b = torch.zeros(2, PEAK_SIDE, PEAK_SIDE, device=device).uniform_(-1, 1).to(dtype).unbind(0)
        seconds = time_calls(lambda a=a, b=b: F.linear(a, b), device, 1)  # type: ignore[misc]
        if seconds[0] < LONG_PRODUCT:
            seconds = time_calls(lambda a=a, b=b: F.linear(a, b), device, PEAK_REPEATS)  # type: ignore[misc]
        peaks[name] = 2 * PEAK_SIDE**3 / min(seconds) / 1e9
    return peaks


def peak_memory_bytes(device: torch.device) -> int:
    """The most that was held so far: of the GPU's memory by tensors, or of the machine's by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def available_memory_bytes(device: torch.device) -> int | None:
    """Memory that is free to use; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    amounts = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return amounts[0] if amounts else None


def generation_bytes(model: MagiVideoTransformer, batch: int, frames: int, dtype: torch.dtype, is_random: bool) -> int:
    """Least memory of a rollout: weights (random ones are drawn in float32 before they are cast) and frame cache."""
    config = model.config
    places = model.num_places
    window = min(frames, config.num_frames) if config.temporal_position == "rope" else frames
    cache = 2 * config.depth * batch * places * window * config.width * dtype.itemsize
    drawn = 4 if is_random and dtype != torch.float32 else 0
    return count_parameters(model) * (dtype.itemsize + drawn) + cache


def training_bytes(model: MagiVideoTransformer, batch: int, frames: int, dtype: torch.dtype) -> int:
    """Least memory of a training step: 16 bytes a parameter, and what the backward needs of the layers' products.

    Each layer keeps its normalised inputs, queries, keys, values, what was attended, and both sides of the MLP's GELU,
    (6 W + 2 M) numbers a place, and the attention's weights, `heads` numbers for each pair of places that attend.

    Args:
        model: whose sizes count.
        batch: clips.
        frames: of the training sequence.
        dtype: of the activations.
    """
    config = model.config
    places = model.num_places
    kept = 2 * (6 * config.width + 2 * config.mlp_width) + config.heads * (places + frames)
    return count_parameters(model) * BYTES_TRAINED + batch * frames * places * config.depth * kept * dtype.itemsize


def require_memory(needed: int, device: torch.device, what: str, advice: str) -> None:
    """Refuse what cannot fit.

    Raises:
        MagiError: `what` needs more than is available; `advice` says what to do.
    """
    available = available_memory_bytes(device)
    if available is not None and needed > available:
        raise MagiError(
            f"{what} needs at least {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are available; {advice}"
        )


def count_parameters(module: torch.nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
