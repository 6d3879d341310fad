"""`magi compare A B …`."""

import json
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from magi_video.cli.parsing import Grouped, OutFolder, Videos, parse
from magi_video.cli.progress import TaskDisplay
from magi_video.evaluation.options import EvaluateOptions
from magi_video.experiments.contenders import parse_contenders
from magi_video.settings import settings
from magi_video.training.stopping import StopSignals


@settings
class Compare:
    """Score models on the same held-out clips, beside rows that need no model, and say in words what the figures allow
    to say: `compare.md`, `compare.json`, `compare.png`, and each model's own report. A stopped call goes on.

    A recipe in place of a model is trained first: magi compare small small:masked --train videos/train --data
    videos/test --seeds 0 1 2 --out compared
    """

    contenders: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL-or-RECIPE")]
    """Two or more: a model (folder, hub id, shipped name), a recipe (preset or JSON file), or recipe:forcing for a
    recipe under another paradigm. NAME=… gives it a name of its own."""
    data: Videos
    """Folder of held-out videos."""
    out: OutFolder
    """Folder for everything."""
    train: Videos | None = None
    """Folder of videos that recipes are trained on; none of them may be among the held-out ones."""
    seeds: tuple[int, ...] = (0,)
    """Of the recipes' training runs; three or more allow a verdict on the recipes, one on the models alone."""
    budget: Literal["steps", "operations"] = "steps"
    """"steps": each recipe trains for its own steps; "operations": for as many as cost what the first recipe costs."""
    protocol: str = "small"
    """Of the scores; see docs/evaluation.md."""
    options: Grouped[EvaluateOptions] = EvaluateOptions(num=128)
    """What is compared, and how samples are made. The rows that need no model are scored in any case."""
    json: bool = False
    """Print the content of compare.json."""


def main(argv: list[str]) -> None:
    """Parse, compare, print."""
    asked = parse(Compare, "magi compare", argv)
    for side in parse_contenders(asked.contenders, asked.train):  # refused before anything is loaded
        if side.model is not None:
            asked.options.check_model(side.model)
    with TaskDisplay("loading PyTorch") as display, StopSignals() as signals:
        from magi_video.experiments.compare import compare

        figures = compare(
            asked.contenders, asked.data, asked.out, train_data=asked.train, seeds=asked.seeds, budget=asked.budget,
            protocol=asked.protocol, options=asked.options, display=display, signals=signals, progress=display.show,
        )  # fmt: skip
    if asked.json:
        print(json.dumps(figures))
    else:
        print((asked.out / "compare.md").read_text(encoding="utf-8"))
        print(f"figures  {asked.out / 'compare.json'}\nsheet    {asked.out / 'compare.png'}")
