"""The plots of the reproduction's report."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Figures = dict[str, Any]
COLOURS = {"ctf": "#0072b2", "mtf_equal_steps": "#e69f00", "mtf_equal_time": "#d55e00"}  # Okabe and Ito
LABELS = {"ctf": "CTF", "mtf_equal_steps": "MTF, equal steps", "mtf_equal_time": "MTF, equal time"}
CYCLE, STYLES = 10, ("-", ":", "-.")
"""Colours of Matplotlib's cycle, and what tells the curves of one colour apart; "--" is for references."""
REFERENCES = {"floor": "real (floor)", "copy_last": "copy last frame", "shuffled": "shuffled"}


def write(summary: Figures, folder: Path) -> None:
    """Write a PNG for every claim that `summary` holds."""
    if "ctf_vs_mtf" in summary:
        for world, figures in summary["ctf_vs_mtf"]["worlds"].items():
            save(compare(figures), folder / f"ctf_vs_mtf_{world}.png")
    if "kv_cache" in summary:
        save(time_curves(summary["kv_cache"]), folder / "kv_cache.png")
    if "sampling_steps" in summary:
        save(front(summary["sampling_steps"]), folder / "sampling_steps.png")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    FigureCanvasAgg(figure).print_png(path)


def new_figure(panels: int) -> tuple[Figure, list[Axes]]:
    """A row of panels."""
    figure = Figure(figsize=(4.6 * panels, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, list(axes)


def line_of(place: int) -> dict[str, Any]:
    """Colour and style of the curve at a place of many: no two of the first thirty look alike."""
    return {"color": f"C{place % CYCLE}", "linestyle": STYLES[place // CYCLE % len(STYLES)]}


def legend_beside(figure: Figure, axis: Axes) -> None:
    """The legend of one panel, right of all of them: many curves leave no room inside."""
    figure.set_figwidth(figure.get_figwidth() + 1.7)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=8)


def compare(figures: Figures) -> Figure:
    """FVD of every seed with the references, and the curves over the frame index."""
    curves = [
        (key, label)
        for key, label in (
            ("psnr_per_frame", "PSNR to the truth (dB, higher is better)"),
            ("lpips_per_frame", "LPIPS to the truth (lower is better)"),
            ("fid_per_frame", "FID of the frame (lower is better)"),
        )
        if key in figures["other"]["ctf"]
    ]
    figure, axes = new_figure(1 + len(curves))
    for place, name in enumerate(COLOURS):
        values = figures["fvd_per_seed"][name]
        axes[0].bar(place, sum(values) / len(values), color=COLOURS[name], alpha=0.35, width=0.6)
        axes[0].scatter([place] * len(values), values, color=COLOURS[name], zorder=3)
    for style, (key, label) in zip((":", "--", "-."), REFERENCES.items(), strict=True):
        if figures.get(key) is not None:
            axes[0].axhline(figures[key], color="0.35", linestyle=style, linewidth=1, label=label)
    axes[0].set_xticks(range(3), [LABELS[name].replace(", ", ",\n") for name in COLOURS])
    axes[0].set_ylabel("FVD (points: seeds)")
    axes[0].legend(fontsize=8)
    axes[0].set_title(figures["world"])
    for axis, (key, label) in zip(axes[1:], curves, strict=True):
        for name, colour in COLOURS.items():
            values = figures["other"][name][key]
            frames = figures["other"][name].get("fid_frames") if key == "fid_per_frame" else None
            first = figures["given"]
            axis.plot(frames or range(first, first + len(values)), values, "o-", ms=3, color=colour, label=LABELS[name])
        axis.set_xlabel("frame index")
        axis.set_ylabel(label, fontsize=8)
        axis.legend(fontsize=8)
    return figure


def time_curves(figures: Figures) -> Figure:
    """Seconds against frames: complete teacher forcing with and without its cache, and every row as it generates."""
    figure, (own, all_rows) = new_figure(2)
    own.plot(figures["frames"], figures["seconds_cached"], "o-", color="#0072b2", label="KV cache")
    own.plot(figures["frames"], figures["seconds_uncached"], "s-", color="#d55e00", label="no cache")
    own.set_title(f"complete; line through the cached curve: R² = {figures['r2']:.4f}", fontsize=9)
    for name, one in figures["rows"].items():
        all_rows.plot(one["frames"], one["seconds_cached"], "o-" if one["cached"] else "s--", ms=3, label=name)
    all_rows.set_yscale("log")
    all_rows.set_title("every row, dashed without a cache", fontsize=9)
    for axis in (own, all_rows):
        axis.set_xlabel("frames")
        axis.set_ylabel("seconds")
        axis.legend(fontsize=7)
    return figure


def front(figures: Figures) -> Figure:
    """Quality against seconds a frame."""
    figure, axes = new_figure(2)
    for axis, key, text in zip(axes, ("fvd", "lpips"), ("FVD", "LPIPS to the truth"), strict=True):
        for entry in figures["grid"]:
            axis.scatter(entry["seconds_per_frame"], entry[key], color="#0072b2")
            axis.annotate(
                f"{entry['mask_steps']}×{entry['denoise_steps']}",
                (entry["seconds_per_frame"], entry[key]),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=7,
            )
        axis.set_xlim(left=0)
        axis.set_xlabel("seconds a frame (mask × denoise steps)")
        axis.set_ylabel(text)
    return figure
