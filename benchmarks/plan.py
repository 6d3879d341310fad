"""What `magi plan` says against what training does, on this machine's processor.

    python benchmarks/plan.py [--steps 3] [--case doom --case "base --depth 2"] [--json FILE]

Each case trains in a process of its own, on random latents, with one thread, timed by the processor's clock, so that
others on the machine matter little. The peaks are measured in the same process. `share` is the share of the peaks that
the case reached; the first case's share is what the others' time is planned with.

    kept        activations and bfloat16 copies, against what autograd kept for one backward
    memory      the plan's upper bound, against the tensors alive at the peak of a step (PyTorch's `MemTracker`), and
                what the process grew by, which is more: allocators keep what is freed
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed._tools.mem_tracker import MemTracker

from magi_video.bench.counting import count_executed
from magi_video.bench.hardware import Hardware
from magi_video.bench.machine import peak_memory_bytes
from magi_video.bench.plan import make_plan
from magi_video.bench.subject import build, make_subject
from magi_video.bench.training import Stepper
from magi_video.errors import counted
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.presets import load_preset
from magi_video.recipe import Preset
from magi_video.training.optimization import AveragedWeights
from training import peak_gflops

CPU = torch.device("cpu")
CASES = ["doom", "base --depth 1", "base --depth 2 --checkpointing"]


def kept_bytes(stepper: Stepper) -> int:
    """What a forward keeps for the backward, weights and buffers aside."""
    own = {t.untyped_storage().data_ptr() for t in [*stepper.model.parameters(), *stepper.model.buffers()]}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), stepper.autocast:
        loss = stepper.paradigm.loss(stepper.model, stepper.clip, stepper.draws)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    del loss
    return sum(size for address, size in storages.items() if address not in own)


def measure(case: str, steps: int) -> dict[str, Any]:
    """Plan a case, train it, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("preset")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--checkpointing", action="store_true")
    options = parser.parse_args(shlex.split(case))
    preset = load_preset(options.preset)
    batch = options.batch or (1 if options.preset == "base" else preset.train.batch_size)
    preset = replace(
        preset,
        train=replace(preset.train, batch_size=batch),
        model=replace(preset.model, depth=options.depth or preset.model.depth),
    )
    torch.set_num_threads(1)
    use_fast_float32()
    bf16, float32 = (peak_gflops(dtype, time.process_time) / 1e3 for dtype in (torch.bfloat16, torch.float32))
    hardware = Hardware("cpu", bf16, float32, 1e6, fused_attention=False, source="measured")
    plan = make_plan(case, preset, 1, hardware, mfu=1)
    way = next(way for way in plan.ways if way.gradient_checkpointing == options.checkpointing)

    before = peak_memory_bytes(CPU)
    stepper = run(preset, options.checkpointing)
    average = AveragedWeights(stepper.model.parameters(), decay=0.999)
    seconds = []
    for _ in range(1 + steps):
        began = time.process_time()
        stepper.step()
        average.step(stepper.model.parameters())
        seconds.append(time.process_time() - began)
    peak = peak_memory_bytes(CPU) - before
    measured = statistics.median(seconds[1:])
    tracker = MemTracker()
    tracker.track_external(stepper.model, stepper.optimizer, *average.shadow_params)
    with tracker:
        stepper.step()
    live = tracker.get_tracker_snapshot("peak")[CPU]["Total"]
    kept = None if options.checkpointing else kept_bytes(stepper)
    executed = count_executed(stepper.step)
    return {
        "case": case,
        "batch": batch,
        "peak_tflops": {"bf16": bf16, "float32": float32},
        "flops": {"planned": plan.flops.total + plan.recomputed_flops * options.checkpointing, "executed": executed},
        "parameters": {"planned": plan.parameters["total"], "real": sum(p.numel() for p in stepper.model.parameters())},
        "memory": {"planned": way.memory.total, "live": live, "process": peak},
        "kept": {"planned": way.memory.activations + way.memory.casts, "measured": kept},
        "seconds": {"at_the_peak": way.seconds_per_step, "measured": measured},
        "share": way.seconds_per_step / measured,
    }


def run(preset: Preset, checkpointing: bool) -> Stepper:
    """A model that is ready to be trained."""
    torch.manual_seed(0)
    subject = make_subject("case", preset)
    stepper = Stepper(subject, build(preset), preset.train.batch_size, "bf16", CPU)
    if checkpointing:
        stepper.model.enable_gradient_checkpointing()
    return stepper


def row(one: dict[str, Any], share: float) -> str:
    """A line of the table of docs/scale.md."""
    flops, memory, kept, seconds = (one[name] for name in ("flops", "memory", "kept", "seconds"))
    planned = seconds["at_the_peak"] / share
    held = "–" if kept["measured"] is None else f"{kept['planned'] / 2**30:.2f} / {kept['measured'] / 2**30:.2f}"
    return (
        f"| {one['case']}, {counted(one['batch'], 'clip')} | "
        f"{flops['planned'] / 1e12:.3f} / {flops['executed'] / 1e12:.3f} | "
        f"{held} | {memory['planned'] / 2**30:.2f} / {memory['live'] / 2**30:.2f} ({memory['process'] / 2**30:.2f}) | "
        f"{planned:.2f} / {seconds['measured']:.2f} | {one['share']:.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="a preset, with --depth, --batch, --checkpointing if wanted")
    parser.add_argument("--steps", type=int, default=3, help="timed, after one that is not")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.steps)))
        return
    found = []
    for case in options.case or CASES:
        command = [sys.executable, __file__, "--child", case, "--steps", str(options.steps)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(row(found[-1], found[0]["share"]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
