"""Speed of the Doom preset on this machine: training clips/s and share of the matmul peak, seconds per frame.

    python benchmarks/doom.py [--threads 2] [--json FILE]

Latents are random, so no data set is needed. The peak is a 2048³ bf16 product measured in the same process.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from magi_video.forcing import Clip, CompleteTeacherForcing
from magi_video.models import ACTION, OBSERVATION, MagiTransformer
from magi_video.precision import use_fast_float32
from magi_video.presets import doom
from magi_video.sampling import Rollout, SampleNoise, SamplingSettings
from magi_video.training.optimization import build_optimizer

ACTIONS = 6


def timed(function: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return seconds


def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a 2048³ product: the best of ten."""
    a, b = torch.randn(2, 2048, 2048, dtype=dtype).unbind(0)
    return 2 * 2048**3 / min(timed(lambda: torch.nn.functional.linear(a, b), 10))


def doom_model() -> MagiTransformer:
    """The Doom preset's transformer."""
    preset = doom()
    conditions = {"noise_level": {"size": 6}, ACTION: {"size": ACTIONS, "kind": "vector", "drop": 0.1}}
    return MagiTransformer(
        latent_channels=8, latent_height=8, latent_width=8, width=preset.model.hidden, depth=preset.model.depth,
        heads=preset.model.heads, mlp_width=preset.model.mlp, head_width=preset.model.head_width,
        max_interval=preset.data.max_interval, temporal_position=preset.model.temporal_position, conditions=conditions,
    )  # fmt: skip


def training_flops(model: MagiTransformer, batch: int, frames: int, hidden_share: float, repeats: int) -> float:
    """Of the matrix products of one step: forward and twice that backward."""
    places = model.num_tokens + len(model.condition_tokens.specs)
    sequence = 2 * frames  # complete teacher forcing doubles it
    layer = 2 * 12 * model.config.width**2  # per place: qkv, projection, MLP of four widths
    spatial, temporal = 4 * places * model.config.width, 4 * sequence * model.config.width
    backbone = batch * sequence * places * model.config.depth * (2 * layer + spatial + temporal)
    head = 2 * sum(p.numel() for p in model.diffusion_head.net.blocks.parameters())
    return 3 * (backbone + head * batch * frames * model.num_tokens * hidden_share * repeats)


def train_figures(model: MagiTransformer, peak: float) -> dict[str, Any]:
    """Clips/s, share of the peak, and where the time goes."""
    config = doom().train
    batch, frames = config.batch_size, doom().data.num_frames
    optimizer = build_optimizer(model, config)
    forcing = CompleteTeacherForcing()
    clip = Clip(
        torch.randn(batch, frames, model.num_tokens, model.token_dim),
        torch.ones(batch, dtype=torch.long),
        {ACTION: torch.rand(batch, frames, ACTIONS)},
    )
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = forcing.loss(model, clip, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = statistics.median(timed(step, 8))
    flops = training_flops(model, batch, frames, hidden_share=0.87, repeats=forcing.diffusion_batch_mul)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    return {
        "train_clips_per_second": batch / seconds,
        "train_seconds_per_step": seconds,
        "train_tflop_per_step": flops / 1e12,
        "train_peak_share": flops / seconds / peak,
        "train_profile_share": profile_by_part(recorded),
    }


def profile_by_part(recorded: Any) -> dict[str, float]:
    """Share of the operators' own time, by what they are for."""
    parts = {
        "matrix products": ("mm", "addmm", "bmm", "linear", "mkldnn_linear"),
        "copies and joins": ("copy_", "cat", "stack", "clone", "contiguous", "index", "gather", "index_put_", "fill_"),
        "softmax, norms, activations": ("_softmax", "layer_norm", "gelu", "silu"),
        "optimiser": ("AdamW", "_foreach", "lerp", "sqrt", "addcdiv"),
    }
    total, shares = 0.0, defaultdict(float)
    for event in recorded.key_averages():
        name, own = event.key.removeprefix("aten::"), event.self_cpu_time_total
        total += own
        part = next(
            (part for part, words in parts.items() if any(name == w or (len(w) > 3 and w in name) for w in words)),
            "element-wise and the rest",
        )
        shares[part] += own
    return {part: round(own / total, 3) for part, own in sorted(shares.items(), key=lambda item: -item[1])}


def generation_figures(model: MagiTransformer, frames: int = 64) -> dict[str, Any]:
    """Seconds per frame by frame index at the preset's steps, without decoding."""
    settings = SamplingSettings(doom().sample.mask_steps, doom().sample.denoise_steps)
    model.eval()
    rollout = Rollout(model, OBSERVATION, SampleNoise.from_seeds([0]), settings, torch.tensor([1]), None)
    seconds = timed(lambda: rollout.predict({ACTION: torch.zeros(1, ACTIONS)}), frames)
    return {
        "mask_steps": settings.num_mask_steps,
        "denoise_steps": settings.num_denoise_steps,
        "seconds_per_frame": [round(value, 4) for value in seconds],
        "median_seconds_per_frame": statistics.median(seconds),
        "first_16_over_last_16": statistics.median(seconds[:16]) / statistics.median(seconds[-16:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    fast = use_fast_float32()
    model = doom_model()
    peak = matmul_peak(torch.bfloat16)
    figures = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "bf16_peak_gflops": peak / 1e9,
        "fp32_peak_gflops": matmul_peak(torch.float32) / 1e9,
        "fast_float32": fast,
        "parameters": sum(p.numel() for p in model.parameters()),
        **train_figures(model, peak),
        **generation_figures(model),
    }
    print(json.dumps({k: v for k, v in figures.items() if k != "seconds_per_frame"}, indent=2))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
