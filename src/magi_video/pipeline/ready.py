"""A model made ready to generate on this machine: its precision and the number of CPU threads, chosen and said."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from magi_video.distributed import Processes
from magi_video.errors import counted
from magi_video.fast.engine import Say, Stage
from magi_video.fast.engine_name import EngineName
from magi_video.fast.kernel_choice import FAST_FLOAT32, generation_kernels, settle_kernels
from magi_video.fast.precision import check_precision
from magi_video.fast.probes import Choice, choose_precision
from magi_video.fast.threads import choose_threads
from magi_video.files.weights import is_local
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.sampling import ResolvedSampling, Sampling

if TYPE_CHECKING:
    from magi_video.fast.job import Job


@dataclass(frozen=True)
class Ready:
    """A pipeline that can begin.

    Attributes:
        pipe: on its device, in its precision.
        choice: the precision, and why.
        threads: of the CPU that it will use.
        cores: threads that PyTorch would take by itself.
        engine: what computes frames, and why, in a line; "" where there is nothing to say.
    """

    pipe: MagiVideoPipeline
    choice: Choice
    threads: int
    cores: int
    engine: str = ""

    def __str__(self) -> str:
        on_cpu = self.pipe.device.type == "cpu"
        threads = counted(self.threads, "CPU thread") if on_cpu else ""
        return "; ".join(filter(None, (str(self.choice), threads, self.engine)))


def make_ready(
    model: str | Path,
    precision: str,
    processes: Processes,
    threads: int | None = None,
    videos: int = 1,
    sampling: Sampling | str | None = None,
    engine: EngineName = "torch",
    frames: int | None = None,
    say: Say = lambda _: None,
    stage: Stage = lambda _: None,
) -> Ready:
    """Load a model for generating.

    Args:
        model: folder, hub id, or the name of a shipped model.
        precision: of all weights: "auto", "float32" or "bf16".
        processes: that generate, on their devices; all have the main one's precision and kernels.
        threads: of the CPU; if not given, those that the model's products are worth (`threads.py`).
        videos: made together in a process.
        sampling: that frames will have.
        engine: that computes them. "auto" is PyTorch where there are several processes; with "onnx" the precision that
            is not asked for is float32.
        frames: of each video; None for no end.
        say: called with a line of news.
        stage: called when the model begins to be fetched or loaded, and as of `use_engine`.

    Raises:
        MagiError: there is no such model or precision, the model cannot be sampled so, or the engine cannot be had.
    """
    check_precision(precision)
    precision = suited_precision(precision, engine)
    stage("loading the model" if is_local(model) else f"fetching {model} from the hub, or from its cache")
    pipe, device, cores = MagiVideoPipeline.from_pretrained(model), processes.device, torch.get_num_threads()
    resolved = pipe.resolve(sampling)
    if engine == "auto" and processes.count > 1:  # they would not all measure the same
        engine = "torch"
    # Too few frames are refused where the video is asked for, with what is given to it.
    latent_frames = None if frames is None else pipe.codec.covering_latent_frames(max(1, frames))
    length = math.inf if latent_frames is None else latent_frames
    if device.type == "cpu":
        settle_kernels([FAST_FLOAT32], processes)  # by which the precision is measured
    choice = processes.once(lambda: choose_for(pipe.transformer, precision, device, resolved, videos))
    if device.type == "cpu":
        settle_kernels([one for one in generation_kernels(choice.precision) if one != FAST_FLOAT32], processes)
        choose_threads(product_flops(pipe.transformer, videos), threads)
    if choice.precision != "float32":
        if precision == engine == "auto" and device.type == "cpu":
            choice = choose_with_graphs(pipe.folder, choice, pipe.job(sampling, videos, latent_frames), length)
        pipe.to(choice.dtype)
    pipe.to(device)
    line = pipe.use_engine(engine, sampling, videos, latent_frames, length, say, stage=stage)
    return Ready(pipe, choice, torch.get_num_threads(), cores, line)


def suited_precision(precision: str, engine: EngineName) -> str:
    """The precision that is asked for; "auto" is float32 with the engine "onnx", which has no other."""
    return "float32" if engine == "onnx" and precision == "auto" else precision


def choose_for(
    model: MagiVideoTransformer,
    precision: str,
    device: torch.device,
    sampling: ResolvedSampling,
    videos: int = 1,
    reason: str = "as asked",
) -> Choice:
    """The precision in which a model generates, and why.

    Args:
        model: its sizes count.
        precision: asked for.
        device: that generates.
        sampling: of a frame: many small calls of the head gain less than whole passes.
        videos: made together.
        reason: of a precision that is not "auto".
    """
    config, mask_steps, denoise_steps = model.config, sampling.mask_steps, sampling.denoise_steps
    rows, layers = videos * model.num_tokens, 2 * config.depth * (mask_steps + 1)
    depth, width = (1, config.codes) if config.codes else (config.head_depth, config.head_width)
    calls = round(mask_steps * denoise_steps * depth / layers)
    shape = (rows, config.width, config.mlp_width, math.ceil(rows / mask_steps), width, max(1, calls))
    return choose_precision(precision, device, "generation", shape, reason)


def choose_with_graphs(folder: Path | None, choice: Choice, job: "Job", frames: float) -> Choice:
    """A low precision that PyTorch gains by, or float32 where graphs, which have no other, make a frame as soon."""
    from magi_video.fast.engine_choice import compare_precisions  # not for those who only generate by PyTorch

    seconds = compare_precisions(job, choice.dtype, folder, frames)
    if seconds is None or seconds[0] > seconds[1]:
        return choice
    by_graph, by_torch = (f"{1000 * one:.1f} ms" for one in seconds)
    return Choice("float32", f"a frame takes {by_graph} by onnx, {by_torch} by torch in {choice.precision}")


def product_flops(model: MagiVideoTransformer, videos: int = 1) -> int:
    """Floating-point operations of the largest product in a pass over one frame of every video."""
    return 2 * videos * model.num_places * model.config.width * model.config.mlp_width
