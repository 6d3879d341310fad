"""What precision costs on this CPU: the default ("auto") against float32 and bf16, one row of docs/performance.md.

    python benchmarks/precision.py [--batch 2] [--rounds 3] [--json FILE]

One thread, whose own CPU time is counted, so that other work on the machine disturbs little; the precisions take turns.
A way that takes longer than `--patience` seconds once is not repeated.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from magi_video.bench.generation import Generator
from magi_video.bench.machine import cpu_model
from magi_video.bench.subject import Subject, open_subject
from magi_video.bench.training import Stepper
from magi_video.codecs.config import SmallVAEConfig
from magi_video.codecs.small_vae_training import SmallVAETraining
from magi_video.fast.kernel_choice import KERNELS, LINEAR_KERNELS, use_fast_float32
from magi_video.fast.probes import PRECISIONS, Work, choose_precision
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.pipeline.ready import choose_for
from magi_video.presets import load_preset
from magi_video.sampling.sampling import ResolvedSampling, Sampling

CPU = torch.device("cpu")
PICTURES = 4
FRAMES = 4


def training_step(subject: Subject, batch: int, precision: str) -> Callable[[], None]:
    """A step of the model's training."""
    return Stepper(subject, subject.load(torch.float32), batch, precision, CPU).step


def codec_step(config: SmallVAEConfig, precision: str) -> Callable[[], None]:
    """Forward and backward of the small VAE on some pictures of 64×64."""
    config = replace(config, precision=precision)  # type: ignore[arg-type]
    training = SmallVAETraining(config)
    training.network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    pictures = torch.rand(PICTURES, 3, 64, 64) * 2 - 1

    def step() -> None:
        training.losses(pictures, 0)["mse"].backward()

    return step


def played_frames(precision: str) -> Callable[[], None]:
    """Some frames of the shipped Doom model at its realtime setting, decoded."""
    pipe = MagiVideoPipeline.from_pretrained("doom", torch_dtype=PRECISIONS[precision])  # type: ignore[index]
    pipe.set_progress_bar_config(disable=True)

    def play() -> None:
        with torch.inference_mode():
            assert len(list(pipe.stream(num_frames=FRAMES, sampling="realtime"))) == FRAMES

    return play


def resolved(subject: Subject, setting: str) -> ResolvedSampling:
    """The steps of a setting."""
    outline = subject.outline
    return Sampling.of(setting).resolve(outline.diffusion_head, subject.preset.own_sampling, outline.num_tokens)


def base_frame(subject: Subject, precision: str) -> Callable[[], object]:
    """A frame of the common size, 8 × 10 steps, after 16 frames."""
    sampling = resolved(subject, "exact")
    generator = Generator(subject, subject.load(PRECISIONS[precision]), sampling, 1, CPU)  # type: ignore[index]
    return generator.middle_frame(16)


def alternate(ways: dict[str, Callable[[], object]], rounds: int, patience: float) -> dict[str, float]:
    """CPU seconds of each way: the median of some calls in turns, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    slow: set[str] = set()
    for _ in range(1 + rounds):
        for name, way in ways.items():
            if name not in slow:
                began = time.thread_time()
                way()
                seconds[name].append(time.thread_time() - began)
                if seconds[name][-1] > patience:
                    slow.add(name)
    return {name: statistics.median(times[1:] or times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2, help="clips of a training step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=5.0, help="seconds")
    parser.add_argument("--no-base", action="store_true", help="leave out the common size")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    use_fast_float32()
    doom, config = open_subject("doom"), load_preset("doom").small_vae
    names = ("float32", "bf16")
    work: dict[str, tuple[dict[str, Callable[[], object]], float, Any]] = {
        "training doom, s a clip": (
            {name: training_step(doom, arguments.batch, name) for name in names}, arguments.batch, "training",
        ),
        "codec, s a picture": ({name: codec_step(config, name) for name in names}, PICTURES, "convolution"),
        "generating doom, realtime, s a frame": (
            {name: played_frames(name) for name in names}, FRAMES, (doom, "realtime"),
        ),
    }  # fmt: skip
    if not arguments.no_base:
        base = open_subject("base")
        work["generating base, exact, s a frame"] = (
            {name: base_frame(base, name) for name in names},
            1,
            (base, "exact"),
        )
    figures: dict[str, Any] = {
        "cpu": cpu_model(), "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__,
    }  # fmt: skip
    kind: Work | tuple[Subject, str]
    for title, (ways, parts, kind) in work.items():
        choice = (
            choose_precision("auto", CPU, kind)
            if isinstance(kind, str)
            else choose_for(kind[0].outline, "auto", CPU, resolved(*kind))
        )
        seconds = {name: value / parts for name, value in alternate(ways, arguments.rounds, arguments.patience).items()}
        figures[title] = seconds | {"auto": choice.precision, "why": choice.why}
        told = ", ".join(f"{name} {value:.4g}" for name, value in seconds.items())
        print(f"{title}: {told}; auto takes {choice.precision}: {choice.why}", flush=True)
    figures["linear kernels"] = figures["training doom, s a clip"]["auto"] == "bf16" and KERNELS[LINEAR_KERNELS].used
    print(f"our own linear kernels in training: {'used' if figures['linear kernels'] else 'not used'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
