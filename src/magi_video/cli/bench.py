"""`magi bench MODEL-or-PRESET`: the options are the fields of `Bench`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from magi_video.cli.generate import pick_device
from magi_video.cli.parsing import parse
from magi_video.cli.progress import TaskDisplay
from magi_video.errors import MagiError
from magi_video.fast.precision import Precision

if TYPE_CHECKING:
    from magi_video.bench.generation import Generation
    from magi_video.bench.report import Report
    from magi_video.bench.training import Training


@dataclass(frozen=True)
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
    parts: tuple[Literal["generate", "train", "uncached", "profile"], ...] = ("generate", "train")
    """What to measure: generate; train; uncached (generation without the cache beside it); profile (where time goes
    in what else is named)."""
    setting: Literal["exact", "balanced", "fast", "realtime"] = "exact"
    """Speed setting of generation; "exact" takes the subject's own steps."""
    mask_steps: int | None = None
    """Steps in which a frame's tokens appear; the setting's number if not said."""
    denoise_steps: int | None = None
    """Steps of the diffusion head; the setting's number if not said."""
    sampler: str | None = None
    """Of the head: ancestral, ddim, dpmsolver++ (epsilon head); euler, midpoint (flow head)."""
    first_step: int | None = None
    """Training step of the diffusion chain, 0…999, at which the sampler begins; 999 gives MAR's steps. Not said: the
    sampler's own (ancestral 990, ddim 950, dpmsolver++ 970)."""
    frames: int = 32
    """Latent frames to generate and time, after one given frame."""
    batch: int = 1
    """Videos made together."""
    train_batch: int | None = None
    """Clips of a training step; if not said the preset's own number, halved until memory and time allow."""
    train_steps: int = 4
    """Training steps to time."""
    uncached_frames: int = 16
    """Frames to generate without the cache; time grows with their square."""
    precision: Precision = "auto"
    """Of the weights in generation, of autocast in training; auto as the other commands choose it on this machine."""
    threads: int | None = None
    """CPU threads; if not said, one for a small model's generation or training, else all cores."""
    device: str = "auto"
    """auto, cpu or cuda."""


def main(argv: list[str]) -> None:
    """Parse, measure, write, tell."""
    settings = parse(Bench, "magi bench", argv)
    from magi_video.bench.plot import write_plot
    from magi_video.bench.report import Options, benchmark
    from magi_video.files.atomic import write_json

    fields = {name: getattr(settings, name) for name in Options.__dataclass_fields__ if name != "device"}
    options = Options(**fields, device=pick_device(settings.device))
    if options.device not in ("cpu", "cuda"):
        raise MagiError(f"device {options.device!r} cannot be measured: choose cpu or cuda")
    figures, plots = files(settings)
    for path in (*figures, *plots):
        path.parent.mkdir(parents=True, exist_ok=True)  # a mistake shall not show after minutes of work
    with TaskDisplay("building the model") as bars:
        report = benchmark(settings.subject, options, bars.show)
    for path in figures:
        write_json(path, report.to_dict())
    for path in plots:
        write_plot(report, path)
    if settings.json == "-":
        print(json.dumps(report.to_dict()))
    else:
        tell(report)


def files(settings: Bench) -> tuple[list[Path], list[Path]]:
    """The files that were asked for: with figures, with pictures."""
    figures = [Path(settings.json)] if settings.json and settings.json != "-" else []
    plots = [settings.plot] if settings.plot else []
    if settings.out:
        figures.append(settings.out / "bench.json")
        plots.append(settings.out / "bench.png")
    return figures, plots


def tell(report: "Report") -> None:
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
    """What is told of each part: title → name → value."""
    told = {f"{report.subject} ({report.kind})": about(report)}
    if report.generation:
        told["generation"] = about_generation(report.generation)
    if report.uncached:
        lines = {"with the cache": report.uncached.line_cached, "without": report.uncached.line_uncached}
        told[f"straight line through the first {report.uncached.frames} frames"] = {
            name: f"{line.seconds_per_frame:.4g} s a frame, R² {line.r2:.4f}" for name, line in lines.items()
        }
    if report.training:
        told[f"training, {report.training.forcing} teacher forcing"] = about_training(report.training)
    for name, profile in report.profile.items():
        told[f"where the time of {name} goes"] = {
            by: ", ".join(f"{what} {share:.0%}" for what, share in shares.items())
            for by, shares in (("by part", profile.by_part), ("by purpose", profile.by_purpose))
        }
    return told


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
    begins = "" if one.first_step is None else f" from {one.first_step}"
    rows = {
        "a frame": f"{one.setting}: {one.mask_steps} mask × {one.denoise_steps} denoise steps, {one.sampler}{begins}, "
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
