"""`magi reproduce RECIPE`: the options are the arguments of `reproduce`."""

import sys
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from tyro.conf import Positional, arg

from magi_video.cli.parsing import OutFolder, Videos, arguments, parse
from magi_video.cli.progress import TaskDisplay
from magi_video.experiments.asked import check_asked
from magi_video.experiments.results import find_results
from magi_video.training.stopping import StopSignals

Recipe = Literal[
    "table1",
    "starts",
    "own-past",
    "drift",
    "rollout",
    "ablation",
    "sensitivity",
    "ctf-vs-mtf",
    "kv-cache",
    "sampling-steps",
    "all",
    "report",
]


@dataclass(frozen=True)
class Reproduce:
    """Measure the paper's claims: records or reads the data, trains, generates and scores; a stopped call goes on.

    table1: every paradigm of the paper's Table 1 on one backbone, at equal steps and at equal operations, with what
    it costs. starts: its models, after equal steps, from no frame, one and five. own-past: their last frame behind the
    true past and behind their own. drift: cures for drift in rollouts of up to 1,000 frames. rollout: 256 frames from
    models trained on 16, with rotary and with the paper's interpolated positions. ablation: complete and masked teacher
    forcing without dynamic intervals, noise, both; at four intervals and in rollouts of up to 256 frames.
    sensitivity: what FVD says of real, shuffled, frozen and noisy clips. ctf-vs-mtf: complete against masked teacher
    forcing at equal steps and at equal time. kv-cache: seconds and memory against frames, with and without the cache,
    every paradigm. sampling-steps: quality against seconds.
    all: the last four of these, on the worlds that each is meant for.
    report: tables, plots and reproduction.json from what the folder holds.
    """

    recipe: Annotated[Positional[Recipe], arg(metavar="RECIPE")]
    """table1, starts, own-past, drift, rollout, ablation, sensitivity, ctf-vs-mtf, kv-cache, sampling-steps, report, or
    all: those four before report."""
    out: OutFolder
    """Folder for data, models, samples, and results/*.json."""
    scale: Literal["smoke", "cpu", "gpu"] = "cpu"
    """"smoke": the whole recipe in minutes, nothing is learned; "cpu": each training run within 40 minutes on one core
    with AVX-512; "gpu": models eighty times as large, for an accelerator."""
    worlds: tuple[Literal["balls", "coinrun", "gameplay", "ucf101"], ...] = ("balls", "gameplay", "ucf101")
    """Where to measure; coinrun wants Procgen (docs/worlds.md). With the recipe "all" each recipe runs on those of them
    alone that it is meant for."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the training runs."""
    rows: tuple[str, ...] = ()
    """Of table1, starts and own-past: paradigms by name, with their own options as in raster:attention=flat, or without
    a guard as in masked-no-noise; all paradigms if not said. Of drift: none, noise, noisy-past, resampling, error-bank,
    canvas. Of rollout: rope, interpolate. Of ablation: complete and masked, and both with -no-interval, -no-noise and
    -no-both. What the folder holds of other rows stays in the table, but for starts and own-past."""
    budget: Literal["both", "equal-steps"] = "both"
    """Of table1: a run ends at the longer of both budgets, or at equal steps; a later call with both goes on."""
    data: Videos | None = None
    """UCF-101 in its official layout, for the world ucf101."""


def main(argv: list[str]) -> None:
    """Parse, run, print where the figures are."""
    settings = parse(Reproduce, "magi reproduce", argv)
    if settings.recipe == "report":
        find_results(settings.out, get_args(Recipe))  # refused before anything is loaded
        from magi_video.experiments.publish import publish

        print(f"report: {publish(settings.out)}")
        return
    check_asked(settings.recipe, settings.seeds, settings.rows or None, settings.worlds)  # before anything is loaded
    with TaskDisplay("loading PyTorch") as display, StopSignals() as signals:
        from magi_video.experiments.run import reproduce

        given = arguments(settings) | {"rows": settings.rows or None}
        results = reproduce(**given, display=display, signals=signals)
    print(f"results: {results} (tables and plots: magi reproduce report --out {settings.out})", file=sys.stderr)
