"""What interval training and noise injection do, as figures for scripts, as a page in Markdown, and as the answers to
claim b of docs/preregistration.md."""

from typing import Any

from magi_video.experiments import drift_report
from magi_video.experiments.drift_report import as_runs, brief, compared_lengths, spread, throughout
from magi_video.experiments.tables import table
from magi_video.experiments.verdicts import Verdict

Figures = dict[str, Any]
DECIDING = {"balls": "position"}
"""Oracle → its score that decides beside FVD."""
FROM = 64
"""Frames of the shortest rollout that counts."""
GUARDS = {"no-both": "both guards help", "no-interval": "interval training helps", "no-noise": "noise injection helps"}
"""Guard that a row goes without → what is claimed."""


def pairs(figures: Figures) -> list[tuple[str, str]]:
    """What is claimed to be better than what."""
    rows = figures["runs"]
    found = ((name, f"{name}-{guard}") for name in ("complete", "masked") for guard in GUARDS)
    return [(name, other) for name, other in found if name in rows and other in rows]


def claim(name: str, other: str) -> str:
    """In words."""
    return f"{GUARDS[other.removeprefix(f'{name}-')]} {name}"


def verdict(name: str, other: str, figures: Figures) -> Verdict:
    """Whether a row is better than the same without a guard, at the end of every rollout of `FROM` frames and more."""
    lengths = [length for length in compared_lengths(figures) if length >= FROM]
    return throughout(name, other, lengths, figures, DECIDING)


def summarise(world: str, figures: Figures) -> Figures:
    """For scripts: `reproduction.json`, `ablation`."""
    kept = ("rollouts", "clips", "given", "window", "lengths", "intervals", "steps", "oracle", "machine")

    def short(run: Figures) -> Figures:
        late, intervals = ({at: brief(one) for at, one in run[part].items()} for part in ("late", "intervals"))
        return {"early": brief(run["early"]), "late": late, "intervals": intervals}

    return {
        "world": world,
        **{name: figures[name] for name in kept if name in figures},
        "references": {name: short(row) for name, row in figures["references"].items()},
        "rows": {
            name: {"seeds": [run["seed"] for run in runs], "runs": [short(run) for run in runs]}
            for name, runs in figures["runs"].items()
        },
        "verdicts": {claim(*pair): str(verdict(*pair, figures)) for pair in pairs(figures)},
    }


def page(figures: Figures) -> str:
    """The page, without a heading."""
    said = (
        f"{figures['steps']:,} steps: {figures['rollouts']} rollouts of {figures['lengths'][-1]} frames, "
        f"{figures['given']} given, in windows of {figures['window']}; and {figures['clips']} continued clips at each "
        "interval, against real clips at that interval. Means over seeds, lowest to highest in brackets."
    )
    parts = [said, "**FVD at the end of rollouts, and drift Δ = late − early**\n\n" + drift_report.scores(figures)]
    parts += [f"**`{name}` at the end of rollouts**\n\n" + drift_report.by_length(figures, name) for name in READ]
    parts += [f"**{name} of continued clips, by interval**\n\n" + by_interval(figures, name) for name in ("FVD", *READ)]
    lines = [f"- {claim(*pair)}: {verdict(*pair, figures)}." for pair in pairs(figures)]
    return "\n\n".join([*parts, "**In words**\n\n" + "\n".join(lines)]) + "\n"


READ = ("position", "apart")
"""The oracle's scores on the page."""


def by_interval(figures: Figures, name: str) -> str:
    """A score of every row at each interval."""
    intervals, lines = list(map(str, figures["intervals"])), []
    for row, runs in as_runs(figures).items():
        found = [[run["intervals"][at] for run in runs] for at in intervals]
        cells = [[one["fvd"] if name == "FVD" else one["oracle"][name] for one in cell] for cell in found]
        lines.append([row, *(spread(cell, 1 if name == "FVD" else 3) for cell in cells)])
    return table(["row", *(f"interval {at}" for at in intervals)], lines)
