"""`magi bench MODEL-or-PRESET`: the options are the fields of `Bench`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from magi_video.bench.options import BenchOptions
from magi_video.cli.parsing import parse
from magi_video.cli.progress import TaskDisplay
from magi_video.settings import settings

if TYPE_CHECKING:
    from magi_video.bench.generation import Generation
    from magi_video.bench.report import Report
    from magi_video.bench.training import Training


@settings
class Bench:
    """Measure speed: seconds per frame, training clips/s, share of the machine's measured matmul peak, memory.

    A preset is measured with random weights; latents are random always, so no data set is needed. What runs first is
    not counted: one frame of generation, one step of training. Ratios within a run and shares of the peak travel from
    machine to machine; seconds do not.
    """

    subject: Annotated[Positional[str], arg(metavar="MODEL-or-PRESET")]
    """Model: a folder, a hub id, or a shipped name ("doom", "atari"). Preset: a name or a JSON file; random weights."""
    out: Path | None = None
    """Folder for bench.json and bench.png."""
    json: Annotated[str | None, arg(name="json", metavar="FILE")] = None
    """File for the figures; - prints them instead of the table."""
    plot: Path | None = None
    """File for the picture, PNG."""
    options: OmitArgPrefixes[BenchOptions] = BenchOptions()
    """What is measured, and how."""


def main(argv: list[str]) -> None:
    """Parse, measure, write, print."""
    asked = parse(Bench, "magi bench", argv)
    from magi_video.bench.plot import write_plot
    from magi_video.bench.report import benchmark
    from magi_video.files.atomic import write_json

    figures, plots = files(asked)
    for path in (*figures, *plots):
        path.parent.mkdir(parents=True, exist_ok=True)  # a mistake shall not show after minutes of work
    with TaskDisplay("building the model") as bars:
        report = benchmark(asked.subject, asked.options, bars.show)
    for path in figures:
        write_json(path, report.to_dict())
    for path in plots:
        write_plot(report, path)
    if asked.json == "-":
        print(json.dumps(report.to_dict()))
    else:
        print_result(report)


def files(asked: Bench) -> tuple[list[Path], list[Path]]:
    """The files that were asked for: with figures, with pictures."""
    figures = [Path(asked.json)] if asked.json and asked.json != "-" else []
    plots = [asked.plot] if asked.plot else []
    if asked.out:
        figures.append(asked.out / "bench.json")
        plots.append(asked.out / "bench.png")
    return figures, plots


def print_result(report: "Report") -> None:
    """Print the figures as tables, one a part."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, rows in sections(report).items():
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
        for name, value in rows.items():
            table.add_row(name, value)
        console.print(table)


def sections(report: "Report") -> dict[str, dict[str, str]]:
    """The tables to print, one a part: title → name → value."""
    tables = {f"{report.subject} ({report.kind})": about(report)}
    if report.generation:
        tables["generation"] = about_generation(report.generation)
    if report.uncached:
        lines = {"with the cache": report.uncached.line_cached, "without": report.uncached.line_uncached}
        tables[f"straight line through the first {report.uncached.frames} frames"] = {
            name: f"{line.seconds_per_frame:.4g} s a frame, R² {line.r2:.4f}" for name, line in lines.items()
        }
    if report.training:
        tables[f"training, {report.training.forcing} teacher forcing"] = about_training(report.training)
    for name, profile in report.profile.items():
        tables[f"where the time of {name} goes"] = {
            by: ", ".join(f"{what} {share:.0%}" for what, share in shares.items())
            for by, shares in (("by part", profile.by_part), ("by purpose", profile.by_purpose))
        }
    return tables


def about(report: "Report") -> dict[str, str]:
    """Machine and model."""
    machine = report.machine
    cpu = f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads"
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in report.matmul_peak_gflops.items())
    return {
        "machine": f"{cpu if machine.device == 'cpu' else machine.device}, {machine.capability}",
        "matmul peak, 2048³": f"{peaks} GFLOP/s",
        "parameters": ", ".join(f"{part} {count / 1e6:.1f} M" for part, count in report.parameters.items()),
        "peak memory": f"{report.peak_memory_bytes / 2**30:.2f} GiB",
    }


def about_generation(one: "Generation") -> dict[str, str]:
    """Figures of generation."""
    how = one.sampling
    begins = "" if how.first_step is None else f" from {how.first_step}"
    rows = {
        "a frame": f"{how.speed}: {how.mask_steps} mask × {how.denoise_steps} denoise steps, {how.sampler}{begins}, "
        f"batch {one.batch}, {one.precision}, {one.threads} thread(s)",
        "seconds a frame": f"{one.median_seconds:.4g} (median of {one.frames}; warm-up: {one.warm_up})",
        "frames/s": f"{one.frames_per_second:.4g}",
        "first over last frames": f"{one.first_over_last:.2f}",
        "FLOPs a frame": f"{amount(one.flops_total)}, executed {amount(one.flops_executed)}",
        "share of the peak": f"{one.peak_share:.1%}",
    }
    if one.decode_seconds is not None and one.encode_seconds is not None:
        rows["decoder, JPEG"] = f"{one.decode_seconds:.3g} s, {one.encode_seconds:.2g} s a frame"
        rows["end-to-end frames/s"] = f"{one.end_to_end_frames_per_second:.4g}"
    return rows


def about_training(one: "Training") -> dict[str, str]:
    """Figures of training."""
    return {
        "a step": f"{one.batch} clip(s) of {one.clip_frames} frames (the recipe's {one.recipe_batch}), "
        f"{one.precision}, {one.threads} thread(s)",
        "seconds a step": f"{one.median_seconds:.4g} (median of {len(one.seconds_per_step)}; warm-up: {one.warm_up})",
        "clips/s": f"{one.clips_per_second:.4g}",
        "FLOPs a step": f"{amount(one.flops_total)}, executed {amount(one.flops_executed)}",
        "share of the peak": f"{one.peak_share:.1%}",
    }


def amount(flops: int | None) -> str:
    """Operations in a unit that fits."""
    if flops is None:
        return "not countable"
    return f"{flops / 1e12:.3g} TFLOP" if flops >= 1e11 else f"{flops / 1e9:.3g} GFLOP"
