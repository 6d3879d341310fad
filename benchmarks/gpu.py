"""All that a first quarter of an hour on a GPU should tell, in under 8 minutes and one JSON file.

    python benchmarks/gpu.py --out gpu.json             # on the GPU; nothing is downloaded, shipped and random weights
    python benchmarks/gpu.py --out gpu.json --graphs    # and the denoise loop as a CUDA graph and compiled
    python benchmarks/gpu.py --out dry.json --dry-run   # on the CPU, tiny sizes, seconds: whether the script works

    peaks       TFLOP/s of matrix products in bfloat16, TF32 and float32
    equality    frames of the shipped Doom model in float32, against this machine's CPU
    doom        live Doom, decoded and on the host, frames/s; the aim is 200 of one video
    generation  seconds a frame, share of the peak and memory: three sizes, three speeds, one video and sixteen
    cache       the same frames with the cache and without
    cudagraphs  the same frames by launches and by CUDA graphs (`--engine cudagraphs`): milliseconds, difference
    training    model FLOP/s utilisation (MFU) of a bfloat16 step: three sizes, and without what is made for GPUs
    graphs      the head's denoise loop launched kernel by kernel, as a CUDA graph, and compiled

Each part has a time budget. What fails or runs out of time is recorded, and the next part begins; the file is written
after each.
"""

import argparse
import json
import platform
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from denoise_graphs import time_denoising
from frame_graphs import compare_frames, graph_engine
from magi_video.bench.generation import Generator, middle_flops
from magi_video.bench.machine import matmul_peaks, peak_memory_bytes
from magi_video.bench.subject import Subject, open_preset, open_subject
from magi_video.fast import head as fast_head
from magi_video.fast import layers as fast_layers
from magi_video.fast.beside import Beside
from magi_video.fast.kernel_choice import matmul_precision
from magi_video.fast.speed import prepare
from magi_video.files.weights import SHIPPED
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.sampling import SPEEDS, Sampling
from magi_video.video.image import read_image

ROOT = Path(__file__).resolve().parent.parent
AIM = 200.0
"""Frames/s of one live Doom."""
TOLERANCE = 0.02
"""Largest difference of a pixel in [0, 1] between devices, in float32: sums in another order, through a chain of
denoise steps and the frames before."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        device: where.
        sizes: names of models or presets.
        batches: videos made together.
        frames: most frames that are timed of a case.
        seconds: of timing a case, about.
        live_frames: of Doom.
        clips: of a training step, by size.
        steps: of training that are timed.
        uncached_frames: of the comparison with the cache.
        graphs: whether graphs are measured too.
        scale: of the time budgets.
    """

    device: torch.device
    sizes: tuple[str, ...] = ("doom", "base", "ucf101")
    batches: tuple[int, ...] = (1, 16)
    frames: int = 32
    seconds: float = 4.0
    live_frames: int = 400
    clips: tuple[int, ...] = (64, 8, 4)
    steps: int = 8
    uncached_frames: int = 12
    graphs: bool = False
    scale: float = 1.0


DRY = Plan(torch.device("cpu"), ("tiny",), (1, 2), 1, 0.0, 3, (2,), 1, 2, scale=4.0)  # however busy the machine


class OutOfTimeError(Exception):
    """A part has used up its budget."""


@contextmanager
def budget(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` inside when so many seconds are over."""

    def end(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure_peaks(plan: Plan, found: dict[str, Any]) -> None:
    """GFLOP/s by precision."""
    found |= {name: round(value) for name, value in matmul_peaks(plan.device).items()}
    with matmul_precision("high"):
        found["tf32"] = round(matmul_peaks(plan.device)["float32"])


def measure_equality(plan: Plan, found: dict[str, Any]) -> None:
    """Frames of the shipped model on the device and on the CPU, from the same CPU generator."""
    frames = {}
    with matmul_precision("highest"):
        for device in (torch.device("cpu"), plan.device):
            pipe = MagiVideoPipeline.from_pretrained("doom").to(device)
            stream = live(pipe, 3, "fast")
            frames[device.type] = np.stack(list(stream))
    difference = np.abs(frames["cpu"] - frames[plan.device.type])
    found |= {
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "tolerance": TOLERANCE,
        "equal": bool(difference.max() < TOLERANCE),
    }


def measure_doom(plan: Plan, found: dict[str, Any]) -> None:
    """The whole of live play but the page: prediction, decoding, pictures on the host, in uint8."""
    found["aim"] = AIM
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        pipe = MagiVideoPipeline.from_pretrained("doom", torch_dtype=dtype).to(plan.device)
        for engine in (pipe.engine, graph_engine(plan.device)):
            pipe.engine = engine
            for videos in plan.batches:
                watch(pipe, 2, videos)
                began = time.perf_counter()
                latencies = watch(pipe, plan.live_frames, videos)
                rate = plan.live_frames / (time.perf_counter() - began)
                found[f"{precision}, {engine.name}, {videos} video{'s' * (videos > 1)}"] = {
                    "frames_per_second_of_each": round(rate, 2),
                    "frames_per_second_of_all": round(videos * rate, 2),
                    "predicted_to_picture_ms": round(1000 * statistics.median(latencies), 3),
                    "reaches_aim": rate >= AIM,
                }


def watch(pipe: MagiVideoPipeline, frames: int, videos: int) -> list[float]:
    """Predict frames, decode them beside; seconds from each latent frame to its picture."""
    handed: list[float] = []
    latencies: list[float] = []

    def decode(latents: Iterator[Tensor]) -> None:
        for frame_BHWC in pipe.decode_stream(latents, frames):
            assert (frame_BHWC * 255).round().astype(np.uint8).shape[0] == videos
            latencies.append(time.perf_counter() - handed[len(latencies)])

    with torch.inference_mode(), Beside(decode) as beside:
        for latents_BCHW in live(pipe, frames, "realtime", videos, output_type="latent"):
            handed.append(time.perf_counter())
            beside.put(latents_BCHW)
    return latencies


def live(pipe: MagiVideoPipeline, frames: int, speed: str, videos: int = 1, **options: Any) -> Iterator[Any]:
    """The shipped Doom from its first frame, turning left."""
    first, turn = read_image(SHIPPED / "doom" / "first_frame.png"), pipe.action("TURN_LEFT")
    generators = [torch.Generator().manual_seed(seed) for seed in range(videos)]
    return pipe.stream(
        image=first, num_frames=frames, interval=2, sampling=speed, actions=(turn for _ in range(frames)),
        num_videos=videos, generator=generators, **options,
    )  # fmt: skip


def measure_generation(plan: Plan, found: dict[str, Any]) -> None:
    """Every size, speed and batch, in bfloat16; the smallest first, so that time runs out on the largest."""
    peak = matmul_peaks(plan.device)["bf16"]
    for size in plan.sizes:
        subject = open_subject(size)
        model = subject.load(torch.bfloat16).to(plan.device)
        prepare(model)
        for batch in plan.batches:
            for speed in reversed(SPEEDS):
                if speed == "fast":
                    continue
                found[f"{size}, {speed}, {batch}"] = time_generation(plan, subject, model, speed, batch, peak)
        del model


def time_generation(
    plan: Plan, subject: Subject, model: MagiVideoTransformer, speed: str, batch: int, peak: float
) -> dict[str, Any]:
    """One case."""
    sampling = Sampling.of(speed).resolve(model.diffusion_head, subject.preset.own_sampling, model.num_tokens)
    generator = Generator(subject, model, sampling, batch, plan.device)
    reset_memory(plan.device)
    generator.time_frames(1)
    first = generator.time_frames(1)[0][0]
    frames = max(1, min(plan.frames, int(plan.seconds / first)))
    seconds = statistics.median(generator.time_frames(frames)[0])
    flops = middle_flops(generator, frames).total
    return {
        "mask_steps": sampling.mask_steps,
        "denoise_steps": sampling.denoise_steps,
        "frames_timed": frames,
        "seconds_per_frame": round(seconds, 6),
        "frames_per_second_of_all": round(batch / seconds, 3),
        "share_of_bf16_peak": round(flops / seconds / peak / 1e9, 4),
        "peak_memory_gib": round(peak_memory_bytes(plan.device) / 2**30, 3),
    }


def measure_cudagraphs(plan: Plan, found: dict[str, Any]) -> None:
    """Every size and speed of one video in bfloat16; Doom in float32 too, where little may be between them."""
    for size, dtype in (*((size, torch.bfloat16) for size in plan.sizes), (plan.sizes[0], torch.float32)):
        subject = open_subject(size)
        model = subject.load(dtype).to(plan.device)
        prepare(model)
        for speed in ("realtime", "balanced", "exact"):
            sampling = Sampling.of(speed).resolve(model.diffusion_head, subject.preset.own_sampling, model.num_tokens)
            name = f"{size}, {speed}, {str(dtype).removeprefix('torch.')}"
            found[name] = compare_frames(subject, model, sampling, 1, plan.device, max(1, plan.frames // 4))


def measure_cache(plan: Plan, found: dict[str, Any]) -> None:
    """Seconds of each frame with the cache and without, at 4 × 10 steps."""
    subject = open_subject(plan.sizes[min(1, len(plan.sizes) - 1)])
    model = subject.load(torch.bfloat16).to(plan.device)
    prepare(model)
    sampling = Sampling(mask_steps=4, denoise_steps=10).resolve(model.diffusion_head)
    generator = Generator(subject, model, sampling, 1, plan.device)
    found["size"] = subject.name
    for name, use in (("cached", None), ("uncached", False)):
        generator.time_frames(1, use)
        seconds, _ = generator.time_frames(plan.uncached_frames, use)
        found[f"{name}_seconds_by_frame"] = [round(one, 6) for one in seconds]


def measure_training(plan: Plan, found: dict[str, Any]) -> None:
    """Steps as the trainer makes them; then with one thing less, on the second size."""
    from magi_video.bench.subject import build
    from magi_video.bench.training import Stepper
    from magi_video.bench.training import measure_training as measure

    peak = matmul_peaks(plan.device)["bf16"]

    def time_steps(size: str, clips: int, steps: int) -> dict[str, Any]:
        subject = open_preset(size)
        torch.manual_seed(0)
        reset_memory(plan.device)
        stepper = Stepper(subject, build(subject.preset).to(plan.device), clips, "bf16", plan.device)
        stepper.step()
        made = measure(subject, stepper, steps, "bf16", peak, lambda *_: None)
        return {
            "clips": clips,
            "seconds_per_step": round(made.median_seconds, 5),
            "clips_per_second": round(made.clips_per_second, 3),
            "tflop": round(made.flops_total / 1e12, 4),
            "mfu_of_measured_bf16_peak": round(made.flops_total / made.median_seconds / peak / 1e9, 4),
            "peak_memory_gib": round(made.peak_memory_bytes / 2**30, 3),
        }

    with matmul_precision("high"):
        for size, clips in zip(plan.sizes, plan.clips, strict=True):
            found[size] = time_steps(size, clips, plan.steps)
        number = min(1, len(plan.sizes) - 1)
        size, clips = plan.sizes[number], plan.clips[number]
        with patched(fast_head, "picks_tokens", lambda device: True):
            found[f"{size}, masked tokens picked out (waits in every forward)"] = time_steps(size, clips, plan.steps)
        with patched(fast_layers, "fuses_attention", lambda device: False):
            found[f"{size}, queries, keys and values copied"] = time_steps(size, clips, plan.steps)
    with matmul_precision("highest"):
        found[f"{size}, head in float32"] = time_steps(size, clips, plan.steps)


def measure_graphs(plan: Plan, found: dict[str, Any]) -> None:
    """The denoise loop of one mask step: its launches one by one, replayed as a CUDA graph, and compiled."""
    if not plan.graphs:
        found["skipped"] = "give --graphs"
        return
    for size in plan.sizes:
        model = open_subject(size).load(torch.bfloat16).to(plan.device)
        prepare(model)
        with torch.inference_mode():
            found[size] = time_denoising(model, plan.device)


@contextmanager
def patched(module: Any, name: str, value: Any) -> Iterator[None]:
    """Another value under a name."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def reset_memory(device: torch.device) -> None:
    """Count the peak anew, on a GPU; a CPU's is that of the process."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


PARTS: dict[str, tuple[float, Callable[[Plan, dict[str, Any]], None]]] = {
    "peaks": (15, measure_peaks),
    "equality": (40, measure_equality),
    "doom": (60, measure_doom),
    "cudagraphs": (60, measure_cudagraphs),
    "generation": (120, measure_generation),
    "cache": (30, measure_cache),
    "training": (110, measure_training),
    "graphs": (35, measure_graphs),
}
"""Seconds that each may take, 470 in all, in the order in which they run."""


def describe(device: torch.device) -> dict[str, Any]:
    """Where and by what the figures were made."""
    found: dict[str, Any] = {
        "device": "cpu", "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "revision": git("rev-parse", "HEAD"), "changed_files": len((git("status", "--porcelain") or "").splitlines()),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
        }
    return found


def git(*arguments: str) -> str | None:
    """What git says of this checkout; None where there is none."""
    try:
        made = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return made.stdout.strip()


def measure(plan: Plan, out: Path) -> dict[str, Any]:
    """All parts, one after another; the file is written anew after each."""
    report: dict[str, Any] = {"machine": describe(plan.device), "parts": {}}
    for name, (seconds, part) in PARTS.items():
        found: dict[str, Any] = {}
        record: dict[str, Any] = {"state": "done", "found": found}
        report["parts"][name] = record
        began = time.perf_counter()
        try:
            with budget(seconds * plan.scale):
                part(plan, found)
        except OutOfTimeError:
            record["state"] = "out of time"
        except Exception as error:  # whatever it is, the next part is worth its minute
            record |= {"state": "failed", "error": f"{type(error).__name__}: {error}"}
            traceback.print_exc()
        record["seconds"] = round(time.perf_counter() - began, 2)
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: {record['state']}, {record['seconds']} s", file=sys.stderr)
    return report


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of the figures, JSON")
    parser.add_argument("--graphs", action="store_true", help="the denoise loop as a CUDA graph and compiled too")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, in tiny sizes: whether the script works")
    asked = parser.parse_args(argv)
    if asked.dry_run:
        plan = DRY
    elif torch.cuda.is_available():
        plan = Plan(torch.device("cuda"))
    else:
        raise SystemExit("no GPU that PyTorch can use; --dry-run tries the script on the CPU")
    print(json.dumps(measure(replace(plan, graphs=asked.graphs), asked.out), indent=2))


if __name__ == "__main__":
    main()
