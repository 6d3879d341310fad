"""Draws the diagrams of docs/idea.md: python examples/diagrams.py, which writes docs/images/idea_*.svg (and, with
--png, the same as PNG to look at). The masks are those that training uses, not copies of them."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from magi_video.models.sequence import causal_mask
from magi_video.paradigms.complete import complete_mask
from magi_video.paradigms.masking import unmasking_schedule

IMAGES = Path(__file__).parents[1] / "docs" / "images"
INK, GREY, PALE = "#222831", "#8a93a0", "#eef0f3"
COMPLETE, MASKED, LEARNT = "#2f6db3", "#e2902c", "#3f9b6c"
FRAMES, STEPS, SIDE = 4, 4, 4
SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"


def main() -> None:
    """Draw all."""
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 11, "text.color": INK, "svg.fonttype": "path"})
    plt.rcParams["svg.hashsalt"] = "magi-video"  # equal drawings are equal files
    save(draw_masks(), "idea_masks")
    save(draw_frame(), "idea_frame")


def save(figure: Figure, name: str) -> None:
    """Write a drawing on white, which is legible on light and dark pages."""
    figure.savefig(IMAGES / f"{name}.svg", facecolor="white", metadata={"Date": None}, bbox_inches="tight")
    if "--png" in sys.argv:
        figure.savefig(f"{name}.png", facecolor="white", dpi=100, bbox_inches="tight")


def name_frames(letter: str) -> list[str]:
    """o₁ … o₄."""
    return [f"{letter}{SUBSCRIPTS[index + 1]}" for index in range(FRAMES)]


def draw_masks() -> Figure:
    """Who sees whom in training: complete beside masked teacher forcing."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 6.2), width_ratios=[2, 1.25])
    names = name_frames("o") + name_frames("m")
    draw_mask(left, complete_mask(FRAMES).numpy(), names, [COMPLETE] * FRAMES + [MASKED] * FRAMES)
    left.set_title("Complete teacher forcing\n[o₁ … o₄, m₁ … m₄]", pad=44, fontsize=13)
    left.plot([FRAMES, FRAMES], [0, 2 * FRAMES], color=INK, lw=1.6)
    left.plot([0, 2 * FRAMES], [FRAMES, FRAMES], color=INK, lw=1.6)
    for index in range(FRAMES):  # the place that complete teacher forcing keeps dark
        left.text(index + 0.5, FRAMES + index + 0.5, "✕", ha="center", va="center", color="#b3261e", fontsize=14)
    draw_mask(right, causal_mask(FRAMES).numpy(), name_frames("m"), [MASKED] * FRAMES)
    right.set_title("Masked teacher forcing\n[m₁ … m₄]", pad=44, fontsize=13)
    left.set_anchor("N")
    right.set_anchor("N")
    keys = [
        (COMPLETE, "sees a complete frame (noise added in training)"),
        (MASKED, "sees a masked frame: 70–100 % of its tokens hidden"),
        (PALE, "sees nothing"),
    ]
    for place, (colour, text) in enumerate(keys):
        y = 0.155 - 0.045 * place
        figure.add_artist(Rectangle((0.60, y), 0.02, 0.03, facecolor=colour, edgecolor=GREY, lw=0.6))
        figure.text(0.63, y + 0.004, text, fontsize=10.5)
    figure.text(0.60, 0.2, "✕  its own answer: never seen", fontsize=10.5, color="#b3261e")
    figure.text(0.60, 0.245, "Row: the frame that reads.  Column: what it may read.", fontsize=10.5)
    return figure


def draw_mask(axes: Axes, mask: np.ndarray, names: list[str], colours: list[str]) -> None:
    """One matrix: row sees column."""
    size = len(names)
    for row in range(size):
        for column in range(size):
            colour = colours[column] if mask[row, column] else PALE
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white", lw=2))
    for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
        axes.text(index + 0.5, -0.25, name, ha="center", va="bottom", color=colour, fontsize=14, fontweight="bold")
        axes.text(-0.2, index + 0.5, name, ha="right", va="center", color=colour, fontsize=14, fontweight="bold")
    axes.set(xlim=(-0.6, size), ylim=(size, -0.2), aspect="equal")
    axes.axis("off")


def draw_frame() -> Figure:
    """How one frame is generated: cache, mask steps, head, the pass that completes it."""
    figure, axes = plt.subplots(figsize=(11, 6.3))
    axes.set(xlim=(0, 110), ylim=(0, 63), aspect="equal")
    axes.axis("off")
    title(axes, 1, 60, "1  The past: finished frames, kept as keys and values")
    for index, name in enumerate(["o₁", "o₂", "o₃"]):
        grid(axes, 3 + 12 * index, 46, 9, np.full(SIDE * SIDE, True), COMPLETE)
        axes.text(7.5 + 12 * index, 43, name, ha="center", fontsize=13, color=COMPLETE, fontweight="bold")
    box(axes, 42, 46.5, 17, 8, "KV cache", COMPLETE)
    arrow(axes, (36.5, 50.5), (41.5, 50.5))

    title(axes, 1, 36.5, "2  The new frame: its tokens appear in K mask steps, in random order")
    counts = unmasking_schedule(SIDE * SIDE, STEPS)
    order = np.random.default_rng(3).permutation(SIDE * SIDE)
    known = np.zeros(SIDE * SIDE, bool)
    grid(axes, 3, 22, 10, known, LEARNT)
    axes.text(8, 18.6, "all hidden", ha="center", fontsize=10.5)
    done = 0
    for step, count in enumerate(counts):
        done += count
        fresh = np.zeros_like(known)
        fresh[order[done - count : done]] = True
        known = known | fresh
        x = 3 + 16.5 * (step + 1)
        arrow(axes, (x - 6, 27), (x - 0.6, 27))
        grid(axes, x, 22, 10, known, LEARNT, fresh)
        axes.text(x + 5, 18.6, f"step {step + 1}: {count} more", ha="center", fontsize=10.5)

    for y, colour, text in ((23.6, MASKED, "written in this step"), (20.0, LEARNT, "written before")):
        axes.add_patch(Rectangle((84, y), 2, 2, facecolor=colour))
        axes.text(87, y + 1, text, va="center", fontsize=10.5)

    title(axes, 1, 12.5, "In each step")
    box(axes, 3, 2, 25, 7.5, "transformer reads the\nframe, and the cache", GREY)
    box(axes, 33, 2, 23, 7.5, "z: a vector for each\ntoken that is due", GREY)
    box(axes, 61, 2, 35, 7.5, "diffusion head: S denoise steps\nfrom noise to those tokens", MASKED)
    arrow(axes, (28.5, 5.7), (32.5, 5.7))
    arrow(axes, (56.5, 5.7), (60.5, 5.7))
    arrow(axes, (96.5, 5.7), (100, 5.7))
    axes.text(100.6, 5.7, "written\nin place", va="center", fontsize=10.5)

    # The past is read in every step; the finished frame joins it.
    arrow(axes, (50.5, 46), (50.5, 38.8), COMPLETE)
    axes.text(52, 42.2, "read in every step", color=COMPLETE, fontsize=10.5, va="center")
    arrow(axes, (80, 29), (95, 46.5), COMPLETE, curve="arc3,rad=0.35")
    box(axes, 75, 47, 33, 7.5, "3  one more pass, as an\nobservation without noise: o₄", COMPLETE)
    arrow(axes, (74.5, 50.7), (59.7, 50.7), COMPLETE)
    axes.text(67, 52, "appended", ha="center", color=COMPLETE, fontsize=10.5)
    return figure


def title(axes: Axes, x: float, y: float, text: str) -> None:
    """A heading."""
    axes.text(x, y, text, fontsize=12.5, fontweight="bold", va="center")


def grid(
    axes: Axes, x: float, y: float, side: float, known: np.ndarray, colour: str, fresh: np.ndarray | None = None
) -> None:
    """A frame of tokens: known ones in colour, those of this step framed, hidden ones pale."""
    cell = side / SIDE
    for index, there in enumerate(known):
        row, column = divmod(index, SIDE)
        corner = (x + column * cell, y + side - (row + 1) * cell)
        new = fresh is not None and fresh[index]
        fill = MASKED if new else colour if there else PALE
        axes.add_patch(Rectangle(corner, cell, cell, facecolor=fill, edgecolor="white" if there else "#c9ced6", lw=1))


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    """A named box."""
    shape = FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=1.2", fc="white", ec=colour, lw=1.8)
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=10.5)


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, curve: str = "arc3,rad=0"
) -> None:
    """An arrow between two points."""
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=colour, lw=1.5, connectionstyle=curve)
    )


if __name__ == "__main__":
    main()
