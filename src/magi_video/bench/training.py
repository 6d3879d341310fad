"""Training: seconds of a step, operations, share of the peak."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import record_function

from magi_video.bench.counting import count_executed, peak_share
from magi_video.bench.flops import Flops, Sizes, exposure_flops, training_flops
from magi_video.bench.machine import clock, peak_memory_bytes
from magi_video.bench.profiling import OPTIMISER, PART
from magi_video.bench.subject import Subject, blank_conditions
from magi_video.fast.allocator import keep_freed_memory
from magi_video.fast.kernel_choice import KERNELS, LINEAR_KERNELS
from magi_video.fast.kernels import use_training_kernels
from magi_video.fast.speed import speed_up
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, Paradigm
from magi_video.registry import declared
from magi_video.training.build import build_cure, build_paradigm
from magi_video.training.optimization import build_optimizer
from magi_video.training.sizing import attends_flat, loss_share, read_frames

Progress = Callable[[str, int, int | None], object]


@dataclass
class Training:
    """Figures of training.

    Attributes:
        forcing: teacher-forcing paradigm.
        precision: of autocast; the head is float32.
        threads: of the CPU.
        batch, recipe_batch: clips of a step here, and in the recipe (all processes and accumulated parts together).
        clip_frames: of each.
        sequence_frames: that the transformer reads for a clip.
        step: what a step is.
        warm_up: what ran before and does not count.
        seconds_per_step: of each timed step.
        median_seconds: of them.
        clips_per_second: the batch over the median.
        flops_forward, flops_backward: of the algorithm, by part; hidden tokens at their mean number.
        flops_total: of both.
        flops_executed: counted in a step; None if some product could not be counted.
        peak_share: the smaller of the two, over the median seconds, over the measured peak of the precision.
        peak_memory_bytes: after the last step.
    """

    forcing: str
    precision: str
    threads: int
    batch: int
    recipe_batch: int
    clip_frames: int
    sequence_frames: int
    step: str
    warm_up: str
    seconds_per_step: list[float]
    median_seconds: float
    clips_per_second: float
    flops_forward: Flops
    flops_backward: Flops
    flops_total: int
    flops_executed: int | None
    peak_share: float
    peak_memory_bytes: int


def sequence_frames(subject: Subject) -> int:
    """Frames that the transformer reads for a clip under the subject's paradigm."""
    return read_frames(subject.preset.forcing, subject.preset.forcing_options, subject.outline.config.num_frames)


class Stepper:
    """One optimiser step after another on a clip of random latents, as the trainer makes them.

    Args:
        subject: what is trained.
        model: its transformer in float32; in training mode afterwards.
        batch: clips of a step.
        precision: "bf16" for autocast, "float32" for none.
        device: where.
    """

    def __init__(self, subject: Subject, model: MagiVideoTransformer, batch: int, precision: str, device: torch.device):
        self.cure = build_cure(subject.preset.exposure)
        self.paradigm = build_paradigm(subject.preset, self.cure)
        self.model = model.train()
        self.config = subject.preset.train
        speed_up(model)  # as the trainer does
        if device.type == "cpu":
            use_training_kernels(model, linears=precision == "bf16" and KERNELS[LINEAR_KERNELS].used)
            keep_freed_memory()
        self.optimizer = build_optimizer(model, self.config)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        self.draws = torch.Generator(device).manual_seed(0)
        frames = model.config.num_frames
        self.clip = Clip(
            torch.randn(batch, frames, model.num_tokens, model.token_dim, device=device),
            torch.ones(batch, dtype=torch.long, device=device),
            blank_conditions(model, batch, frames, device),
        )

    def compute_gradient(self) -> None:
        """Forward and backward, with a cure for exposure bias at work as at the end of the training."""
        self.cure.begin_step(self.config.steps)
        with self.autocast:
            loss = self.paradigm.loss(self.model, self.clip, self.draws)
        loss.backward()

    def update(self) -> None:
        """Clip the gradient and let the optimiser step."""
        with record_function(PART + OPTIMISER):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.cure.end_step(torch.ones((), dtype=torch.bool), lambda values: values)

    def step(self) -> None:
        """Both."""
        self.compute_gradient()
        self.update()


def measure_training(
    subject: Subject, stepper: Stepper, steps: int, precision: str, peak_gflops: float, progress: Progress
) -> Training:
    """Count the operations of a step, then time `steps` more.

    Args:
        subject: what is trained.
        stepper: its steps.
        steps: to time.
        precision: name of autocast's precision.
        peak_gflops: of the machine in that precision, measured.
        progress: called with (stage, done, total).
    """
    device = stepper.clip.tokens_BTND.device
    progress("training", 0, steps)
    executed = count_executed(stepper.step, device.type)
    seconds = []
    for index in range(steps):
        began = clock(device)
        stepper.step()
        seconds.append(clock(device) - began)
        progress("training", index + 1, steps)
    median = statistics.median(seconds)
    batch, frames, tokens = stepper.clip.tokens_BTND.shape[:3]
    forward, backward = training_flops(
        Sizes.of(stepper.model.architecture),
        batch,
        sequence_frames(subject),
        predicted=round(batch * frames * tokens * mean_share(stepper.paradigm, tokens, frames)),
        repeats=stepper.paradigm.draws or stepper.paradigm.diffusion_batch_mul,
        flat=attends_flat(subject.preset.forcing, subject.preset.forcing_options),
    )
    more = exposure_flops(
        declared("exposure")[subject.preset.exposure.exposure],
        Sizes.of(stepper.model.architecture), batch, sequence_frames(subject), frames,
    )  # fmt: skip
    forward, backward = forward + more[0], backward + more[1]
    total = (forward + backward).total
    return Training(
        forcing=stepper.paradigm.name,
        precision=precision,
        threads=torch.get_num_threads(),
        batch=batch,
        recipe_batch=subject.preset.train.batch_size,
        clip_frames=frames,
        sequence_frames=sequence_frames(subject),
        step="forward, backward, gradient clipping, AdamW; without reading data, encoding and averaging weights",
        warm_up="one step, not counted",
        seconds_per_step=seconds,
        median_seconds=median,
        clips_per_second=batch / median,
        flops_forward=forward,
        flops_backward=backward,
        flops_total=total,
        flops_executed=executed,
        peak_share=peak_share(total, executed, median, peak_gflops),
        peak_memory_bytes=peak_memory_bytes(device),
    )


def mean_share(paradigm: Paradigm, tokens: int, frames: int) -> float:
    """Mean share of a clip's tokens that have a loss."""
    ratio = paradigm.mask_ratio
    return loss_share(paradigm.name, ratio.minimum, ratio.std, tokens, frames)[0]
