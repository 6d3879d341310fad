"""`magi train PRESET-or-FILE`: any field of the preset is a flag."""

import sys
from dataclasses import dataclass

import tyro

from magi_video.cli.parsing import Given, OutFolder, Videos
from magi_video.cli.progress import TaskDisplay, is_main_process
from magi_video.cli.recipe import RecipeOptions, parse_recipe
from magi_video.presets import PRESETS
from magi_video.training.stopping import StoppedError, StopSignals

HELP = f"""Train a model on a folder of videos; the same command continues a run that was stopped.

usage: magi train PRESET-or-FILE --data DIR --out RUN [--steps N] [--seed S] [any field of the preset]

PRESET is one of {", ".join(PRESETS)}, or a JSON file of fields. The defaults below are the preset's.
RUN is then itself a model: magi generate RUN --out DIR."""


@dataclass(frozen=True, kw_only=True)
class Command(RecipeOptions):
    """Options of `magi train`."""

    out: OutFolder
    """Folder of the run: checkpoints, logs (tensorboard --logdir RUN/logs), sample sheets and the model."""
    data: Videos | None = None
    """Folder of videos: any tree of them, a recording, or the official layout for presets of that data set."""
    latents: Given | None = None
    """Folder of latents that magi encode wrote. Without --data training sees no video, and makes no sample sheets."""
    seed: int = 0
    """Of everything random."""
    allow_other_data: bool = False
    """Go on with a run although its videos are not those that it has seen so far; the run records it."""


def parse(argv: list[str]) -> Command:
    """The command line as a `Command`; the first argument is the preset, whose fields become the defaults."""
    return parse_recipe(Command, "train", HELP, argv, "doom", out=tyro.MISSING)


def main(argv: list[str]) -> None:
    """Parse and train."""
    command = parse(argv)
    preset = command.preset()
    try:
        with TaskDisplay("loading PyTorch") as display, StopSignals() as signals:
            from magi_video.training.run import train

            train(
                preset, command.data, command.out, command.seed, display, command.latents, signals,
                allow_other_data=command.allow_other_data,
            )  # fmt: skip
    except StoppedError as stopped:
        if not is_main_process():  # all stop together; one reports it
            sys.exit(stopped.exit_code)
        raise
    if is_main_process():
        print(f"trained: {command.out} (try: magi generate {command.out} --out samples)", file=sys.stderr)
