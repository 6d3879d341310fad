"""`magi generate MODEL`."""

import json
from pathlib import Path
from typing import Any

from magi_video.cli.parsing import Grouped, Model, OutFolder, parse
from magi_video.cli.progress import TaskDisplay, is_main_process
from magi_video.errors import counted
from magi_video.pipeline.options import GenerateOptions
from magi_video.settings import settings


@settings
class Generate:
    """Generate videos: `sample_000.mp4`, …, `contact.png` and `generate.json` (settings, seed, seconds of every frame).

    Small videos are enlarged for the eye by a whole number; --save-arrays keeps the frames as they are. Many processes
    (torchrun -m -- magi_video generate …) share the videos.
    """

    model: Model
    """Folder, hub id, or the name of a shipped model ("doom", "atari", "coinrun")."""
    out: OutFolder
    """Folder for the results."""
    options: Grouped[GenerateOptions] = GenerateOptions()
    """What is generated, and how."""
    json: bool = False
    """Print the content of generate.json."""


def main(argv: list[str]) -> None:
    """Parse, generate, print."""
    asked = parse(Generate, "magi generate", argv)
    generate(asked.model, asked.out, asked.options, asked.json)


def generate(model: str, out: Path, options: GenerateOptions, as_json: bool) -> None:
    """Generate, show how it goes, and print the result."""
    options.check_model(model)  # before anything is loaded
    with TaskDisplay("loading the model") as display:
        from magi_video.pipeline import generate as videos

        report = videos.generate(model, out, options, progress=display.show, say=display.say)
    if is_main_process():
        print(json.dumps(report) if as_json else summary(report, out))


def summary(report: dict[str, Any], out: Path) -> str:
    """Where the results are and how fast they came."""
    seconds = report["seconds_per_frame"]
    count = len(seconds) * len(report["seeds"])
    return (
        f"{counted(len(report['files']), 'video')} of {counted(len(seconds), 'frame')} in {report['seconds']:.1f} s "
        f"({count / report['seconds']:.1f} frames/s, {sum(seconds) / len(seconds):.3f} s a frame in the mean)\n"
        f"video:         {out / report['files'][0]}\n"
        f"contact sheet: {out / 'contact.png'}\n"
        f"figures:       {out / 'generate.json'}"
    )
