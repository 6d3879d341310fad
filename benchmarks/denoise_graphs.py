"""The denoise loop of one mask step: its launches one by one, replayed as a CUDA graph, and compiled.

A part of `gpu.py`.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from magi_video.bench.machine import clock
from magi_video.models.epsilon import EpsilonHead, ancestral, ancestral_tables, respaced_timesteps
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.sampling import Sampling


def time_denoising(model: MagiVideoTransformer, device: torch.device) -> dict[str, Any]:
    """Milliseconds of the loop, and how far the variants' tokens are from the plain ones."""
    head = model.diffusion_head
    assert isinstance(head, EpsilonHead)
    own = Sampling().resolve(head)
    steps, first, tokens = own.denoise_steps, own.first_step, max(1, model.num_tokens // own.mask_steps)
    assert first is not None
    times = torch.tensor(respaced_timesteps(steps, first)[::-1], device=device)
    tables = ancestral_tables(steps, first)
    noise_BSnD = torch.randn(1, steps, tokens, head.token_dim, device=device)
    z_BnW = torch.randn(1, tokens, model.config.width, device=device, dtype=torch.bfloat16)

    def loop() -> Tensor:
        return ancestral(head.denoiser(times, z_BnW), tables, noise_BSnD, 1.0)

    plain = loop()
    row: dict[str, Any] = {"denoise_steps": steps, "tokens": tokens, "eager_ms": milliseconds(device, loop)}
    if device.type == "cuda":
        graph, out = capture(loop)
        row |= {"graph_ms": milliseconds(device, graph.replay), "graph_difference": float((out - plain).abs().max())}
        compiled = torch.compile(loop, mode="reduce-overhead")
        for _ in range(3):
            row["compiled_difference"] = float((compiled() - plain).abs().max())
        row["compiled_ms"] = milliseconds(device, compiled)
    return row


def capture(function: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A function of fixed inputs as a graph, and its output, which every replay fills anew."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # warm-up, as capturing needs it
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function()
    graph.replay()
    return graph, out


def milliseconds(device: torch.device, function: Callable[[], object], repeats: int = 10) -> float:
    """Of a call, the median."""
    seconds = []
    for _ in range(repeats):
        began = clock(device)
        function()
        seconds.append(clock(device) - began)
    return round(1000 * statistics.median(seconds), 4)
