"""Every paradigm drawn from its own code, and what it costs, counted (docs/paradigms.md).

    python benchmarks/paradigms.py --out docs/images [--only NAME …]    the diagrams, paradigm_NAME.png
    python benchmarks/paradigms.py --costs                              the table, in Markdown

A diagram is made from one training step of a small model: four frames of four tokens (2×2), caught as the transformer
reads them. Left: the sequence, frame by frame, with the tokens that have a loss. Middle: which token may attend to
which in one block (space, then time). Right: what the outputs for the clip's tokens depend on in the end.

Costs are matrix products counted while they run: a clip of 16 frames of 64 tokens, width 64, two blocks, batch 1; a
frame is the one in the middle of 16, by the paradigm's own mask steps, else 16, and 20 denoise steps.
"""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from magi_video.bench.generation import Generator, count_frame
from magi_video.bench.subject import make_subject
from magi_video.experiments.costs import training_step_flops
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.sequence import MASKED, OBSERVATION, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip, MaskRatio, Paradigm
from magi_video.presets import change_paradigm, load_preset
from magi_video.recipe import Preset
from magi_video.sampling.sampling import Sampling
from magi_video.training.sizing import find_architecture, read_frames

FRAMES, SIDE = 4, 2
TOKENS = SIDE * SIDE
COMPLETE, NOISY, VISIBLE, HIDDEN, LOSS, SEEN = "#0072b2", "#e69f00", "#9ecae1", "#bdbdbd", "#d55e00", "#009e73"
BUILDS: list[tuple[str, dict[str, str]]] = [
    *((name, {}) for name in PARADIGMS),
    ("raster", {"attention": "flat"}),
]
DRAWN: dict[str, dict[str, Any]] = {"window": {"context": FRAMES - 1}, "joint": {"unconditional": 0}}
"""Options for the small clip of a diagram."""


def recipe(name: str, options: dict[str, str], **data: Any) -> Preset:
    """`tiny` for a paradigm, with other frames."""
    preset = load_preset("tiny")
    changes = change_paradigm(preset, name) | {"forcing_options": {key: str(value) for key, value in options.items()}}
    return dataclasses.replace(preset, data=dataclasses.replace(preset.data, **data), **changes)


def caught(name: str, options: dict[str, Any]) -> tuple[Paradigm, FrameSequence, Tensor]:
    """A paradigm, the sequence that the transformer reads in a training step, and the tokens with a loss `[T, N]`."""
    preset = recipe(name, options, height=SIDE * 4, width=SIDE * 4, num_frames=FRAMES)
    model = MagiVideoTransformer(find_architecture(preset))
    paradigm = PARADIGMS[name](MaskRatio(0.4, 5.0), diffusion_batch_mul=1, **options)
    sequences: list[FrameSequence] = []
    counted: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: sequences.append(given[0]))
    total_loss = model.diffusion_head.total_loss

    def spy(target: Tensor, z: Tensor, counted_BK: Tensor, *rest: Any) -> Any:
        counted.append(counted_BK)
        return total_loss(target, z, counted_BK, *rest)

    model.diffusion_head.total_loss = spy  # type: ignore[method-assign, assignment]
    clip = Clip(torch.randn(1, FRAMES, TOKENS, model.token_dim), torch.ones(1, dtype=torch.long))
    paradigm.loss(model, clip, torch.Generator().manual_seed(SEEDS.get(name, 0)))
    sequence = sequences[0]
    of_loss = counted[0].view(-1, TOKENS) if counted else torch.ones(FRAMES, TOKENS, dtype=torch.bool)
    return paradigm, sequence, of_loss


SEEDS = {"videomar": 4, "joint": 3}
"""Of draws that show what is typical."""


def attention(sequence: FrameSequence) -> Tensor:
    """`[S · N, S · N]`: which token may attend to which, in space or in time."""
    frames = sequence.tokens_BSND.shape[1]
    if sequence.flat_SNSN is not None:
        return sequence.flat_SNSN.reshape(frames * TOKENS, frames * TOKENS)
    assert sequence.mask_SS is not None
    in_space = sequence.spatial_SNN
    if in_space is None:
        in_space = torch.ones(frames, TOKENS, TOKENS, dtype=torch.bool)
    itself = torch.eye(frames, dtype=torch.bool)[:, None, :, None]
    same_place = torch.eye(TOKENS, dtype=torch.bool)[None, :, None]
    allowed = itself & in_space[:, :, None] | sequence.mask_SS[:, None, :, None] & same_place
    return allowed.reshape(frames * TOKENS, frames * TOKENS)


def are_noisy(sequence: FrameSequence) -> bool:
    """Whether frames to be learned are noised, and not masked."""
    return not bool(sequence.masked_BSN.any()) and bool((sequence.kind_S == MASKED).all())


def names_of(sequence: FrameSequence) -> list[str]:
    """A name for each frame of a sequence."""
    kinds = sequence.kind_S if sequence.kind_S.ndim == 1 else sequence.kind_S[0]
    letters = {OBSERVATION: "o", MASKED: "m"}
    if sequence.spatial_SNN is not None or sequence.flat_SNSN is not None:
        letters[MASKED] = "r"
    if are_noisy(sequence):
        letters[MASKED] = "n"
    return [
        f"{letters[int(kind)]}$_{int(position) + 1}$" for kind, position in zip(kinds, sequence.position_S, strict=True)
    ]


def draw_sequence(axes: Axes, sequence: FrameSequence, loss_PN: Tensor) -> None:
    """Frames from left to right, each a square of its tokens; a frame in raster order holds its tokens moved by one."""
    frames, names = sequence.tokens_BSND.shape[1], names_of(sequence)
    level_S = sequence.conditions[NOISE_LEVEL][0] if NOISE_LEVEL in sequence.conditions else torch.zeros(frames)
    in_order = sequence.spatial_SNN is not None or sequence.flat_SNSN is not None
    first = frames - len(loss_PN)
    for s in range(frames):
        column, row = s % FRAMES, s // FRAMES
        left, top = column * (SIDE + 1.0), -row * (SIDE + 2.6)
        complete = not bool(sequence.masked_BSN[0, s].any())
        for n in range(TOKENS):
            x, y = left + n % SIDE, top - n // SIDE
            hidden = bool(sequence.masked_BSN[0, s, n])
            colour = (
                NOISY
                if are_noisy(sequence)
                else HIDDEN
                if hidden
                else COMPLETE
                if complete and not (in_order and s >= first)
                else VISIBLE
            )
            axes.add_patch(Rectangle((x, y), 0.94, 0.94, facecolor=colour, edgecolor="white"))
            if in_order and (s >= first):
                before = n - 1 if n or not (sequence.flat_SNSN is not None and s) else TOKENS - 1
                axes.text(x + 0.47, y + 0.47, "start" if hidden else str(before + 1), ha="center", va="center", size=7)
            if s >= first and bool(loss_PN[s - first, n]):
                axes.plot(x + 0.8, y + 0.8, "o", color=LOSS, ms=4)
        noise = f"\nlevel {float(level_S[s]):.0f}" if float(level_S[s]) else ""
        axes.text(left + SIDE / 2, top + 1.08, names[s], ha="center", va="bottom", size=11)
        axes.text(
            left + SIDE / 2, top - SIDE + 0.86, noise, ha="center", va="top", size=7, linespacing=0.2, color="0.3"
        )
    axes.set_xlim(-0.3, FRAMES * (SIDE + 1))
    axes.set_ylim(2 - math.ceil(frames / FRAMES) * (SIDE + 2.6), 2.1)
    axes.set_aspect("equal")
    axes.axis("off")


def draw_matrix(axes: Axes, matrix: Tensor, rows: list[str], columns: list[str], title: str, colour: str) -> None:
    """A boolean matrix of tokens, ruled by frames."""
    axes.imshow(matrix.numpy(), cmap=ListedColormap(["0.96", colour]), vmin=0, vmax=1, interpolation="none")
    for names, ruled, ticks in (
        (rows, axes.axhline, axes.set_yticks),
        (columns, axes.axvline, axes.set_xticks),
    ):
        for line in range(len(names) + 1):
            ruled(line * TOKENS - 0.5, color="0.55", lw=0.8)
        ticks([n * TOKENS + (TOKENS - 1) / 2 for n in range(len(names))], names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9)
    axes.set_title(title, size=9, pad=8)


def draw(name: str, options: dict[str, str], out: Path) -> Path:
    """The diagram of a paradigm; returns its file."""
    paradigm, sequence, loss_PN = caught(name, {**DRAWN.get(name, {}), **options})
    masked_TN = sequence.masked_BSN[0, -FRAMES:]
    depends = paradigm.visible(masked_TN)[-len(loss_PN) :].reshape(-1, FRAMES * TOKENS)
    names, clip = names_of(sequence), [f"$x_{t + 1}$" for t in range(FRAMES)]
    figure, panels = plt.subplots(1, 3, figsize=(11.5, 3.9), width_ratios=(1.15, 1, 1), layout="constrained")
    draw_sequence(panels[0], sequence, loss_PN)
    draw_matrix(panels[1], attention(sequence), names, names, "may attend to (row → column), one block", COMPLETE)
    predicted = [f"$z_{t + 1}$" for t in range(FRAMES - len(loss_PN), FRAMES)]
    draw_matrix(panels[2], depends, predicted, clip, "output depends on token of the clip", SEEN)
    legend = [
        Patch(color=COMPLETE, label="complete frame"),
        Patch(color=VISIBLE, label="visible token"),
        Patch(color=NOISY, label="noisy token") if are_noisy(sequence) else Patch(color=HIDDEN, label="mask token"),
        Line2D([], [], marker="o", ls="", color=LOSS, label="has a loss"),
    ]
    figure.legend(handles=legend, loc="upper left", ncols=4, fontsize=8, frameon=False, bbox_to_anchor=(0.22, 1.0))
    title = name + "".join(f", {option} {value}" for option, value in options.items())
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    path = out / f"paradigm_{'_'.join([name, *options.values()])}.png".replace("-", "_")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def costs() -> None:
    """Print the table."""
    rows = []
    for name, options in BUILDS:
        preset = recipe(name, options, height=32, width=32, num_frames=16)
        preset = dataclasses.replace(preset, train=dataclasses.replace(preset.train, batch_size=1))
        own = PARADIGMS[name].steps
        mask_steps, denoise_steps = max(1, own.get("mask_steps", 16)), own.get("denoise_steps", 20)
        subject = make_subject(name, preset)
        sampling = Sampling(mask_steps=mask_steps, denoise_steps=denoise_steps).resolve(subject.outline.diffusion_head)
        generator = Generator(subject, subject.load(torch.float32), sampling, 1, torch.device("cpu"))
        with torch.no_grad():
            frame = count_frame(generator, 16) or 0
        read = read_frames(name, options, 16)
        label = name + "".join(f" {value}" for value in options.values())
        rows.append((label, read, training_step_flops(preset), frame))
    step, frame = next((row[2], row[3]) for row in rows if row[0] == "masked")
    print("| paradigm | frames read for a clip of 16 | a training step | a generated frame |")
    print("|---|---|---|---|")
    for label, read, of_step, of_frame in rows:
        print(
            f"| `{label}` | {read} | {of_step / 1e9:.2f} GFLOP, {of_step / step:.2f}× | "
            f"{of_frame / 1e9:.2f} GFLOP, {of_frame / frame:.2f}× |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=list(PARADIGMS))
    parser.add_argument("--costs", action="store_true")
    options = parser.parse_args()
    np.random.seed(0)
    torch.manual_seed(0)
    if options.out:
        for name, build in BUILDS:
            if name in options.only:
                print(draw(name, build, options.out))
    if options.costs:
        costs()


if __name__ == "__main__":
    main()
