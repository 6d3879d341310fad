"""Frames by launches and by CUDA graphs: milliseconds, and whether they are the same.

A part of `gpu.py`.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from magi_video.bench.generation import Generator
from magi_video.bench.subject import Subject
from magi_video.fast.cuda_capture import Capture
from magi_video.fast.cuda_graph import CudaGraphEngine
from magi_video.fast.engine import Engine
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.sampling import ResolvedSampling


class Repeat(Capture):
    """Does the work again, for trying the script without a GPU."""

    device_type = "cpu"

    def __call__(self, work: Callable[[], object], device: torch.device) -> Callable[[], object]:
        work()
        return work


def graph_engine(device: torch.device, say: Callable[[str], object] = lambda _: None) -> CudaGraphEngine:
    """CUDA graphs; on a CPU what stands for them."""
    return CudaGraphEngine(say=say) if device.type == "cuda" else CudaGraphEngine(say=say, capture=Repeat())


def compare_frames(
    subject: Subject,
    model: MagiVideoTransformer,
    sampling: ResolvedSampling,
    batch: int,
    device: torch.device,
    frames: int,
) -> dict[str, Any]:
    """Milliseconds of a frame by either, in turns of whole rollouts, and how far the latents are apart.

    Args:
        subject, model, sampling, batch, device: as of `Generator`.
        frames: of a rollout that are timed.
    """
    said: list[str] = []
    engines: dict[str, Engine] = {"launches": Engine(), "graphs": graph_engine(device, said.append)}
    generators = {name: Generator(subject, model, sampling, batch, device, one) for name, one in engines.items()}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    latents: dict[str, Tensor] = {}
    for name, generator in generators.items():  # the first rollout captures
        torch.manual_seed(0)
        latents[name] = torch.stack(generator.time_frames(2)[1])
    for _ in range(3):
        for name, generator in generators.items():
            seconds[name] += generator.time_frames(frames)[0]
    apart = (latents["graphs"] - latents["launches"]).abs().max() / latents["launches"].abs().max()
    return {
        **{f"{name}_ms": round(1000 * statistics.median(one), 4) for name, one in seconds.items()},
        "largest_difference_of_the_largest_number": float(apart),
        "left_to_pytorch": said,
    }
