"""Generation, frame by frame: seconds, operations, share of the peak, with and without the cache."""

import io
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from magi_video.bench.counting import count_executed, peak_share
from magi_video.bench.flops import Flops, Sizes, frame_flops, reread_flops, token_frame_flops
from magi_video.bench.machine import clock, peak_memory_bytes
from magi_video.bench.subject import Subject, blank_conditions
from magi_video.codecs.base import Codec
from magi_video.fast.engine import Engine
from magi_video.fast.job import Job
from magi_video.fast.noise import make_noise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import make_paradigm
from magi_video.paradigms.masked_frames import unmasking_counts
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import ResolvedSampling
from magi_video.training.sizing import attends_flat

JPEG_QUALITY = 85
Progress = Callable[[str, int, int | None], object]


@dataclass(frozen=True)
class Line:
    """A least-squares straight line through (frames, seconds that they took in all).

    Attributes:
        seconds_per_frame: its slope.
        r2: share of the variance that it explains; 1 is a straight line.
    """

    seconds_per_frame: float
    r2: float


@dataclass
class Generation:
    """Figures of generation. A frame is a latent frame of every video of the batch.

    Attributes:
        sampling: how frames were made.
        precision: of the weights.
        engine: what computed the frames.
        engine_why: why it did, in a line; "" where there is nothing to say.
        threads: of the CPU.
        batch, frames: videos made together, and frames timed.
        warm_up: what ran before and does not count.
        seconds_per_frame: of the model, by frame index; the first has one given frame before it.
        median_seconds: of them.
        frames_per_second: of all videos together, over all timed frames, without decoding.
        first_over_last: median of the first quarter of the frames over that of the last.
        line: through the frames' running sum.
        decode_seconds, encode_seconds: a frame through the codec's decoder, and as JPEG; None without a codec.
        end_to_end_frames_per_second: model, decoder and JPEG one after another; None without a codec.
        flops: of the algorithm, for the frame in the middle, by part.
        flops_total: their sum.
        flops_executed: counted while the same frame was made; None if some product could not be counted.
        peak_share: the smaller of the two, over the median seconds, over the measured peak of the precision.
        peak_memory_bytes: when the last frame was done.
    """

    sampling: ResolvedSampling
    precision: str
    engine: str
    engine_why: str
    threads: int
    batch: int
    frames: int
    warm_up: str
    seconds_per_frame: list[float]
    median_seconds: float
    frames_per_second: float
    first_over_last: float
    line: Line
    decode_seconds: float | None
    encode_seconds: float | None
    end_to_end_frames_per_second: float | None
    flops: Flops
    flops_total: int
    flops_executed: int | None
    peak_share: float
    peak_memory_bytes: int


@dataclass
class Generator:
    """Rollouts of random latents.

    Attributes:
        subject: what is measured.
        model: its transformer, ready to generate.
        sampling: of its frames.
        batch: videos made together.
        device: where.
        engine: what computes them.
        engine_why: why, in a line; "" where there is nothing to say.
    """

    subject: Subject
    model: MagiVideoTransformer
    sampling: ResolvedSampling
    batch: int
    device: torch.device
    engine: Engine = field(default_factory=Engine)
    engine_why: str = ""

    @property
    def conditions(self) -> dict[str, Tensor]:
        """Conditions of every frame: no button held, the first class."""
        return {name: value[:, 0] for name, value in blank_conditions(self.model, self.batch, 1, self.device).items()}

    def begin(self, total_frames: int, given: int = 1, use_cache: bool | None = None) -> Rollout:
        """A rollout with `given` random frames behind it; models with relative positions go on without end."""
        unbounded = self.model.config.temporal_position == "rope"
        frames = None if unbounded else total_frames
        recipe = self.subject.preset
        paradigm = make_paradigm(recipe.forcing, recipe.forcing_options).sampled(self.sampling)
        rollout = Rollout(
            self.model,
            paradigm,
            make_noise([torch.Generator().manual_seed(seed) for seed in range(self.batch)], self.device),
            self.sampling,
            torch.ones(self.batch, dtype=torch.long, device=self.device),
            frames,
            past=self.engine.begin_past(paradigm, self.model, self.batch, frames, self.sampling, use_cache),
        )
        for _ in range(max(given, paradigm.given_frames)):
            shape = (self.batch, self.model.num_tokens, self.model.token_dim)
            rollout.observe(torch.randn(shape, device=self.device), self.conditions)
        return rollout

    def time_frames(
        self, frames: int, use_cache: bool | None = None, progress: Callable[[int], object] | None = None
    ) -> tuple[list[float], list[Tensor]]:
        """Seconds of each of so many frames after a given one, and their latents `[B, C, H, W]`."""
        rollout = self.begin(self.given + frames, use_cache=use_cache)
        seconds: list[float] = []
        latents: list[Tensor] = []
        while len(seconds) < frames:
            count = min(rollout.step_frames, frames - len(seconds))
            began = clock(self.device)
            tokens_BSND = rollout.predict_frames([self.conditions] * count)
            seconds += [(clock(self.device) - began) / count] * count  # frames that are made together share their time
            latents += self.model.unpatchify(tokens_BSND).unbind(1)
            if progress:
                progress(len(seconds))
        return seconds, latents

    def frame(self, number: int, frames: int, use_cache: bool | None = None) -> Callable[[], Tensor]:
        """What makes a frame, 0 the first, of so many, with those that are made together with it; its past is given
        frames. `use_cache` as of `begin`."""
        rollout = self.begin(self.given + frames, given=self.given + number, use_cache=use_cache)
        return lambda: rollout.predict_frames([self.conditions] * rollout.step_frames)

    def middle_frame(self, frames: int) -> Callable[[], Tensor]:
        """What makes the frame in the middle of so many; its past is given frames.

        Where frames are made together it is made with as many as follow it in its step (`middle_frames`).
        """
        return self.frame(frames // 2, frames)

    def job(self, frames: int) -> Job:
        """Making so many frames."""
        paradigm = make_paradigm(self.subject.preset.forcing, self.subject.preset.forcing_options)
        endless = self.model.config.temporal_position == "rope"
        total = None if endless else self.given + frames
        return Job(paradigm, self.model, self.subject.codec, self.sampling, self.batch, total)

    @property
    def given(self) -> int:
        """Frames before the first that is timed."""
        return make_paradigm(self.subject.preset.forcing, self.subject.preset.forcing_options).given_frames

    def middle_frames(self, frames: int) -> int:
        """Frames that `middle_frame` makes."""
        return self.begin(self.given + frames, given=self.given + frames // 2).step_frames


def measure_generation(
    generator: Generator, precision: str, frames: int, peak_gflops: float, progress: Progress
) -> Generation:
    """Time `frames` frames, decode them where there is a codec, and count the operations of the one in the middle.

    Args:
        generator: the rollouts.
        precision: name of the weights' precision.
        frames: to time.
        peak_gflops: of the machine in that precision, measured.
        progress: called with (stage, done, total).
    """
    generator.time_frames(1)
    seconds, latents = generator.time_frames(frames, progress=lambda done: progress("generating", done, frames))
    memory = peak_memory_bytes(generator.device)
    codec = generator.subject.codec
    decode, encode = None, None
    if codec:
        decode, encode = time_decoding(codec.to(generator.device), latents, generator.engine)
    sampling = generator.sampling
    median, quarter = statistics.median(seconds), math.ceil(frames / 4)
    flops = middle_flops(generator, frames)
    executed = count_frame(generator, frames)
    return Generation(
        sampling=sampling,
        precision=precision,
        engine=generator.engine.name,
        engine_why=generator.engine_why,
        threads=torch.get_num_threads(),
        batch=generator.batch,
        frames=frames,
        warm_up="one frame of another rollout, not counted",
        seconds_per_frame=seconds,
        median_seconds=median,
        frames_per_second=generator.batch * frames / sum(seconds),
        first_over_last=statistics.median(seconds[:quarter]) / statistics.median(seconds[-quarter:]),
        line=fit_line(seconds),
        decode_seconds=decode,
        encode_seconds=encode,
        end_to_end_frames_per_second=(
            None if decode is None or encode is None else generator.batch / (median + decode + encode)
        ),
        flops=flops,
        flops_total=flops.total,
        flops_executed=executed,
        peak_share=peak_share(flops.total, executed, median, peak_gflops),
        peak_memory_bytes=memory,
    )


def middle_flops(generator: Generator, frames: int) -> Flops:
    """Operations of the algorithm for the frame in the middle of so many.

    Of frames at different noise levels (the pyramid) it is a lower bound: those that are finished are read again.
    """
    model, sampling, preset = generator.model, generator.sampling, generator.subject.preset
    paradigm = make_paradigm(preset.forcing, preset.forcing_options)
    sizes, batch, past = Sizes.of(model.architecture), generator.batch, generator.given + frames // 2
    window = model.config.num_frames if model.config.temporal_position == "rope" else None

    def denoise(mask_steps: int) -> list[int]:
        return [sampling.denoise_steps_at(step, mask_steps) for step in range(mask_steps)]

    if paradigm.unit == "token":
        flat = attends_flat(preset.forcing, preset.forcing_options)
        return token_frame_flops(sizes, batch, denoise(sizes.tokens), past, window, flat)
    if paradigm.past == "noisy":  # a pass for every denoise step, and one call of the head on all tokens
        return frame_flops(sizes, batch, [model.num_tokens] * sampling.denoise_steps, 1, past, window)
    if paradigm.cached:
        schedule = unmasking_counts(model, sampling)
        return frame_flops(sizes, batch, schedule, denoise(len(schedule)), past, window)
    whole = paradigm.unit == "clip"
    read = model.config.num_frames if whole else paradigm.given_frames + 1
    new = read - paradigm.given_frames
    schedule = unmasking_counts(model, sampling, new)
    return reread_flops(sizes, batch, schedule, denoise(len(schedule)), read, generator.middle_frames(frames))


def count_frame(generator: Generator, frames: int) -> int | None:
    """Operations that the frame in the middle takes; see `count_executed`."""
    counted = count_step(generator, frames)
    return None if counted is None else counted // generator.middle_frames(frames)


def count_step(generator: Generator, frames: int) -> int | None:
    """Operations of the step that makes the frame in the middle, as PyTorch computes it."""
    generator = replace(generator, engine=Engine())
    counted = count_executed(generator.middle_frame(frames), generator.device.type)
    if counted is None and generator.model.dtype != torch.float32:
        # Weights packed for the CPU's bf16 units go through an operator without a formula; float32 ones do not.
        model = generator.subject.load(torch.float32).to(generator.device)
        counted = count_executed(replace(generator, model=model).middle_frame(frames), generator.device.type)
    return counted


def time_decoding(codec: Codec, latents: list[Tensor], engine: Engine) -> tuple[float, float]:
    """Seconds of a latent frame `[B, C, H, W]`: through the decoder, and as JPEG pictures of the whole batch.

    The median over the pieces that the decoder gives, the first of which does not count where there are others; a piece
    of several latent frames counts for each of them.
    """
    device, decoding, encoding = latents[0].device, [], []
    taken = 0

    def counted() -> Iterator[Tensor]:
        nonlocal taken
        for latent_BCHW in latents:
            taken += 1
            yield latent_BCHW

    decoded = engine.decode_stream(codec, counted())
    while True:
        before, began = taken, clock(device)
        chunk_BTCHW = next(decoded, None)
        if chunk_BTCHW is None:
            break
        frames = max(1, taken - before)
        decoding.append((clock(device) - began) / frames)
        began = clock(device)
        pixels = ((chunk_BTCHW.movedim(2, -1).flatten(0, 1) + 1) * 127.5).round().byte().cpu().numpy()
        for picture in pixels:
            Image.fromarray(picture).save(io.BytesIO(), "JPEG", quality=JPEG_QUALITY)
        encoding.append((clock(device) - began) / frames)
    return statistics.median(decoding[1:] or decoding), statistics.median(encoding[1:] or encoding)


@dataclass
class Recomputation:
    """The same frames with the whole past computed anew in every pass (paper, Fig. 5a).

    Attributes:
        frames: so many, from the first on.
        seconds_per_frame: without the cache.
        line_cached, line_uncached: through the running sums of these frames.
    """

    frames: int
    seconds_per_frame: list[float]
    line_cached: Line
    line_uncached: Line


def measure_recomputation(
    generator: Generator, frames: int, cached_seconds: list[float], progress: Progress
) -> Recomputation:
    """Time `frames` frames without the cache, beside the seconds that they took with it."""
    generator.time_frames(1, use_cache=False)
    seconds, _ = generator.time_frames(frames, False, lambda done: progress("without the cache", done, frames))
    return Recomputation(frames, seconds, fit_line(cached_seconds[:frames]), fit_line(seconds))


def fit_line(seconds: list[float]) -> Line:
    """The straight line through the running sum of the seconds of each frame, against the number of frames."""
    if len(seconds) < 2:
        return Line(sum(seconds), 1.0)
    frames, sums = np.arange(1, 1 + len(seconds)), np.cumsum(seconds)
    slope, start = np.polyfit(frames, sums, 1)
    residual = ((sums - slope * frames - start) ** 2).sum()
    return Line(float(slope), 1 - float(residual / ((sums - sums.mean()) ** 2).sum()))
