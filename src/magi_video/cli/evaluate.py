"""`magi evaluate MODEL`."""

from magi_video.cli.parsing import Grouped, Model, OutFolder, Videos, parse
from magi_video.cli.progress import TaskDisplay
from magi_video.cli.score import print_result
from magi_video.evaluation.options import EvaluateOptions
from magi_video.settings import settings


@settings
class Evaluate:
    """Continue real clips with a model and score what comes of it: `samples/`, `metrics.json` and `report.html`.

    The same command continues a run that was stopped. Several processes, with the same figures: accelerate launch
    --multi_gpu --num_processes 2 -m magi_video evaluate … (so too on CPUs).
    """

    model: Model
    """Folder, hub id, or the name of a shipped model ("doom", "atari", "coinrun")."""
    data: Videos
    """Folder of real videos, or UCF-101 in its official layout."""
    out: OutFolder
    """Folder for the results."""
    protocol: str = "small"
    """One of magi-ucf101, magi-ucf101-first-frame, magi-k600, stylegan-v, latte, videogpt, magvit, small."""
    options: Grouped[EvaluateOptions] = EvaluateOptions()
    """What is compared, and how samples are made."""
    json: bool = False
    """Print the content of metrics.json."""


def main(argv: list[str]) -> None:
    """Parse, generate, score, print."""
    asked = parse(Evaluate, "magi evaluate", argv)
    asked.options.check_model(asked.model)  # before anything is loaded
    with TaskDisplay("loading the model") as display:
        from magi_video.evaluation.generation import evaluate

        result = evaluate(
            asked.model, asked.data, asked.protocol, asked.options, out=asked.out,
            progress=display.show, say=display.say,
        )  # fmt: skip
    print_result(result, asked.out, asked.json)
