"""Every figure of one benchmark, as one record that JSON holds."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from magi_video.bench.flops import Sizes, training_flops
from magi_video.bench.generation import (
    Generation,
    Generator,
    Recomputation,
    measure_generation,
    measure_recomputation,
)
from magi_video.bench.machine import (
    Machine,
    available_memory_bytes,
    describe_machine,
    generation_bytes,
    matmul_peaks,
    require_memory,
    training_bytes,
)
from magi_video.bench.options import BenchOptions, Part
from magi_video.bench.profiling import Profile, profile_call
from magi_video.bench.subject import Subject, open_subject
from magi_video.bench.training import Progress, Stepper, Training, measure_training, sequence_frames
from magi_video.distributed import find_device
from magi_video.errors import MagiError, counted
from magi_video.fast.engine_choice import choose_engine, graphs_for
from magi_video.fast.kernel_choice import use_fast_float32
from magi_video.fast.probes import Choice, choose_precision
from magi_video.fast.threads import choose_threads
from magi_video.files.shapes import parameters_by_part
from magi_video.paradigms import find_paradigm
from magi_video.pipeline.ready import choose_for, choose_with_graphs, product_flops, suited_precision
from magi_video.registry import declared
from magi_video.sampling.sampling import ResolvedSampling
from magi_video.training.sizing import attends_flat


@dataclass
class Report:
    """All figures; None where a part was not asked for.

    Attributes:
        subject, kind: what was measured: a "model", or a "preset" with random weights.
        seconds_per_frame: of generation, by frame index.
        frames_per_second: of generation without decoding, all videos of the batch together.
        train_clips_per_second, train_peak_share: of training.
        peak_memory_bytes: of all that was timed.
        matmul_peak_gflops: measured in this run, 2048³, by precision.
        machine, options: where and how.
        parameters: by part of the network.
        model: the transformer's configuration.
        generation, training, uncached: the parts.
        profile: of a frame ("generation") and of a step ("training").
    """

    subject: str
    kind: str
    seconds_per_frame: list[float] | None
    frames_per_second: float | None
    train_clips_per_second: float | None
    train_peak_share: float | None
    peak_memory_bytes: int
    matmul_peak_gflops: dict[str, float]
    machine: Machine
    options: BenchOptions
    parameters: dict[str, int]
    model: dict[str, Any]
    generation: Generation | None
    training: Training | None
    uncached: Recomputation | None
    profile: dict[str, Profile]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def benchmark(name: str, options: BenchOptions, progress: Progress = lambda *_: None) -> Report:
    """Measure a model or a preset.

    Args:
        name: a model (folder, hub id, shipped name) or a preset (name, file).
        options: what and how.
        progress: called with (stage, done, total).

    Raises:
        MagiError: there is no such model or preset, an option does not fit it, or memory will not do.
    """
    device = find_device(options.device)
    if device.type not in ("cpu", "cuda"):
        raise MagiError(f"device {options.device!r} cannot be measured: choose cpu or cuda")
    subject, frames = open_subject(name), options.frames
    parts = parts_to_run(options.parts)
    if "uncached" in parts and not find_paradigm(subject.preset.forcing).cached:
        raise MagiError(f"{subject.preset.forcing} has no cache to leave out: take the part uncached away")
    outline, own = subject.outline, subject.preset.own_sampling
    sampling = options.sampling.resolve(outline.diffusion_head, own, outline.num_tokens)
    choices = choose_precisions(subject, options, sampling, device)
    check_memory(subject, options, parts, device, choices)

    fast_float32 = device.type == "cpu" and use_fast_float32()  # as training and generation do
    threads = torch.get_num_threads() if options.threads is None else options.threads
    torch.set_num_threads(threads)
    machine, peaks = describe_machine(device, fast_float32), matmul_peaks(device)
    generation, training, uncached, profiles = None, None, None, {}
    if "generate" in parts:
        choose_threads(product_flops(subject.outline, options.batch), options.threads)
        generator, choice = ready_generator(subject, options, sampling, choices["generate"], device, progress)
        generation = measure_generation(generator, choice.precision, frames, peaks[choice.precision], progress)
        if "uncached" in parts:
            count = min(frames, options.uncached_frames)
            uncached = measure_recomputation(generator, count, generation.seconds_per_frame, progress)
        if "profile" in parts:
            profiles["generation"] = profile_call(generator.model, generator.middle_frame(frames), device)
        del generator
    torch.set_num_threads(threads)
    if "train" in parts:
        choice = choices["train"]
        peak = peaks[choice.precision]
        batch = options.train_batch or pick_batch(subject, choice.dtype, device, peak)
        choose_threads(training_product_flops(subject, batch), options.threads)
        stepper = Stepper(subject, subject.load(torch.float32).to(device), batch, choice.precision, device)
        training = measure_training(subject, stepper, options.train_steps, choice.precision, peak, progress)
        if "profile" in parts:
            profiles["training"] = profile_call(stepper.model, stepper.step, device)
        torch.set_num_threads(threads)
    return Report(
        subject=subject.name,
        kind=subject.kind,
        seconds_per_frame=generation.seconds_per_frame if generation else None,
        frames_per_second=generation.frames_per_second if generation else None,
        train_clips_per_second=training.clips_per_second if training else None,
        train_peak_share=training.peak_share if training else None,
        peak_memory_bytes=max(part.peak_memory_bytes for part in (generation, training) if part),
        matmul_peak_gflops=peaks,
        machine=machine,
        options=options,
        parameters=parameters_by_part(subject.outline.architecture),
        model={name: value for name, value in subject.outline.config.items() if not name.startswith("_")},
        generation=generation,
        training=training,
        uncached=uncached,
        profile=profiles,
    )


def parts_to_run(asked: tuple[Part, ...]) -> set[Part]:
    """The parts asked for and those they need: a comparison needs both sides, a profile something to look at."""
    parts = set(asked)
    if "uncached" in parts:
        parts.add("generate")
    return parts | {"generate", "train"} if parts == {"profile"} else parts


def choose_precisions(
    subject: Subject, options: BenchOptions, sampling: ResolvedSampling, device: torch.device
) -> dict[str, Choice]:
    """The precision of generation and of training, as the commands themselves would choose it."""
    return {
        "generate": choose_for(
            subject.outline, suited_precision(options.precision, options.engine), device, sampling, options.batch
        ),
        "train": choose_precision(options.precision, device, "training"),
    }


def ready_generator(
    subject: Subject,
    options: BenchOptions,
    sampling: ResolvedSampling,
    choice: Choice,
    device: torch.device,
    progress: Progress,
) -> tuple[Generator, Choice]:
    """What generates, in the precision and by the engine that `magi generate` would take for as many frames.

    Args:
        subject, options, sampling, device: what is measured, and how.
        choice: the precision, as of `choose_precisions`; graphs may be quicker than a low one.
        progress: called with (stage, done, total).
    """

    def generator(dtype: torch.dtype) -> Generator:
        return Generator(subject, subject.load(dtype).to(device), sampling, options.batch, device)

    frames, low = options.frames, choice.precision != "float32"
    if low and options.precision == options.engine == "auto" and device.type == "cpu":
        choice = choose_with_graphs(subject.folder, choice, generator(torch.float32).job(frames), frames)
    made = generator(choice.dtype)
    made.engine, made.engine_why = choose_engine(
        options.engine, made.job(frames), subject.folder, frames, stage=lambda stage: progress(stage, 0, None)
    )
    if not made.engine_why and options.engine == "auto" and graphs_for(made.job(frames), subject.folder):
        made.engine_why = (
            f"engine torch: {counted(frames, 'frame')} would not pay for loading graphs; for more, magi generate may "
            "take onnx (--frames, or --engine onnx)"
        )
    return made, choice


def training_product_flops(subject: Subject, batch: int) -> int:
    """Floating-point operations of the largest product in a training pass of so many clips."""
    return sequence_frames(subject) * product_flops(subject.outline, batch)


def check_memory(
    subject: Subject, options: BenchOptions, parts: set[Part], device: torch.device, choices: dict[str, Choice]
) -> None:
    """Refuse what cannot fit, before anything is built: the least that each part needs against what is available."""
    if "generate" in parts:
        dtype = choices["generate"].dtype
        is_random = subject.kind == "preset"
        needed = generation_bytes(subject.outline, options.batch, 1 + options.frames, dtype, is_random)
        require_memory(
            needed, device, f"generating {counted(options.batch, 'video')}", "take fewer or shorter videos (--batch)"
        )
    if "train" in parts:
        batch = options.train_batch or 1
        needed = training_bytes(subject.outline, batch, sequence_frames(subject), choices["train"].dtype)
        advice = "take fewer clips (--train-batch) or leave training out (--parts generate)"
        require_memory(needed, device, f"a training step of {counted(batch, 'clip')}", advice)


def pick_batch(subject: Subject, dtype: torch.dtype, device: torch.device, peak_gflops: float) -> int:
    """Clips of a step: the recipe's, halved until half of the memory and 10 s at the machine's peak would do.

    What a trainer calls accumulation: the figures per clip are those of the recipe's batch or a little worse.
    """
    outline, frames, recipe = subject.outline, sequence_frames(subject), subject.preset
    flat = attends_flat(recipe.forcing, recipe.forcing_options)
    clip_tokens = outline.config.num_frames * outline.num_tokens
    repeats = declared("paradigms")[recipe.forcing].get("draws") or recipe.exposure.diffusion_batch_mul
    available = available_memory_bytes(device)

    def is_too_much(batch: int) -> bool:
        forward, backward = training_flops(
            Sizes.of(outline.architecture), batch, frames, batch * clip_tokens, repeats, flat
        )
        needed = training_bytes(outline, batch, frames, dtype)
        return (forward.total + backward.total) / 1e9 > 10 * peak_gflops or 2 * needed > (available or math.inf)

    batch = recipe.train.batch_size // recipe.train.accumulate
    while batch > 1 and is_too_much(batch):
        batch //= 2
    return batch
