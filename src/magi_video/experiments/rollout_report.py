"""Rollouts of 256 frames as figures for scripts, as a page in Markdown, as curves, and the answer to claim d of
docs/preregistration.md."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from magi_video.experiments.drift_report import brief, spread
from magi_video.experiments.plots import new_figure
from magi_video.experiments.table1_report import interval_over_clips
from magi_video.experiments.tables import table
from magi_video.experiments.verdicts import FEWEST_SEEDS, Verdict, short

Figures = dict[str, Any]
DECIDED_AT = "104"
"""First frame of the window that the claim is about."""
MOST_ERROR = 2.0
"""Of the errors of hue and area in the first generated window: more is worse than the claim allows."""
COLOURS = {"rope": "#0072b2", "interpolate": "#e69f00"}  # Okabe and Ito
SHOWN = {"fvd": "FVD", "apart": "two separate balls", "area": "error of area", "hue": "error of hue, degrees",
         "position": "error of position", "change": "change from frame to frame"}  # fmt: skip
"""Scores on the page, as the oracle or the windows name them."""


def value(scores: Figures, name: str) -> float | None:
    """A score of a window, its own or the oracle's."""
    found: float | None = scores[name] if name in scores else scores["oracle"].get(name)
    return found


def conditions(run: Figures, figures: Figures) -> dict[str, tuple[bool, str]]:
    """What the claim asks of one seed: whether it holds, and the figures."""
    first, window = str(figures["given"]), run["windows"][DECIDED_AT]
    references, begin = figures["references"], run["windows"][first]
    low, high = interval_over_clips(references["real"][DECIDED_AT]["oracle"]["per_clip"]["apart"])
    apart = window["oracle"]["apart"]
    found = {"apart": (low <= apart <= high, f"{short(apart)} of {short(low)}…{short(high)}")}
    for error in ("hue", "area"):
        now, before = value(window, error), value(begin, error)
        holds = now is not None and before is not None and now <= MOST_ERROR * before
        found[error] = (holds, f"{number(now)} after {number(before)}")
    held = references["copy_last"][DECIDED_AT]["fvd"]
    return found | {"FVD": (window["fvd"] < held, f"{short(window['fvd'])} below {short(held)}")}


def number(given: float | None) -> str:
    """A score in words; a dash where nothing could be read."""
    return "–" if given is None else short(given)


def verdict(name: str, figures: Figures) -> Verdict:
    """Claim d for one kind of positions: confirmed if every condition holds for every seed; refuted if one of separate
    balls, errors and FVD fails for every seed."""
    runs = figures["runs"].get(name, [])
    if DECIDED_AT not in figures["references"]["real"] or figures["oracle"] != "balls":
        return Verdict("cannot tell", f"there is no window from frame {DECIDED_AT} that an oracle of balls reads")
    judged = [conditions(run, figures) for run in runs]
    why = "; ".join(
        f"{key}: " + ", ".join(f"{words} ({'yes' if holds else 'no'})" for holds, words in (one[key] for one in judged))
        for key in (judged[0] if judged else ())
    )
    if len(runs) < FEWEST_SEEDS:
        return Verdict("cannot tell", f"{len(runs)} of {FEWEST_SEEDS} seeds" + (f"; {why}" if why else ""))
    if all(holds for one in judged for holds, _ in one.values()):
        return Verdict("confirmed", why)
    three = [("apart",), ("hue", "area"), ("FVD",)]
    failed = [all(not all(one[key][0] for key in keys) for one in judged) for keys in three]
    return Verdict("refuted" if any(failed) else "cannot tell", why)


def summarise(figures: Figures) -> Figures:
    """One world for scripts: `reproduction.json`, `rollout` → world."""
    kept = ("rollouts", "length", "given", "window", "steps", "oracle", "machine")
    rows = {
        name: {
            "seeds": [run["seed"] for run in runs],
            "windows": {at: [brief(run["windows"][at]) for run in runs] for at in runs[0]["windows"]},
            "verdict": str(verdict(name, figures)),
        }
        for name, runs in figures["runs"].items()
    }
    references = {name: {at: brief(one) for at, one in row.items()} for name, row in figures["references"].items()}
    return {name: figures[name] for name in kept if name in figures} | {"references": references, "rows": rows}


def page(figures: Figures) -> str:
    """The world's part of the page, without a heading."""
    said = (
        f"{figures['rollouts']} rollouts of {figures['length']} frames, {figures['given']} given, after "
        f"{figures['steps']:,} training steps on clips of {figures['window']}. Windows of {figures['window']} frames "
        "against the world's reference clips. Means over seeds, lowest to highest in brackets."
    )
    rows = {f"*{name}*": [row] for name, row in figures["references"].items()}
    rows |= {f"`{name}`": [run["windows"] for run in runs] for name, runs in figures["runs"].items()}
    starts = list(figures["references"]["real"])
    parts = [said]
    for name, label in SHOWN.items():
        lines = [[row, *(spread(known(runs, at, name), 3) for at in starts)] for row, runs in rows.items()]
        parts.append(f"**{label}**\n\n" + table(["row", *(f"from {at}" for at in starts)], lines))
    answers = "\n".join(f"- `{name}`: {verdict(name, figures)}." for name in figures["runs"])
    return "\n\n".join([*parts, f"**In words**\n\n{answers}"]) + "\n"


def known(runs: Sequence[Figures], at: str, name: str) -> list[float | None]:
    """A score of a window, of the runs that have that window."""
    return [value(windows[at], name) for windows in runs if at in windows]


def curves(figures: Figures) -> Figure:
    """Scores against the window's first frame, a line a seed."""
    names = [name for name in SHOWN if name == "fvd" or value(first_window(figures), name) is not None]
    figure, axes = new_figure(len(names))
    for axis, name in zip(axes, names, strict=True):
        for row, style in (("real", ":"), ("copy_last", "--")):
            plot(axis, figures["references"][row], name, color="0.35", linestyle=style, label=row.replace("_", " "))
        for row, runs in figures["runs"].items():
            for place, run in enumerate(runs):
                plot(axis, run["windows"], name, color=COLOURS[row], marker="o", label=row if place == 0 else None)
        axis.set_xlabel("first frame of the window")
        axis.set_title(SHOWN[name], fontsize=9)
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=7)
    return figure


def first_window(figures: Figures) -> Figures:
    """Of the real clips."""
    scores: Figures = next(iter(figures["references"]["real"].values()))
    return scores


def plot(axis: Any, windows: Figures, name: str, **look: Any) -> None:
    """One line."""
    axis.plot([int(at) for at in windows], [value(scores, name) for scores in windows.values()], ms=3, **look)
