"""`magi distill MODEL`."""

import json

from magi_video.cli.parsing import Grouped, Model, OutFolder, Videos, parse
from magi_video.cli.progress import TaskDisplay
from magi_video.settings import settings
from magi_video.training.distillation_options import DistillOptions, check_new


@settings
class Distill:
    """Give a model a few-step head: a token takes 1 to 4 denoise steps in place of 20 or 100.

    The transformer stays as it is; the head alone is trained, on samples of the model's own. The result is a model
    folder like any other.
    """

    model: Model
    """Folder, hub id, or the name of a shipped model ("doom", "atari", "coinrun")."""
    out: OutFolder
    """Folder of the new model."""
    data: Videos | None = None
    """Folder of videos, best of those that the model was trained on. Without it the model makes its own, from nothing,
    under random actions and labels."""
    options: Grouped[DistillOptions] = DistillOptions()
    """Of the training."""
    json: bool = False
    """Print what the new model records of its making as JSON."""


def main(argv: list[str]) -> None:
    """Parse, distill, print."""
    asked = parse(Distill, "magi distill", argv)
    check_new(asked.out)
    asked.options.check_model(asked.model)  # before anything is loaded
    with TaskDisplay("loading the model") as display:
        from magi_video.training.distillation import distill_model

        record = distill_model(asked.model, asked.out, asked.data, asked.options, display)
    if asked.json:
        print(json.dumps(record))
    else:
        print(
            f"{asked.out}: {asked.options.denoise_steps} denoise steps in place of {record['denoise_steps']} "
            f"(try: magi generate {asked.out} --out samples)"
        )
