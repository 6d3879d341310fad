"""Memory and seconds of a training step in each of several processes, replicated or sharded.

    torchrun --nproc-per-node 2 benchmarks/distributed.py [base|tiny|…] [--sharding none|full] [--depth N] [--frames T]

One process is the comparison: `python benchmarks/distributed.py …`. What is trained and how is the trainer's own, on
random latents. The state is what stays from step to step: weights, gradients (at their fullest, before the optimiser's
step), the optimiser's moments and the averaged weights, as this process holds them. The peak is of the resident memory
(CPU) or of the allocated memory (GPU), activations included.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from torch.distributed.tensor import DTensor

from magi_video.bench.machine import clock, count_parameters, peak_memory_bytes
from magi_video.bench.subject import blank_conditions, build
from magi_video.distributed import Processes
from magi_video.fast.kernels import use_training_kernels
from magi_video.paradigms import Clip
from magi_video.presets import load_preset
from magi_video.training.build import build_paradigm
from magi_video.training.optimization import AveragedWeights, build_optimizer, gradient_norm, scale_and_clip
from magi_video.training.parallel import Objective, shard

MIB = 2**20


def held(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of tensors, or of this process's shards of them."""
    there = (one.to_local() if isinstance(one, DTensor) else one for one in tensors if one is not None)
    return sum(one.numel() * one.element_size() for one in there)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", default="base")
    parser.add_argument("--sharding", choices=("none", "full"), default="none")
    parser.add_argument("--depth", type=int, help="blocks; the preset's own if not given")
    parser.add_argument("--frames", type=int, default=4, help="of a clip: few, so that the state shows in the peak")
    parser.add_argument("--clips", type=int, default=1, help="of a step, in each process")
    parser.add_argument("--steps", type=int, default=3, help="timed, after one that is not")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    preset = load_preset(options.preset)
    model = dataclasses.replace(preset.model, depth=options.depth or preset.model.depth)
    data = dataclasses.replace(preset.data, num_frames=options.frames)
    preset = dataclasses.replace(preset, model=model, data=data)

    processes = Processes()
    accelerator = Accelerator(
        mixed_precision="no" if preset.train.precision == "float32" else "bf16",
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    device = accelerator.device
    torch.manual_seed(0)
    transformer = build(preset)
    if options.checkpointing:
        transformer.enable_gradient_checkpointing()
    if device.type == "cpu":
        use_training_kernels(transformer)
    parameters = count_parameters(transformer)
    objective = Objective(transformer, build_paradigm(preset))
    if options.sharding == "full":
        shard(objective, device, processes.count, preset.train.precision != "float32")
        wrapped: torch.nn.Module = objective
    else:
        wrapped = accelerator.prepare(objective)
    optimizer = build_optimizer(transformer, preset.train)
    weights = list(transformer.parameters())
    average = AveragedWeights(weights, preset.train.ema_decay)
    clip = Clip(
        torch.randn(options.clips, options.frames, transformer.num_tokens, transformer.token_dim, device=device),
        torch.ones(options.clips, dtype=torch.long, device=device),
        blank_conditions(transformer, options.clips, options.frames, device),
    )
    generators = [torch.Generator(device).manual_seed(number) for number in range(options.clips)]
    state, seconds = {}, []
    for number in range(1 + options.steps):
        began = clock(device)
        with accelerator.autocast():
            total, tokens = wrapped.train()(clip, generators)
        total.backward()
        if not number:
            state["gradients"] = held(weight.grad for weight in weights)
        scale_and_clip(weights, gradient_norm(weights), 1 / float(tokens), preset.train.clip_norm)
        optimizer.step()
        average.step(weights)
        optimizer.zero_grad(set_to_none=True)
        seconds += [clock(device) - began] if number else []
    state["weights"] = held(weights)
    state["moments"] = held(value for one in optimizer.state.values() for value in one.values())
    state["averages"] = held(average.shadow_params)
    own = {name: round(size / MIB) for name, size in sorted(state.items())}
    own |= {"state": round(sum(state.values()) / MIB), "peak": round(peak_memory_bytes(device) / MIB)}
    everyone = processes.each(lambda: own)
    figures: dict[str, Any] = {
        "preset": options.preset, "depth": preset.model.depth, "frames": options.frames, "clips": options.clips,
        "parameters": parameters, "precision": preset.train.precision, "checkpointing": options.checkpointing,
        "processes": processes.count, "sharding": options.sharding, "device": str(device), "torch": torch.__version__,
        "seconds a step": round(statistics.median(seconds), 3), "MiB in each process": everyone,
    }  # fmt: skip
    if processes.main:
        text = json.dumps(figures, indent=1)
        print(text)
        if options.json:
            options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
