"""Runs recipes on worlds and writes what they found: what `magi reproduce` does."""

import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from magi_video.errors import MagiError
from magi_video.experiments.ablation import ablation
from magi_video.experiments.asked import BY_ROWS, TABLE1, WORLDS, check_asked
from magi_video.experiments.drift import drift
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.own_past import own_past
from magi_video.experiments.recipes import RECIPES
from magi_video.experiments.rollout import rollout
from magi_video.experiments.runs import Workplace
from magi_video.experiments.starts import starts
from magi_video.experiments.table1 import FID_FRAMES, Budget, table1
from magi_video.experiments.worlds import SCALES, Scale, World
from magi_video.files.artifact import Artifact
from magi_video.files.atomic import write_json
from magi_video.files.lock import alone
from magi_video.recordings.environments import open_game
from magi_video.training.display import Display, Silent
from magi_video.training.stopping import StopSignals

APPLIES = {"kv-cache": ("balls",), "sampling-steps": ("balls",)}
"""Recipes that are run on some worlds only; the others are run on all."""
ROW_RECIPES: dict[str, Callable[..., Scores]] = dict(
    zip(BY_ROWS, (table1, starts, own_past, drift, rollout, ablation), strict=True)
)
"""Called with the measures, the seeds, the rows, and what keeps the figures as they stand."""


def find_worlds(scale: Scale, names: Sequence[str]) -> list[World]:
    """Worlds of a scale by name, in their own order."""
    known = {world.name: world for world in SCALES[scale]}
    if unknown := [name for name in names if name not in known]:
        raise MagiError(f"unknown world {unknown[0]!r}; expected one of {', '.join(known)}")
    return [world for name, world in known.items() if name in names]


def reproduce(
    recipe: str,
    out: str | Path,
    *,
    scale: Scale = "cpu",
    worlds: Sequence[str] = ("balls", "gameplay", "ucf101"),
    seeds: Sequence[int] = (0, 1, 2),
    rows: Sequence[str] | None = None,
    budget: Budget = "both",
    data: str | Path | None = None,
    display: Display | None = None,
    signals: StopSignals | None = None,
) -> Path:
    """Run one recipe; the same call again goes on where it stopped.

    Args:
        recipe: one of `RECIPES` or "all" of them, or one of `BY_ROWS`.
        out: folder for everything; figures in OUT/results/RECIPE-WORLD.json.
        scale: "smoke", "cpu" or "gpu".
        worlds: where it is run, as far as it applies to them.
        seeds: of the training runs.
        rows: of the recipes "table1", "starts" and "own-past", as `experiments.rows` writes them; of the other recipes
            of `BY_ROWS`, their own names (`OWN_ROWS`); all if not given.
        budget: of the recipe "table1": where a run ends, at "equal-steps" or at the longer of "both" budgets.
        data: UCF-101 in its official layout, for the world of that name.
        display: shows progress.
        signals: that ask to stop; none if not given.

    Returns:
        the folder of the results.

    Raises:
        StoppedError: one of the `signals` came; what was done is saved.
        MagiError: unknown names, missing data, no seeds, `out` holds another scale, or another call is at work on one
            of the worlds there.
    """
    if recipe not in (*RECIPES, *BY_ROWS, "all"):
        raise MagiError(f"unknown recipe {recipe!r}; expected one of {', '.join((*RECIPES, *BY_ROWS))}, all")
    check_asked(recipe, seeds, rows, worlds)
    out, display, signals = Path(out), display or Silent(), signals or StopSignals()
    chosen = find_worlds(scale, worlds)
    if meant := WORLDS.get(recipe):
        chosen = [world for world in chosen if world.name in meant]
    Artifact(out / "reproduce.json", "results").settle({"scale": scale})
    with ExitStack() as held:
        for world in chosen:  # not the whole folder: a call for each world is how several devices are used
            held.enter_context(alone(out / world.name))
            if world.game is not None and not (out / world.name / "train").is_dir():
                open_game(world.game, 1).close()  # a missing package is an error now, not after another world
        for name in RECIPES if recipe == "all" else (recipe,):
            for world in chosen:
                if recipe == "all" and world.name not in APPLIES.get(name, (world.name,)):
                    continue
                workplace = Workplace(world, out / world.name, None if data is None else Path(data), display, signals)
                result = out / "results" / f"{name}-{world.name}.json"
                keep = partial(write_result, result, world)
                if name in RECIPES:
                    keep(RECIPES[name](Measures(workplace), seeds))
                else:
                    options = {"budget": budget} if name == TABLE1 else {}
                    measures = Measures(workplace, fid_frames=FID_FRAMES)
                    keep(ROW_RECIPES[name](measures, seeds, rows, keep, **options))
    return out / "results"


def write_result(path: Path, world: World, figures: Scores) -> None:
    """A recipe's figures in a world, and where they were measured."""
    write_json(path, figures | {"world": world.name} | machine())


def machine() -> dict[str, object]:
    """Where the figures were measured."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()
    return {"machine": {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}}


def processor_name() -> str:
    """The CPU's own name where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
