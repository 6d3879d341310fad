"""Seconds of a training step, with and without what makes it fast; the variants take turns in one process.

    python benchmarks/training.py [base|doom|tiny] [--depth 2] [--without attention table …] [--cpu-time] [--json FILE]

`now` is the step that the trainer takes; `plain` has none of the parts below, `without X` all but one.

    attention   the attention's gradient written out, against the one that PyTorch derives
    table       diffusion times embedded once for each of the 1000 steps, against once for each draw
    kernels     gradients of linear layers and norms (`fast/kernels.py`)
    optimiser   fused AdamW

`floor` is the least time in which this machine could multiply: the transformer's products at the measured peak of the
precision, the head's, which are float32, at the measured float32 peak.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from magi_video.bench.flops import Sizes, training_flops
from magi_video.bench.machine import peak_memory_bytes
from magi_video.bench.profiling import profile_call
from magi_video.bench.subject import Subject, build, make_subject, open_subject
from magi_video.bench.training import Stepper, mean_share, sequence_frames
from magi_video.fast import allocator
from magi_video.fast import layers as fast_layers
from magi_video.fast.compiling import compile_blocks
from magi_video.fast.head import FastDenoisingMLP
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.fast.kernels import TrainingLayerNorm, TrainingLinear
from magi_video.models import layers
from magi_video.models.head import DenoisingMLP
from magi_video.training.optimization import AveragedWeights

PARTS = ("attention", "table", "kernels", "optimiser")
CPU = torch.device("cpu")

PLAIN: dict[str, dict[type[nn.Module], type[nn.Module]]] = {
    "attention": {
        fast_layers.FastBlock: layers.Block,
        fast_layers.FastSpatialLayer: layers.SpatialLayer,
        fast_layers.FastTemporalLayer: layers.TemporalLayer,
    },
    "table": {FastDenoisingMLP: DenoisingMLP},
    "kernels": {TrainingLinear: nn.Linear, TrainingLayerNorm: nn.LayerNorm},
}
"""Fast classes, each with the plain one."""


class Run:
    """A model in training, whose parts can be switched off and on."""

    def __init__(self, subject: Subject, batch: int, precision: str) -> None:
        torch.manual_seed(0)
        self.stepper = Stepper(subject, build(subject.preset), batch, precision, CPU)
        model = self.stepper.model
        self.average = AveragedWeights(model.parameters(), subject.preset.train.ema_decay)
        self.classes = [(module, type(module)) for module in model.modules()]
        self.compiled: list[Any] = []

    @contextmanager
    def without(self, parts: tuple[str, ...]) -> Iterator[None]:
        """These parts in their plain form; "compiled" switches the compiled blocks on."""
        for module, fast in self.classes:
            plain = [PLAIN[part][fast] for part in parts if fast in PLAIN.get(part, {})]
            module.__class__ = plain[0] if plain else fast
        for group in self.stepper.optimizer.param_groups:
            group["fused"] = "optimiser" not in parts
        for index, block in enumerate(self.stepper.model.blocks):
            block._compiled_call_impl = self.compiled[index] if "compiled" in parts else None
        try:
            yield
        finally:
            for module, fast in self.classes:
                module.__class__ = fast

    def compile(self) -> None:
        """Have compiled blocks ready."""
        if problem := compile_blocks(self.stepper.model, self.stepper.step):
            raise SystemExit(f"not compiled: {problem}")
        self.compiled = [block._compiled_call_impl for block in self.stepper.model.blocks]

    def step(self) -> None:
        """An optimiser step and the average."""
        self.stepper.step()
        self.average.step(self.stepper.model.parameters())


def peak_gflops(dtype: torch.dtype, clock: Callable[[], float], side: int = 2048) -> float:
    """Of `F.linear`, the best of ten."""
    a, b = torch.randn(2, side, side).to(dtype).unbind(0)
    times = []
    for _ in range(11):
        began = clock()
        F.linear(a, b)
        times.append(clock() - began)
    return 2 * side**3 / min(times[1:]) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", default="base")
    parser.add_argument("--batch", type=int, help="clips of a step; one for base, the preset's own for the others")
    parser.add_argument("--depth", type=int, help="blocks, to measure sooner")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each variant")
    parser.add_argument("--without", nargs="*", choices=PARTS, default=[], help="also: all but this part")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16", help="of autocast")
    parser.add_argument("--beside", nargs="*", default=[], help="paradigms that take turns with the preset's own")
    parser.add_argument("--no-plain", action="store_true", help="measure no plain step")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, in every variant")
    parser.add_argument("--compile", action="store_true", help="also: compiled blocks")
    parser.add_argument(
        "--return-memory", action="store_true", help="leave glibc's allocator as it is (of the process: no variant)"
    )
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    parser.add_argument("--cpu-time", action="store_true", help="time this process alone: for one thread beside others")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    subject = open_subject(options.preset)
    if options.depth:
        model = dataclasses.replace(subject.preset.model, depth=options.depth)
        subject = dataclasses.replace(subject, preset=dataclasses.replace(subject.preset, model=model))
    fast_float32 = use_fast_float32()
    peaks = {name: peak_gflops(dtype, clock) for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32))}
    if options.return_memory:
        allocator.KEEP.clear()
    batch = options.batch or (1 if options.preset == "base" else subject.preset.train.batch_size)
    run = Run(subject, batch, options.precision)
    others = {
        name: Run(make_subject(name, dataclasses.replace(subject.preset, forcing=name)), batch, options.precision)
        for name in options.beside
    }
    if options.checkpointing:
        run.stepper.model.enable_gradient_checkpointing()
    variants: dict[str, tuple[str, ...]] = {"now": ()} if options.no_plain else {"plain": PARTS, "now": ()}
    variants |= {f"without {part}": (part,) for part in options.without}
    if options.compile:
        run.compile()
        variants["compiled"] = ("compiled",)
    times: dict[str, list[float]] = {name: [] for name in (*variants, *others)}
    for number in range(1 + options.steps):
        for name, off in variants.items():
            with run.without(off):
                began = clock()
                run.step()
                times[name] += [clock() - began] if number else []
        for name, other in others.items():
            began = clock()
            other.step()
            times[name] += [clock() - began] if number else []
    clip, paradigm = run.stepper.clip.tokens_BTND, run.stepper.paradigm
    predicted = round(clip.shape[:3].numel() * mean_share(paradigm, clip.shape[2], clip.shape[1]))
    sizes, repeats = Sizes.of(run.stepper.model.architecture), paradigm.diffusion_batch_mul
    ahead, back = training_flops(sizes, len(clip), sequence_frames(subject), predicted, repeats)
    flops = ahead + back
    floor = (flops.total - flops.head) / peaks[options.precision] / 1e9 + flops.head / peaks["float32"] / 1e9
    ideal = flops.total / peaks[options.precision] / 1e9
    medians = {name: statistics.median(values) for name, values in times.items()}
    figures: dict[str, Any] = {
        "preset": options.preset, "precision": options.precision,
        "depth": run.stepper.model.config.depth, "batch": len(clip),
        "freed memory": "returned" if options.return_memory else "kept",
        "torch": torch.__version__, "threads": torch.get_num_threads(), "fast float32": fast_float32,
        "peak GFLOP/s": {name: round(value) for name, value in peaks.items()},
        "TFLOP": {"transformer": round((flops.total - flops.head) / 1e12, 2), "head": round(flops.head / 1e12, 2)},
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "clips/s": {name: round(len(clip) / value, 3) for name, value in medians.items()},
        f"share of the {options.precision} peak": {name: round(ideal / medians[name], 3) for name in variants},
        "floor": {"seconds": round(floor, 3), f"share of the {options.precision} peak": round(ideal / floor, 3)},
        "peak memory GiB": round(peak_memory_bytes(CPU) / 2**30, 2),
    }  # fmt: skip
    if options.profile:
        with run.without(()):
            found = profile_call(run.stepper.model, run.step, CPU)
        figures["profile"] = {"by purpose": found.by_purpose, "by part": found.by_part}
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
