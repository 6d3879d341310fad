"""The record of an evaluation: what its samples depend on, and what one that goes on keeps of it.

An evaluation that goes on computes as its samples were made, unless something else is asked for.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from magi_video.data.folder import VideoFolder
from magi_video.data.identity import DataIdentity
from magi_video.distributed import Processes
from magi_video.evaluation.options import EvaluateOptions
from magi_video.evaluation.protocols import Protocol
from magi_video.fast.engine_name import EngineName
from magi_video.fast.kernel_choice import choose_kernels, missing_kernels, settle_kernels
from magi_video.fast.probes import Choice
from magi_video.files.atomic import files_sha256
from magi_video.files.json import read_json
from magi_video.files.weights import resolve_model
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.pipeline.ready import choose_for, suited_precision

RECORD = "evaluate.json"
CONTENT, KERNELS = "data_content_sha256", "kernels"
"""Names in the record: of the videos' contents, and of which kernels are asked for (`kernel_choice`)."""


def has_samples(out: Path) -> bool:
    """Whether there are samples in a folder."""
    return any((out / "samples").glob("*.npy"))


def record_before(out: Path) -> dict[str, Any]:
    """The record of the samples there are; empty where there are none, or no record. For the main process alone, which
    shares what it finds: a file that one process cannot read is an error in all."""
    return read_json(out / RECORD) if has_samples(out) and (out / RECORD).exists() else {}


def choose_as_before(pipe: MagiVideoPipeline, options: EvaluateOptions, videos: int, out: Path) -> Choice:
    """The precision that is asked for; by "auto" that of the samples there are, else the quicker one.

    Args:
        pipe: the model, on its device.
        options: what is asked for.
        videos: that are made in all.
        out: folder of the evaluation.
    """
    asked, reason = suited_precision(options.precision, options.engine), "as asked"
    if asked == "auto" and (record := record_before(out)):
        asked, reason = str(record.get("precision", asked)), "as the samples there are"
    size = min(options.batch_size, videos)
    return choose_for(pipe.transformer, asked, pipe.device, pipe.resolve(options.sampling), size, reason)


def engine_as_before(options: EvaluateOptions, out: Path, processes: Processes) -> EngineName:
    """The engine that is asked for; by "auto" that of the samples there are. Many processes have the same one."""
    asked = options.engine
    if asked == "auto" and (record := processes.once(lambda: record_before(out))):
        graphs: tuple[EngineName, ...] = ("onnx", "cudagraphs")
        return next((name for name in graphs if name == record.get("engine")), "torch")
    return "torch" if asked == "auto" and processes.count > 1 else asked


def kernels_as_before(
    names: Iterable[str], out: Path, processes: Processes, say: Callable[[str], None]
) -> dict[str, bool]:
    """Settle kernels in all processes, on CPUs: those of the samples there are, else those that pay here.

    Returns:
        Name → whether it is asked for, which is recorded.
    """
    if processes.device.type != "cpu":
        return {}
    names = list(names)
    chosen = processes.once(lambda: choose_kernels(names, record_before(out).get(KERNELS)))
    if line := missing_kernels(chosen, settle_kernels(names, processes, chosen)):
        say(line)
    return chosen


def describe(
    model: str | Path, pipe: MagiVideoPipeline, protocol: Protocol, options: EvaluateOptions, videos: VideoFolder
) -> dict[str, Any]:
    """Everything that the samples depend on, but for how many there are and the kernels.

    Args:
        model: as asked for.
        pipe: the model, loaded.
        protocol: says frames, interval and how many frames are given.
        options: how samples are made, with the settled precision and engine.
        videos: that are continued.
    """
    config = pipe.config
    sampling = pipe.resolve(options.sampling)
    frame = {name: value for name, value in sampling.given().items() if name != "speed"}
    own = ("precision", "engine", "batch_size", "seed", "actions", "labels", "captions")
    return (
        frame
        | {name: getattr(options, name) for name in own}
        | {
            "setting": sampling.speed,  # the names that records have had from the first version on
            "first_step": sampling.first_step,
            "guide": list(sampling.guide),
            "model_sha256": hash_model(resolve_model(model)),
            "protocol": protocol.name,
            "frames": protocol.frames,
            "interval": protocol.interval,
            "context_frames": protocol.given,
            "clips_seed": protocol.seed,
            "data": videos.root.name,
            "data_sha256": hash_videos(videos),
            CONTENT: DataIdentity.of(videos).record()["sha256"],
            "height": config.height,
            "width": config.width,
            "device": pipe.device.type,
        }
    )


def hash_videos(videos: VideoFolder) -> str:
    """SHA-256 of the videos' names and lengths, on which the choice of clips hangs, and of how they are shown where
    that is not as they are stored."""
    facts = ((name, str(one.num_frames), one.shown) for name, one in zip(videos.names, videos.videos, strict=True))
    lines = [" ".join(filter(None, three)) for three in facts]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def hash_model(folder: Path) -> str:
    """SHA-256 of a model's weights and configurations."""
    found = (path for part in ("transformer", "codec") for path in sorted((folder / part).rglob("*")))
    return files_sha256(folder, (path for path in found if path.suffix in (".safetensors", ".json")))
