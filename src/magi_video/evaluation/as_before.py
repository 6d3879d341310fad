"""What an evaluation that goes on computes with: as its samples were made, unless something else is asked for."""

from pathlib import Path

from magi_video.distributed import Processes
from magi_video.evaluation.options import EvaluateOptions
from magi_video.fast.engine_name import EngineName
from magi_video.fast.probes import Choice
from magi_video.files.json import read_json
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.pipeline.ready import choose_for, suited_precision

RECORD = "evaluate.json"


def has_samples(out: Path) -> bool:
    """Whether there are samples in a folder."""
    return any((out / "samples").glob("*.npy"))


def choose_as_before(pipe: MagiVideoPipeline, options: EvaluateOptions, videos: int, out: Path) -> Choice:
    """The precision that is asked for; by "auto" that of the samples there are, else the quicker one.

    Args:
        pipe: the model, on its device.
        options: what is asked for.
        videos: that are made in all.
        out: folder of the evaluation.
    """
    asked, reason = suited_precision(options.precision, options.engine), "as asked"
    if asked == "auto" and has_samples(out) and (out / RECORD).exists():
        asked, reason = str(read_json(out / RECORD).get("precision", asked)), "as the samples there are"
    size = min(options.batch_size, videos)
    return choose_for(pipe.transformer, asked, pipe.device, pipe.resolve(options.sampling), size, reason)


def engine_as_before(options: EvaluateOptions, out: Path, processes: Processes) -> EngineName:
    """The engine that is asked for; by "auto" that of the samples there are. Many processes have the same one."""
    asked = options.engine
    if asked == "auto" and has_samples(out) and (out / RECORD).exists():
        return "onnx" if read_json(out / RECORD).get("engine") == "onnx" else "torch"
    return "torch" if asked == "auto" and processes.count > 1 else asked
