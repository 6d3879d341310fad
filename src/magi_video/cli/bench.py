"""`magi bench MODEL-or-PRESET`."""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from magi_video.bench.options import BenchOptions, check_subject
from magi_video.bench.tables import report_tables
from magi_video.cli.output import print_tables
from magi_video.cli.parsing import Check, Grouped, OutFile, OutFolder, parse
from magi_video.cli.progress import TaskDisplay
from magi_video.files.folders import check_file
from magi_video.settings import settings


@settings
class Bench:
    """Measure speed: seconds per frame, training clips/s, share of the machine's measured matmul peak, memory.

    A preset is measured with random weights; latents are random always, so no data set is needed. What runs first is
    not counted: one frame of generation, one step of training. Ratios within a run and shares of the peak travel from
    machine to machine; seconds do not.
    """

    subject: Annotated[Positional[str], arg(metavar="MODEL-or-PRESET"), Check(check_subject)]
    """Model: a folder, a hub id, or a shipped name ("doom", "atari", "coinrun"). Preset: a name or a JSON file; random
    weights."""
    out: OutFolder | None = None
    """Folder for bench.json and bench.png."""
    json: Annotated[str | None, arg(name="json", metavar="FILE"), Check(lambda path: check_file(Path(path)))] = None
    """File for the figures; - prints them instead of the table."""
    plot: OutFile | None = None
    """File for the picture, PNG."""
    options: Grouped[BenchOptions] = BenchOptions()
    """What is measured, and how."""


def main(argv: list[str]) -> None:
    """Parse, measure, write, print."""
    asked = parse(Bench, "magi bench", argv)
    from magi_video.bench.plot import write_plot
    from magi_video.bench.report import benchmark
    from magi_video.files.atomic import write_json
    from magi_video.files.folders import ensure_folder

    figures, plots = files(asked)
    for path in (*figures, *plots):
        ensure_folder(path.parent)  # a mistake shall not show after minutes of work
    with TaskDisplay("building the model") as bars:
        report = benchmark(asked.subject, asked.options, bars.show)
    for path in figures:
        write_json(path, report.to_dict())
    for path in plots:
        write_plot(report, path)
    if asked.json == "-":
        print(json.dumps(report.to_dict()))
    else:
        print_tables(report_tables(report))


def files(asked: Bench) -> tuple[list[Path], list[Path]]:
    """The files that were asked for: with figures, with pictures."""
    figures = [Path(asked.json)] if asked.json and asked.json != "-" else []
    plots = [asked.plot] if asked.plot else []
    if asked.out:
        figures.append(asked.out / "bench.json")
        plots.append(asked.out / "bench.png")
    return figures, plots
