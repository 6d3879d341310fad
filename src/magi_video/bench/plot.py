"""The benchmark as one picture: seconds by frame index, operations and time by part, shares of the peak."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from magi_video.bench.flops import Flops
from magi_video.bench.report import Report
from magi_video.files.atomic import replacing

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "0.55"  # Okabe and Ito
PARTS = ("spatial", "temporal", "head", "embedding")


def write_plot(report: Report, path: Path) -> None:
    """Write the picture as PNG; a panel whose part was not measured is left out.

    Raises:
        MagiError: the file cannot be written.
    """
    panels = [draw_parts, draw_shares]
    if report.generation:
        panels.insert(0, draw_frames)
    figure = Figure(figsize=(4.8 * len(panels), 3.6), dpi=110, layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, axis="y")
        axes.set_axisbelow(True)
        draw(report, axes)
    machine = report.machine
    where = f"{machine.cpu}, threads: {machine.threads}" if machine.device == "cpu" else machine.device
    figure.suptitle(f"{report.subject} ({report.kind}) on {where}", fontsize=11)
    with replacing(path) as part:
        FigureCanvasAgg(figure).print_png(part)


def draw_frames(report: Report, axes: Axes) -> None:
    """Seconds of every frame by its index, with the cache and, where measured, without."""
    generation = report.generation
    assert generation
    axes.plot(generation.seconds_per_frame, "o-", ms=3, color=BLUE, label="cache")
    if report.uncached:
        axes.plot(report.uncached.seconds_per_frame, "s-", ms=3, color=ORANGE, label="no cache")
        axes.legend(fontsize=8)
    axes.set_ylim(
        0, 1.08 * max(generation.seconds_per_frame + (report.uncached.seconds_per_frame if report.uncached else []))
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("frame index")
    axes.set_ylabel("seconds")
    sampling = generation.sampling
    axes.set_title(
        f"{sampling.mask_steps} mask × {sampling.denoise_steps} denoise steps, {generation.precision}, "
        f"batch {generation.batch}",
        fontsize=9,
    )


def draw_parts(report: Report, axes: Axes) -> None:
    """Share of the operations, and of the time where it was profiled, by part of the network."""
    bars: list[tuple[str, str, dict[str, float]]] = []
    for name, flops in (
        ("generation", report.generation and report.generation.flops),
        ("training", report.training and report.training.flops_forward + report.training.flops_backward),
    ):
        if flops:
            bars.append((f"{name}: FLOPs", BLUE if name == "generation" else GREEN, flops_by_part(flops)))
        if name in report.profile:
            colour = "#56b4e9" if name == "generation" else "#8fd3bd"
            bars.append((f"{name}: time", colour, report.profile[name].by_part))
    parts = [*PARTS, *sorted({part for *_, shares in bars for part in shares} - set(PARTS))]
    width = 0.8 / max(1, len(bars))
    for index, (label, colour, shares) in enumerate(bars):
        places = [place + (index - (len(bars) - 1) / 2) * width for place in range(len(parts))]
        axes.bar(places, [100 * shares.get(part, 0.0) for part in parts], width, color=colour, label=label)
    axes.set_xticks(range(len(parts)), parts, fontsize=8)
    axes.set_ylabel("share of the whole / %")
    axes.set_title("by part of the network", fontsize=9)
    axes.legend(fontsize=8)


def draw_shares(report: Report, axes: Axes) -> None:
    """Share of the measured peak of matrix products."""
    shares = {"generation": report.generation, "training": report.training}
    measured = {name: 100 * part.peak_share for name, part in shares.items() if part}
    bars = axes.bar(list(measured), list(measured.values()), 0.5, color=[BLUE, GREEN][: len(measured)])
    axes.bar_label(bars, fmt="%.1f %%", fontsize=9)
    axes.set_ylim(0, max(100.0, *measured.values()))
    axes.set_ylabel("share of the measured peak / %")
    part = report.generation or report.training
    precision = part.precision if part else "float32"
    peak = report.matmul_peak_gflops[precision]
    axes.set_title(f"peak: {peak:.0f} GFLOP/s in {precision}, 2048³", fontsize=9)


def flops_by_part(flops: Flops) -> dict[str, float]:
    """Shares of the operations: a layer's linear maps and its attention together."""
    amounts = {
        "spatial": flops.spatial_linear + flops.spatial_attention,
        "temporal": flops.temporal_linear + flops.temporal_attention,
        "head": flops.head,
        "embedding": flops.embedding,
    }
    return {part: amount / flops.total for part, amount in amounts.items()}
