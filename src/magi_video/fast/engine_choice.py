"""Which engine computes frames: what is asked for, or on CPUs the quicker one by measurement."""

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch

from magi_video.codecs.base import Codec
from magi_video.errors import MagiError
from magi_video.fast.cuda_graph import CudaGraphEngine
from magi_video.fast.engine import Engine, Say, Stage
from magi_video.fast.engine_name import EngineName, check_engine, missing_packages
from magi_video.fast.graph_engine import GraphEngine
from magi_video.fast.job import Job
from magi_video.fast.onnx_engine import OnnxEngine
from magi_video.fast.onnx_graph import GraphFiles
from magi_video.fast.probes import PROBES, probes_on
from magi_video.fast.speed import prepare
from magi_video.files.cache import cache_folder

GRAPHS = "graphs"
"""Folder of graphs, in a model's and in the user's."""
FEW_FRAMES = 24
"""Below so many "auto" takes PyTorch: measuring takes some frames itself."""
LOADING_PAYS = 4.0
"""Seconds of PyTorch's time for a job from which "auto" takes graphs; from more, if they have to be made first
(`GraphEngine.builds`)."""
GAIN = 1.1
"""How many times as fast a graph must be for "auto" to take it."""


def open_engine(
    folder: Path | None, say: Say = lambda _: None, threads: int | None = None, stage: Stage = lambda _: None
) -> OnnxEngine:
    """ONNX Runtime for a model.

    Args:
        folder: of the model, which may hold graphs; others are kept in the user's folder.
        say, threads, stage: see `OnnxEngine`; PyTorch's number of threads if not given.
    """
    folders = [cache_folder() / GRAPHS] if folder is None else [folder / GRAPHS, cache_folder() / GRAPHS]
    return OnnxEngine(files=GraphFiles(folders), threads=threads or torch.get_num_threads(), say=say, stage=stage)


def choose_engine(
    asked: EngineName,
    job: Job,
    folder: Path | None,
    frames: float,
    say: Say = lambda _: None,
    threads: int | None = None,
    stage: Stage = lambda _: None,
) -> tuple[Engine, str]:
    """The engine for a job, and why in a line; "" where there is nothing to say.

    Args:
        asked: "auto" takes on a CPU the quicker of "torch" and "onnx", measured on a frame or two; where graphs have to
            be loaded or made first, only if the job is long enough; PyTorch where nothing is to be measured
            (`probes_on`), and on a GPU.
        job: what is to be made.
        folder: of the model; None if it has none.
        frames: how many frames will be made, each of `job.batch` videos; infinite for no end.
        say: called with a line about what a graph cannot do, or where graphs cannot be kept.
        threads: of a graph's run; PyTorch's number if not given.
        stage: called when graphs are loaded or made, and engines compared.

    Raises:
        MagiError: another than "auto" is asked for and cannot be had.
    """
    if asked == "torch":
        return Engine(), ""
    check_engine(asked)
    if asked == "auto" and job.model.device.type == "cuda":
        return Engine(), "engine torch: on a GPU cudagraphs is used by name alone, until it has been measured there"
    engine: GraphEngine
    if asked == "cudagraphs":
        engine = CudaGraphEngine(say=say, stage=stage)
    elif missing_packages(("onnxruntime",)):
        return Engine(), ""
    else:
        engine = open_engine(folder, say, threads, stage)
    problem = engine.not_covered(job)
    if problem and asked == "auto":
        return Engine(), f"engine torch: {problem}"
    if asked == "auto":
        return quicker_engine(engine, job, frames)
    if problem := problem or engine.prepare(job, build=True):
        raise MagiError(problem)
    decodes = job.codec is None or engine.decodes_latents(job.codec)
    return engine, f"engine {asked}, as asked" + ("" if decodes else "; torch decodes this codec's latents")


def quicker_engine(engine: GraphEngine, job: Job, frames: float) -> tuple[Engine, str]:
    """The quicker of PyTorch and a graph engine, measured; arguments and result as of `choose_engine`."""
    plain, there = Engine(), engine.has_graphs(job)
    if frames < FEW_FRAMES or not (there or engine.builds(math.inf)):
        return plain, ""
    if not probes_on():
        return plain, f"engine torch: {PROBES}=off"
    prepare(job.model)
    (seconds,) = frame_seconds(job, [plain], trials=0)
    builds = engine.builds(seconds * frames)
    if seconds * frames < LOADING_PAYS or not (there or builds):
        return plain, ""
    try:
        problem = engine.prepare(job, build=builds)
    except MagiError as error:
        problem = str(error)
    if problem:
        return plain, f"engine torch: {problem}"
    engine.stage(f"comparing {engine.title} with PyTorch")
    before, after = frame_seconds(job, [plain, engine], trials=2 if seconds < 0.1 else int(seconds < 1))
    if job.codec is not None and engine.decodes_latents(job.codec):
        slow, fast = decoding_seconds(job, job.codec, [plain, engine])
        engine.decodes = slow >= GAIN * fast
    figures = f"a frame in {1000 * after:.1f} ms by {engine.name}, in {1000 * before:.1f} by torch"
    if before < GAIN * after:
        return plain, f"engine torch: {figures}"
    return engine, f"engine {engine.name}: {figures}"


def graphs_for(job: Job, folder: Path | None) -> bool:
    """Whether ONNX Runtime is installed and has graphs for a job, in the model's folder or the user's."""
    engine = open_engine(folder)
    return not (missing_packages(("onnxruntime",)) or engine.not_covered(job)) and engine.has_graphs(job)


def compare_precisions(job: Job, dtype: torch.dtype, folder: Path | None, frames: float) -> tuple[float, float] | None:
    """Seconds of a frame by graphs, which compute in float32, and by PyTorch in another precision.

    Args:
        job: whose model is in float32; it is left as it is.
        dtype: the other precision.
        folder, frames: as of `choose_engine`.

    Returns:
        None where "auto" would not take graphs that are there, or there are none.
    """
    if frames < FEW_FRAMES or not graphs_for(job, folder):
        return None
    engine = open_engine(folder)
    exact, low = replace(job, model=deepcopy(job.model)), replace(job, model=deepcopy(job.model).to(dtype))
    (seconds,) = frame_seconds(low, [Engine()], trials=1)
    if seconds * frames < LOADING_PAYS or engine.prepare(exact, build=False):
        return None
    return frame_seconds(exact, [engine], trials=2)[0], seconds


def frame_seconds(job: Job, engines: Sequence[Engine], trials: int) -> list[float]:
    """Seconds of a frame by each engine: the best of some, in turns, after one that does not count; 0: of that one."""
    rollouts = [job.begin(engine) for engine in engines]
    best = [float("inf")] * len(engines)
    for trial in range(1 + trials):
        for number, rollout in enumerate(rollouts):
            seconds = timed(rollout.predict)
            if trial or not trials:
                best[number] = min(best[number], seconds)
    return best


def decoding_seconds(job: Job, codec: Codec, engines: Sequence[Engine], trials: int = 3) -> list[float]:
    """Seconds of decoding a frame by each engine, likewise."""
    latents, best = job.latents(), [float("inf")] * len(engines)
    for trial in range(1 + trials):
        for number, engine in enumerate(engines):
            seconds = timed(lambda engine=engine: list(engine.decode_stream(codec, iter([latents]))))  # type: ignore[misc]
            if trial:
                best[number] = min(best[number], seconds)
    return best


def timed(work: Callable[[], object]) -> float:
    """Seconds of some work on a CPU; of the processor where one of its threads does it, since other work may share the
    machine."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    work()
    return max(clock() - began, 1e-9)
