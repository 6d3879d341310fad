"""The quality of single frames along a clip, by the errors that a world's oracle reads from each (claim c of
docs/preregistration.md): the FID would need thousands of clips."""

from collections.abc import Sequence
from typing import Any

from magi_video.experiments.tables import table
from magi_video.experiments.verdicts import FEWEST_SEEDS, Verdict, span

Figures = dict[str, Any]
ERRORS = ("area", "hue")
"""What is wrong with a single frame, wherever its balls should be."""


def applies(references: Figures) -> bool:
    """Whether the world's oracle reads these errors."""
    return all(set(ERRORS) <= set(scores.get("oracle", {})) for scores in references.values())


def per_frame(run: Figures, error: str) -> list[float]:
    """An error at each generated frame, mean over clips, of a run after equal steps or of a reference."""
    point = run["points"][str(run["budgets"]["equal_steps"])] if "points" in run else run
    return [value for value in point["oracle"]["per_frame"][error] if value is not None]


def mean(run: Figures, error: str) -> float:
    """An error, mean over the generated frames."""
    values = per_frame(run, error)
    return sum(values) / len(values)


def growth(run: Figures, error: str) -> float:
    """How much an error grows from the first generated frame to the last."""
    values = per_frame(run, error)
    return values[-1] - values[0]


def single_frames_better(masked: Sequence[Figures], complete: Sequence[Figures]) -> Verdict:
    """Section 5.2: single frames of masked teacher forcing are better. Confirmed if its worst seed has smaller errors
    of area and of hue than the best of complete teacher forcing, refuted if it is the other way round."""
    return judge([([mean(run, e) for run in masked], [mean(run, e) for run in complete]) for e in ERRORS], "mean")


def more_steps_worse(raster: Sequence[Figures], complete: Sequence[Figures]) -> Verdict:
    """Section 5.5: with one autoregressive step a token, errors grow faster than with one a frame. Confirmed if they
    grow more in every pair of seeds, by area and by hue; refuted if less in every pair."""
    return judge([([growth(r, e) for r in complete], [growth(r, e) for r in raster]) for e in ERRORS], "growth of")


def judge(pairs: Sequence[tuple[list[float], list[float]]], what: str) -> Verdict:
    """Confirmed if by every error all of the first are below all of the second, refuted if all are above."""
    sides = zip(ERRORS, pairs, strict=True)
    why = "; ".join(f"{what} {error} {span(first)} against {span(second)}" for error, (first, second) in sides)
    seeds = min(len(side) for pair in pairs for side in pair)
    if seeds < FEWEST_SEEDS:
        return Verdict("cannot tell", f"{seeds} of {FEWEST_SEEDS} seeds; {why}")
    if all(max(first) < min(second) for first, second in pairs):
        return Verdict("confirmed", why)
    return Verdict("refuted" if all(min(first) > max(second) for first, second in pairs) else "cannot tell", why)


def verdicts(runs: dict[str, list[Figures]]) -> dict[str, str]:
    """The answers that the rows at hand allow, by claim."""
    found = {}
    if {"complete", "masked"} <= set(runs):
        found["single frames of masked are better (5.2)"] = single_frames_better(runs["masked"], runs["complete"])
    if {"complete", "raster"} <= set(runs):
        found["errors grow faster in raster (5.5)"] = more_steps_worse(runs["raster"], runs["complete"])
    return {claim: str(answer) for claim, answer in found.items()}


def page(figures: Figures, labels: dict[str, str]) -> str:
    """Each row's errors at the first and the last generated frame, mean over seeds, and the answers."""
    named = [(f"*{labels[name]}*", [scores]) for name, scores in figures["references"].items() if name in labels]
    named += [(f"`{name}`", runs) for name, runs in figures["runs"].items()]
    lines = []
    for label, runs in named:
        cells = []
        for error in ERRORS:
            ends = [(per_frame(run, error)[0], per_frame(run, error)[-1]) for run in runs]
            cells += [f"{sum(values) / len(values):.3f}" for values in zip(*ends, strict=True)]
        lines.append([label, *cells])
    head = ["row", *(f"{error}, {end}" for error in ERRORS for end in ("first", "last"))]
    answers = "\n".join(f"- {claim}: {answer}." for claim, answer in verdicts(figures["runs"]).items())
    return f"{table(head, lines)}\n\n{answers}".rstrip()
