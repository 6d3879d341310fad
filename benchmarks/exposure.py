"""What each cure for drift adds to a training step: processor seconds and operations, relative to no cure.

    python benchmarks/exposure.py [--rounds 10] [--threads 1] [--forcing complete]

The recipe is that of the CPU worlds of `magi reproduce` (16 frames, 64 tokens, batch 2), the clips are noise, and every
cure is at work as at the end of its training. Steps alternate between the cures, so that all see the same machine; what
is printed is the median of the rounds' ratios to `none`, and the lowest and highest of them. Operations are counted
while a step runs: matrix products alone. The last column is the time of one generated frame after eight others.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace

import torch

from magi_video.bench.counting import count_executed
from magi_video.bench.subject import make_subject
from magi_video.bench.training import Stepper
from magi_video.experiments.worlds import CPU_WORLDS
from magi_video.exposure import CURES
from magi_video.fast.speed import begin_past
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import make_paradigm
from magi_video.presets import change_paradigm
from magi_video.recipe import Preset, check_exposure
from magi_video.registry import declared
from magi_video.sampling.rollout import Rollout

PAST = 8


def generate(model: MagiVideoTransformer, preset: Preset) -> float:
    """Processor seconds of the frame after `PAST` others."""
    paradigm, sampling = make_paradigm(preset.forcing), preset.own_sampling
    past = begin_past(paradigm, model.eval(), 1, PAST + 1, sampling)
    rollout = Rollout(model, paradigm, SampleNoise.from_seeds([0]), sampling, torch.ones(1).long(), PAST + 1, past=past)
    for _ in range(PAST):
        rollout.observe(torch.randn(1, model.num_tokens, model.token_dim))
    began = time.process_time()
    rollout.predict()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--forcing", default="complete")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    base = CPU_WORLDS[0].preset
    base = replace(base, **change_paradigm(base, options.forcing))
    steppers, frames, flops = {}, {}, {}
    for name in CURES:
        try:
            check_exposure(name, {}, options.forcing, base.model.head)
        except Exception as error:
            print(error)
            continue
        own = {"plain_steps": "0"} if "plain_steps" in declared("exposure")[name].get("options", {}) else {}
        preset = replace(base, exposure=replace(base.exposure, exposure=name, exposure_options=own))
        subject = make_subject(preset.forcing, preset)
        frames[name] = subject.load(torch.float32), preset
        model = subject.load(torch.float32)
        steppers[name] = Stepper(subject, model, preset.train.batch_size, "float32", torch.device("cpu"))
        steppers[name].step()
        flops[name] = statistics.fmean(count_executed(steppers[name].step) or 0 for _ in range(2))
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    made: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(options.rounds):
        for name, stepper in steppers.items():
            began = time.process_time()
            stepper.step()
            seconds[name].append(time.process_time() - began)
            made[name].append(generate(*frames[name]))
    for name in steppers:
        ratios = [one / none for one, none in zip(seconds[name], seconds["none"], strict=True)]
        frame = [one / none for one, none in zip(made[name], made["none"], strict=True)]
        figures = {
            "cure": name,
            "step": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
            "operations": round(flops[name] / flops["none"], 3),
            "frame": round(statistics.median(frame), 3),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
