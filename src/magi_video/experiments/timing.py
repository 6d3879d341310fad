"""Generation time against the number of frames, with and without the cache (paper, Fig. 5a)."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_video.experiments.worlds import World
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline

LENGTHS = (8, 16, 32, 64, 128)


def time_against_frames(model: Path, world: World, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    """Seconds to generate so many frames, cached and not; the k-th figure is taken from one rollout's running sum.

    The model has the world's shapes but the paper's interpolated positions, for which all of the past stays in sight
    (a sliding window would flatten both curves). Seconds depend on shapes alone, so its weights are random.

    Returns:
        frames, seconds_cached, seconds_uncached (lists), r2 (of the straight line through the cached curve, from every
        frame of it), r2_uncached, seconds_per_frame_cached and _uncached of every frame.
    """
    pipe = MagiVideoPipeline.from_pretrained(model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = MagiVideoTransformer.from_config(
            dict(pipe.transformer.config) | {"temporal_position": "interpolate"}
        )
    pipe.register_modules(transformer=transformer.eval())
    curves = {}
    for name, use_cache in (("cached", True), ("uncached", False)):
        generate_seconds(pipe, world, 4, use_cache)  # warm-up
        curves[name] = generate_seconds(pipe, world, max(lengths), use_cache)
    sums = {name: np.cumsum(seconds) for name, seconds in curves.items()}
    return {
        "frames": list(lengths),
        "seconds_cached": [round(float(sums["cached"][n - 1]), 4) for n in lengths],
        "seconds_uncached": [round(float(sums["uncached"][n - 1]), 4) for n in lengths],
        "r2": round(straightness(sums["cached"]), 6),
        "r2_uncached": round(straightness(sums["uncached"]), 6),
        "seconds_per_frame_cached": [round(float(value), 5) for value in curves["cached"]],
        "seconds_per_frame_uncached": [round(float(value), 5) for value in curves["uncached"]],
        "parameters": sum(parameter.numel() for parameter in transformer.parameters()),
        "tokens_per_frame": transformer.num_tokens,
        "mask_steps": pipe.resolve().mask_steps,
        "denoise_steps": pipe.resolve().denoise_steps,
        "threads": torch.get_num_threads(),
    }


def generate_seconds(pipe: MagiVideoPipeline, world: World, frames: int, use_cache: bool) -> np.ndarray:
    """Seconds of every frame of one video, from nothing."""
    stream = pipe.stream(
        num_frames=frames,
        interval=world.interval,
        generator=torch.Generator().manual_seed(0),
        use_cache=use_cache,
        output_type="pt",
    )
    seconds = []
    began = time.perf_counter()
    for _ in stream:
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return np.array(seconds)


def straightness(sums: np.ndarray) -> float:
    """R² of the least-squares line through (number of frames, seconds)."""
    frames = np.arange(1, len(sums) + 1)
    residual = sums - np.polyval(np.polyfit(frames, sums, 1), frames)
    return 1 - float((residual**2).sum() / ((sums - sums.mean()) ** 2).sum())
