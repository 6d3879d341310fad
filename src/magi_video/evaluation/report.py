"""A result as one page to read, `report.html`: figures, warnings, curves, clips to look at, and the whole protocol.

The page holds all it needs, pictures as data: addresses, and runs no script. What is not in the result is not on the
page. All text that comes from outside goes through `html.escape`.
"""

from __future__ import annotations

import io
import re
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from magi_video.files.atomic import write_bytes
from magi_video.video.image import fit_frames
from magi_video.video.video import enlarge

FRAMES_SHOWN = 16
FRAMES_PLAYED = 128
SIDE = (64, 128)
"""Frames are enlarged to the first (short side) and shrunk to the second (long side), pixels."""
PLAY_MILLISECONDS = 125

INK, LINE = "#010203", "#040506"  # stand for the page's colours, which change from light to dark
PAGE_COLOURS = {INK: "currentColor", LINE: "var(--line)"}
SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "magi-video",  # the same ids, and so the same page, every time
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}

# Curves over the frames: name in the result, heading, vertical axis, whether that axis begins at zero.
CURVES = (
    ("fid", "FID of each frame (lower is better)", "FID", True),
    ("psnr", "PSNR to the true frame (higher is better)", "PSNR / dB", False),
    ("ssim", "SSIM to the true frame (higher is better)", "SSIM", False),
    ("lpips", "LPIPS to the true frame (lower is better)", "LPIPS", True),
    ("delta_psnr", "ΔPSNR under the recorded actions over random ones (higher is better)", "ΔPSNR / dB", False),
    ("motion", "Motion into each frame (as the real clips' is best)", "mean |change| / 8-bit levels", True),
)
# Figures at the top: where they are in the result, heading, note.
CARDS = (
    (("fid",), "FID", "lower is better"),
    (("paired", "psnr"), "PSNR / dB", "higher is better"),
    (("paired", "ssim"), "SSIM", "higher is better"),
    (("paired", "lpips"), "LPIPS", "lower is better"),
    (("controllability", "delta_psnr"), "ΔPSNR / dB", "recorded over random actions, frame 4; higher is better"),
    (("motion", "speed_ratio"), "Motion", "times the real clips'; 1 is best"),
)
SHOWN_ABOVE = (
    "fvd",
    "fvd_interval",
    "fid",
    "paired",
    "num_real",
    "num_fake",
    "reduced",
    "warnings",
    "per_frame",
    "clips",
    "baselines",
)
TABLES = ("protocol", "detectors", "model", "generation", "motion", "command", "fvd_over_length")


@dataclass(frozen=True, eq=False)
class Strip:
    """A generated clip to look at, beside its true continuation where there is one.

    Attributes:
        title: what the clip is.
        real_THWC: true frames, uint8; None where there are none.
        fake_THWC: the clip, uint8 [T, H, W, 3].
        given: frames at its beginning that the model was given; the protocol's number if None.
    """

    title: str
    real_THWC: np.ndarray | None
    fake_THWC: np.ndarray
    given: int | None = None


def write_report(out: Path, metrics: Mapping[str, Any], strips: Sequence[Strip]) -> None:
    """Write `report.html` into the folder `out`.

    Args:
        out: folder; made if it is not there.
        metrics: what `metrics.json` holds; each of its figures may be absent. `command`, a string or its words, is
            shown as the line to repeat the evaluation with.
        strips: clips to look at.

    Raises:
        MagiError: the file cannot be written.
    """
    title = _title(metrics)
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    page = template.substitute(title=escape(title), body="\n".join(_sections(title, metrics, strips)))
    # A file name that is no text in this system's encoding must not keep the page from being written.
    write_bytes(out / "report.html", page.encode("utf-8", "xmlcharrefreplace"))


def _title(metrics: Mapping[str, Any]) -> str:
    model = metrics.get("model")
    name = model.get("name") if isinstance(model, Mapping) else model
    return f"Evaluation of {name}" if name else "Evaluation of generated video"


def _sections(title: str, metrics: Mapping[str, Any], strips: Sequence[Strip]) -> list[str]:
    protocol = metrics.get("protocol") or {}
    parts = [f"<h1>{escape(title)}</h1>"]
    if "name" in protocol:
        parts.append(f"<p>Protocol {escape(str(protocol['name']))}: {escape(str(protocol.get('source', '')))}</p>")
    if metrics.get("warnings"):
        parts.append(f'<section class="warnings"><h2>Warnings</h2>{_value(list(metrics["warnings"]))}</section>')
    parts.append(_cards(metrics))
    parts += _baselines(metrics)
    if curves := _curves(metrics):
        parts.append(f'<h2>Curves</h2><div class="plots">{"".join(curves)}</div>{_numbers(metrics)}')
    if strips:
        parts.append("<h2>Clips</h2>")
        parts += [_strip(strip, int(protocol.get("given") or 0)) for strip in strips]
    command = metrics.get("command")
    if command:
        line = command if isinstance(command, str) else shlex.join(map(str, command))
        parts.append(f"<h2>To repeat</h2><pre><code>{escape(line)}</code></pre>")
    rest = {name: value for name, value in metrics.items() if name not in SHOWN_ABOVE + TABLES}
    tables = {
        "Protocol": protocol,
        "Detectors (SHA-256 of the weights)": metrics.get("detectors"),
        "Model": None if isinstance(metrics.get("model"), str) else metrics.get("model"),
        "Generation": metrics.get("generation"),
        "Motion (8-bit levels; ratio: generated over real)": metrics.get("motion"),
        "Record": rest,
    }
    parts += [f"<h2>{heading}</h2>{_table(fields)}" for heading, fields in tables.items() if fields]
    return parts


def _cards(metrics: Mapping[str, Any]) -> str:
    cards = []
    if metrics.get("fvd") is not None:
        note = "lower is better"
        if metrics.get("fvd_interval"):
            low, high = map(_short, metrics["fvd_interval"])
            note = f"95 % interval {low} to {high}; {note}"
        cards.append(("FVD", _short(metrics["fvd"]), note))
    for path, heading, note in CARDS:
        value: Any = metrics
        for name in path:
            value = (value or {}).get(name)
        if value is not None:
            cards.append((heading, _short(value), note))
    if "num_real" in metrics and "num_fake" in metrics:
        cards.append(("Clips", str(metrics["num_fake"]), f"against {metrics['num_real']} real ones"))
    shown = [
        f'<div class="card"><span>{escape(heading)}</span><b>{escape(value)}</b><span>{escape(note)}</span></div>'
        for heading, value, note in cards
    ]
    return f'<section class="cards">{"".join(shown)}</section>' if shown else ""


BASELINES = {
    "real": "other real clips (floor)",
    "codec": "true clips through the codec",
    "still": "first frame held",
    "copy_last": "last given frame held",
    "shuffled": "true clips, frames shuffled",
}


def _baselines(metrics: Mapping[str, Any]) -> list[str]:
    """The rows that need no model, and the model among them."""
    if not metrics.get("baselines"):
        return []
    rows = {"this model": metrics} | {BASELINES.get(name, name): one for name, one in metrics["baselines"].items()}
    columns: list[tuple[str, tuple[str, ...]]] = [("FVD", ("fvd",)), *((heading, path) for path, heading, _ in CARDS)]
    cells = []
    for label, one in rows.items():
        row = [f"<th>{escape(label)}</th>"]
        for _, path in columns:
            value: Any = one
            for name in path:
                value = (value or {}).get(name)
            row.append(f"<td>{'' if value is None else escape(_short(value))}</td>")
        cells.append(f"<tr>{''.join(row)}</tr>")
    head = "<th></th>" + "".join(f"<th>{escape(heading)}</th>" for heading, _ in columns)
    table = f'<div class="scroll"><table class="numbers"><tr>{head}</tr>{"".join(cells)}</table></div>'
    return [f"<h2>Beside rows that need no model</h2>{table}"]


def _short(value: float) -> str:
    """A figure to about four digits."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _curves(metrics: Mapping[str, Any]) -> list[str]:
    """Plots as SVG elements."""
    by_frame, by_length = metrics.get("per_frame") or {}, metrics.get("fvd_over_length") or {}
    plots = []
    if by_length:
        curves: dict[str, Any] = {"": (by_length["frames"], by_length["fvd"])}
        plots.append(_plot("FVD of the clips' first frames (lower is better)", "frames", "FVD", True, curves))
    for name, heading, axis, from_zero in CURVES:
        curves = {}
        for key, label in ((name, "generated"), (f"{name}_real", "real")):
            points = list(zip(by_frame.get("index", []), by_frame.get(key, []), strict=False))
            if name == "motion":
                points = [point for point in points if point[0] > 0]  # nothing moves into frame 0
            if points:
                curves[label] = tuple(zip(*points, strict=True))
        if curves:
            plots.append(_plot(heading, "frame index", axis, from_zero, curves))
    return plots


def _plot(title: str, x_axis: str, y_axis: str, from_zero: bool, curves: Mapping[str, Any]) -> str:
    """An SVG element in the page's own colours; curves differ by dashes too. Labels are ours, not outside's."""
    with matplotlib.rc_context(SVG_STYLE):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = figure.subplots()
        for label, (x, y) in curves.items():
            look: dict[str, Any] = {"color": INK, "ls": "--"} if label == "real" else {"color": LINE, "ls": "-"}
            axes.plot(x, y, label=label, marker="o" if len(x) <= 32 else None, markersize=3, linewidth=1.5, **look)
        axes.set_title(title, fontsize=9.5)
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=INK, alpha=0.15, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if from_zero:
            axes.set_ylim(bottom=0)
        if len(curves) > 1:
            axes.legend(frameon=False)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    view = re.search(r'viewBox="[^"]*"', svg)
    drawing = svg[svg.index("</defs>", svg.index("</metadata>")) + len("</defs>") :]  # without prologue and addresses
    drawing = re.sub(r' id="\w+_\d+"', "", drawing)  # matplotlib's names, the same in every plot
    for ours, pages in PAGE_COLOURS.items():
        drawing = drawing.replace(ours, pages)
    return f'<svg role="img" aria-label="{escape(title)}" {view[0] if view else ""}>{drawing}'


def _numbers(metrics: Mapping[str, Any]) -> str:
    """The curves' values as folded tables."""
    tables = []
    for heading, first, columns in (
        ("Values by frame", "index", metrics.get("per_frame") or {}),
        ("Values by length", "frames", metrics.get("fvd_over_length") or {}),
    ):
        if len(columns) > 1 and first in columns:
            names = [first, *(name for name in columns if name != first)]
            head = "".join(f"<th>{escape(_words(name))}</th>" for name in names)
            rows = zip(*(columns[name] for name in names), strict=False)
            body = "".join("<tr>" + "".join(f"<td>{_value(one)}</td>" for one in row) + "</tr>" for row in rows)
            table = f'<div class="scroll"><table class="numbers"><tr>{head}</tr>{body}</table></div>'
            tables.append(f"<details><summary>{heading}</summary>{table}</details>")
    return "".join(tables)


def _strip(strip: Strip, given: int) -> str:
    """Up to 16 frames, evenly spaced, true ones above generated ones; and the clip to play."""
    given = given if strip.given is None else strip.given
    sides = [("generated", _fitted(strip.fake_THWC))]
    if strip.real_THWC is not None:
        sides.insert(0, ("true", _fitted(strip.real_THWC)))
    count = min(len(frames) for _, frames in sides)
    cells = []
    for index in np.linspace(0, count - 1, min(count, FRAMES_SHOWN)).round().astype(int):
        kind, mark = (' class="given"', f"{index} given") if index < given else ("", str(index))
        pictures = [
            f'<img alt="{side} frame {index}" src="{_address([frames[index]], "png")}">' for side, frames in sides
        ]
        cells.append(f"<figure{kind}>{''.join(pictures)}<figcaption>{mark}</figcaption></figure>")
    order = "Above the true frames, below the generated ones. " if len(sides) > 1 else ""
    shown = f"{len(cells)} of {count} frames, by index" if len(cells) < count else "Every frame, by index"
    beside = [np.concatenate(frames, axis=1) for frames in zip(*(frames for _, frames in sides), strict=False)]
    names = " and ".join(side for side, _ in sides)
    played = f'<img alt="{names} clip, playing" src="{_address(beside[:FRAMES_PLAYED], "webp")}">'
    return (
        f'<h3>{escape(strip.title)}</h3><p class="soft">{order}{shown}.</p><div class="frames">{"".join(cells)}</div>'
        f"<details><summary>Play ({names}, lossy)</summary>{played}</details>"
    )


def _fitted(video_THWC: np.ndarray) -> np.ndarray:
    """Frames of a size to look at."""
    height, width = video_THWC.shape[1:3]
    scale = min(1.0, SIDE[1] / max(height, width))
    fitted = fit_frames(video_THWC, max(1, round(height * scale)), max(1, round(width * scale)))
    return np.stack([enlarge(frame, SIDE[0]) for frame in fitted])


def _address(frames: Sequence[np.ndarray], form: str) -> str:
    """A picture, or frames that play in a loop, as a data: address."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    written = io.BytesIO()
    moving: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": PLAY_MILLISECONDS, "loop": 0}
    first.save(written, format=form, **(moving if rest else {}))
    return f"data:image/{form};base64,{b64encode(written.getvalue()).decode()}"


def _table(fields: Mapping[str, Any]) -> str:
    rows = [f"<tr><th>{escape(_words(name))}</th><td>{_value(value)}</td></tr>" for name, value in fields.items()]
    return f'<table class="fields">{"".join(rows)}</table>'


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _value(value: Any) -> str:
    """A JSON value as HTML: a list of texts or records as a list, a record in one line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{escape(_words(name))}: {_value(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        if any(isinstance(one, str | Mapping) for one in value):
            return f"<ol>{''.join(f'<li>{_value(one)}</li>' for one in value)}</ol>"
        return ", ".join(map(_value, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    return escape(str(value))
