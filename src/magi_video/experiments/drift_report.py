"""The comparison of cures for drift as figures for scripts, and as a page in Markdown with the rule's answers."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from magi_video.experiments.table1_report import flat, interval_over_clips, number
from magi_video.experiments.tables import table
from magi_video.experiments.verdicts import Answer, References, Verdict, joined, span, verdict

Figures = dict[str, Any]
FROM = 256
"""Frames of the shortest rollout that counts."""
AGAINST = ("noise", "none")
"""Rows that every other one is claimed to be better than."""
DECIDING = {"balls": "speed"}
"""Oracle → its score that decides beside FVD; the others are reported (docs/preregistration.md, claim g)."""


def values_of(scores: Figures, oracle: str, deciding: Mapping[str, str] = DECIDING) -> dict[str, float]:
    """The scores of windows that decide, by name; lower is better. A value that there is not is infinitely bad."""
    found = {"FVD": scores["fvd"]}
    if name := deciding.get(oracle):
        value = scores["oracle"][name]
        found[name] = float("inf") if value is None else value
    return found


def deltas(run: Figures, length: int, oracle: str) -> dict[str, float]:
    """Late minus early of the deciding scores."""
    early, late = values_of(run["early"], oracle), values_of(run["late"][str(length)], oracle)
    return {name: round(late[name] - early[name], 4) for name in early}


def references_of(figures: Figures, length: int, deciding: Mapping[str, str] = DECIDING) -> dict[str, References]:
    """What the deciding scores say of clips that need no model: the floor and shuffled clips at the beginning, the last
    given frame held until the end of a length, where the true videos go so far.

    The floor of an error of position is that of the codec: the true clips have none against themselves.
    """
    rows, oracle = figures["references"], figures["oracle"]
    real, mixed = (rows[name]["early"] for name in ("real", "shuffled"))
    held = values_of(rows["copy_last"]["late"].get(str(length), rows["copy_last"]["early"]), oracle, deciding)
    found = {"FVD": References(tuple(real["fvd_interval"]), tuple(mixed["fvd_interval"]), held["FVD"])}
    if name := deciding.get(oracle):
        least = rows["codec"]["early"] if name == "position" else real
        floor, shuffled = (interval_over_rollouts(one["oracle"]["per_clip"][name], figures) for one in (least, mixed))
        found[name] = References(floor, shuffled, held[name])
    return found


def interval_over_rollouts(per_clip: Sequence[float | None], figures: Figures) -> tuple[float, float]:
    """95 % interval of the mean over windows, two of each rollout, which are not independent: over rollouts."""
    values = np.array([np.nan if value is None else value for value in per_clip]).reshape(-1, figures["rollouts"])
    known = values[:, ~np.isnan(values).all(0)]
    return interval_over_clips(list(np.nanmean(known, axis=0)))


def compared(first: str, second: str, length: int, figures: Figures, deciding: Mapping[str, str] = DECIDING) -> Verdict:
    """Whether one row is better than another at the end of a length: by the rule, over the deciding scores."""
    oracle, answers = figures["oracle"], []
    for name, references in references_of(figures, length, deciding).items():
        a, b = (
            [values_of(run["late"][str(length)], oracle, deciding)[name] for run in figures["runs"].get(row, [])]
            for row in (first, second)
        )
        one = verdict(a, b, references, (first, second))
        answers.append(Verdict(one.answer, f"{name}: {one.why}"))
    return joined(answers)


def throughout(
    first: str, second: str, lengths: Sequence[int], figures: Figures, deciding: Mapping[str, str] = DECIDING
) -> Verdict:
    """Whether one row is better than another at the end of each of several lengths."""
    if not lengths:
        return Verdict("cannot tell", "no rollout is so long")
    at = {length: compared(first, second, length, figures, deciding) for length in lengths}
    said = {one.answer for one in at.values()}
    answer: Answer = said.pop() if len(said) == 1 else "cannot tell"
    return Verdict(answer, " | ".join(f"at {length}, {one.answer}: {one.why}" for length, one in at.items()))


def claims(figures: Figures) -> dict[str, Verdict]:
    """Claim g of docs/preregistration.md, for every pair of rows."""
    lengths = [length for length in compared_lengths(figures) if length >= FROM]
    rows = dict.fromkeys((name, other) for name, other, _ in pairs(figures))
    return {
        f"{name} is better than {other} in long rollouts": throughout(name, other, lengths, figures)
        for name, other in rows
    }


def compared_lengths(figures: Figures) -> list[int]:
    """Lengths that leave room for windows of their own behind the early ones."""
    return [length for length in figures["lengths"] if length > figures["window"]]


def summarise(figures: Figures) -> Figures:
    """The comparison of one world for scripts: `reproduction.json`, `drift` → world."""
    oracle, rows = figures["oracle"], {}
    for name, runs in figures["runs"].items():
        rows[name] = {
            "seeds": [run["seed"] for run in runs],
            "early": [brief(run["early"]) for run in runs],
            "late": {length: [brief(run["late"][length]) for run in runs] for length in map(str, figures["lengths"])},
            "delta": {
                str(length): [deltas(run, length, oracle) for run in runs] for length in compared_lengths(figures)
            },
        }
    kept = ("rollouts", "given", "window", "lengths", "steps", "oracle", "machine")
    return {
        **{name: figures[name] for name in kept if name in figures},
        "references": {
            name: {"early": brief(row["early"]), "late": {at: brief(one) for at, one in row["late"].items()}}
            for name, row in figures["references"].items()
        },
        "rows": rows,
        "verdicts": {
            f"{name} against {other} at {length}": str(compared(name, other, length, figures))
            for name, other, length in pairs(figures)
        },
    }


def brief(scores: Figures) -> Figures:
    """Without what there is one of a clip or a frame."""
    return {name: value for name, value in scores.items() if name != "oracle"} | {"oracle": flat(scores["oracle"])}


def pairs(figures: Figures) -> list[tuple[str, str, int]]:
    """What is claimed to be better than what, at which length."""
    rows = list(figures["runs"])
    return [
        (name, other, length)
        for other in AGAINST
        if other in rows
        for name in rows
        if name not in (other, "none")
        for length in compared_lengths(figures)
    ]


def page(figures: Figures) -> str:
    """The world's part of the page, without a heading."""
    seeds = sorted({run["seed"] for runs in figures["runs"].values() for run in runs})
    said = (
        f"{figures['rollouts']} rollouts of {figures['lengths'][-1]:,} frames, {figures['given']} given, after "
        f"{figures['steps']:,} training steps; seeds {', '.join(map(str, seeds))}. Windows of {figures['window']} "
        "frames against the world's reference clips; lower FVD is better. Means over seeds, lowest to highest in "
        "brackets."
    )
    names = list(figures["references"]["real"]["early"]["oracle"])
    oracle = [name for name in names if name not in ("per_frame", "per_clip")]
    parts = [said, "**FVD, and drift Δ = late − early**\n\n" + scores(figures)]
    parts += [f"**What the oracle reads: `{name}`**\n\n" + by_length(figures, name) for name in oracle]
    parts += [f"**{label}**\n\n" + by_length(figures, name) for name, label in OTHERS.items()]
    lines = [
        f"- `{name}` better than `{other}` at {length:,} frames: {compared(name, other, length, figures)}."
        for name, other, length in pairs(figures)
    ]
    return "\n\n".join([*parts, "**In words**\n\n" + "\n".join(lines)]) + "\n"


OTHERS = {"change": "Change from frame to frame, grey levels", "sharpness": "Difference of neighbouring pixels"}
"""Scores beside the oracle's."""


def scores(figures: Figures) -> str:
    """FVD of the windows of every row, and its drift."""
    lengths, later = figures["lengths"], compared_lengths(figures)
    head = ["row", "early", *(f"at {length:,}" for length in lengths), *(f"Δ at {length:,}" for length in later)]
    lines = []
    for name, runs in as_runs(figures).items():
        fvd = [run["early"]["fvd"] for run in runs]
        late = {at: [run["late"][str(at)]["fvd"] for run in runs if str(at) in run["late"]] for at in lengths}
        changes = [[b - a for a, b in zip(fvd, late[at], strict=False)] for at in later]
        lines.append([name, spread(fvd), *(spread(late[at]) for at in lengths), *map(spread, changes)])
    return table(head, lines)


def by_length(figures: Figures, name: str) -> str:
    """A score of the windows of every row: of `OTHERS`, or of the oracle."""
    lengths, lines = list(map(str, figures["lengths"])), []
    for row, runs in as_runs(figures).items():
        found = [[run["early"] for run in runs], *([run["late"].get(at) for run in runs] for at in lengths)]
        cells = [[(one if name in OTHERS else one["oracle"])[name] for one in cell if one] for cell in found]
        lines.append([row, *(spread(cell, 3) for cell in cells)])
    return table(["row", "early", *(f"at {int(at):,}" for at in lengths)], lines)


def as_runs(figures: Figures) -> dict[str, list[Figures]]:
    """Every row of the tables by its label: those without a model, each as one run, then the cures."""
    rows = {f"*{name}*": [row] for name, row in figures["references"].items()}
    return rows | {f"`{name}`": runs for name, runs in figures["runs"].items()}


def spread(values: Sequence[float | None], digits: int = 1) -> str:
    """Mean over seeds, and lowest to highest of several."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return number(fmean(known), digits) + (f" ({span(known)})" if len(known) > 1 else "")
