"""Time and memory of generation against the number of frames, with and without the cache (paper, Fig. 5a)."""

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from magi_video.bench.generation import Generator, fit_line
from magi_video.bench.subject import make_subject
from magi_video.experiments.rows import Row
from magi_video.experiments.worlds import World
from magi_video.paradigms import make_paradigm

LENGTHS = (8, 16, 32, 64, 128)
REPEATS = 3
BETWEEN = 8
"""Frames from one recomputed frame that is timed to the next: each costs as much as all of a cached rollout's start."""


def time_against_frames(row: Row, world: World, lengths: Sequence[int] = LENGTHS) -> dict[str, Any]:
    """Seconds and memory to generate so many frames by one row of table 1, cached and not.

    The model has the world's shapes but the paper's interpolated positions, for which all of the past stays in sight (a
    sliding window would flatten both curves). Seconds depend on shapes alone, so its weights are random. Every frame of
    a cached rollout is timed; after every eighth, the same frame is timed with its past recomputed, and between these
    the seconds are taken to lie on a line. Medians of three rollouts.

    Returns:
        frames: `lengths`, the same for all lists here. seconds_cached, seconds_uncached: to make so many. past_bytes,
        past_bytes_uncached: what is kept of so many frames. peak_bytes, peak_bytes_uncached: most memory that tensors
        hold while the last of them is made, without weights and past. r2, r2_uncached: of the straight line through the
        seconds of every frame, added up. Then sizes and steps. A paradigm without a cache has the cached lists alone,
        which are those of its one way, and says so in `cached`.
    """
    model = replace(world.preset.model, temporal_position="interpolate")
    preset = row.preset(replace(world.preset, model=model))
    subject = make_subject(row.name, preset)
    transformer = subject.load(torch.float32)
    sampling = preset.own_sampling.resolve(transformer.diffusion_head)
    generator = Generator(subject, transformer, sampling, 1, torch.device("cpu"))
    cached = make_paradigm(preset.forcing, preset.forcing_options).cached
    generator.time_frames(1)
    curves = [time_rollout(generator, max(lengths), cached) for _ in range(REPEATS)]
    seconds = np.median([curve for curve, _ in curves], axis=0)
    figures: dict[str, Any] = {"cached": cached, "frames": list(lengths)}
    figures |= along(seconds, lengths, "cached") | memory(generator, lengths, None, "")
    if cached:
        recomputed = np.median([curve for _, curve in curves], axis=0)
        figures |= along(recomputed, lengths, "uncached") | memory(generator, lengths, False, "_uncached")
    return figures | {
        "parameters": sum(parameter.numel() for parameter in transformer.parameters()),
        "tokens_per_frame": transformer.num_tokens,
        "mask_steps": sampling.mask_steps,
        "denoise_steps": sampling.denoise_steps,
        "threads": torch.get_num_threads(),
    }


def time_rollout(generator: Generator, frames: int, recompute: bool) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each of so many frames after the given ones, and of the same frames with the past recomputed."""
    rollout = generator.begin(generator.given + frames)
    seconds: list[float] = []
    numbers: list[int] = []
    recomputed: list[float] = []
    while len(seconds) < frames:
        if recompute and (len(seconds) % BETWEEN == 0 or len(seconds) == frames - 1):
            numbers.append(len(seconds))
            recomputed.append(timed(generator.frame(len(seconds), frames, use_cache=False)))
        count = rollout.step_frames
        seconds += [timed(lambda: rollout.predict_frames([generator.conditions] * count)) / count] * count  # noqa: B023
    return np.array(seconds), np.interp(np.arange(frames), numbers, recomputed) if recompute else np.zeros(frames)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def along(seconds: np.ndarray, lengths: Sequence[int], name: str) -> dict[str, Any]:
    """The figures of a curve, seconds of each frame."""
    sums = np.cumsum(seconds)
    return {
        f"seconds_{name}": [round(float(sums[n - 1]), 4) for n in lengths],
        f"seconds_per_frame_{name}": [round(float(value), 5) for value in seconds],
        "r2" if name == "cached" else f"r2_{name}": round(fit_line(list(seconds)).r2, 6),
    }


def memory(generator: Generator, lengths: Sequence[int], use_cache: bool | None, name: str) -> dict[str, Any]:
    """Bytes that the past of a rollout of so many frames holds, and the most that making its last frame adds."""
    past, peaks = [], []
    for frames in lengths:
        with Memory() as kept:
            call = generator.frame(frames - 1, frames, use_cache)
            past.append(kept.held)
            with Memory() as added:
                call()
            peaks.append(added.peak)
    return {f"past_bytes{name}": past, f"peak_bytes{name}": peaks}


class Memory(TorchDispatchMode):
    """Counts the bytes of the tensors that operators make and that are alive.

    Attributes:
        held: bytes of those alive now.
        peak: the most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {storage(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and (key := storage(value)) not in given and key not in self.known:
                size = value.untyped_storage().nbytes()
                self.known.add(key)
                self.held += size
                self.peak = max(self.peak, self.held)
                weakref.finalize(value.untyped_storage(), self.forget, key, size)
        return made

    def forget(self, key: int, size: int) -> None:
        """A storage is gone."""
        self.known.discard(key)
        self.held -= size


def storage(value: Tensor) -> int:
    """What tells a tensor's memory from others'."""
    return value.untyped_storage().data_ptr()
