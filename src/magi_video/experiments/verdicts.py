"""What figures of several seeds allow to say: the rule of docs/preregistration.md, as a function.

Scores are distances or errors: lower is better. A claim is that A is better than B.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Answer = Literal["confirmed", "refuted", "cannot tell"]
FEWEST_SEEDS = 3
STRAIGHT = 0.999
"""R² of the straight line through the seconds of a cached rollout's frames, from which the claim holds."""


@dataclass(frozen=True)
class References:
    """What a score says of clips that need no model.

    Attributes:
        floor, shuffled: 95 % intervals of other real clips and of shuffled ones.
        copy_last: of the last given frame held.
    """

    floor: tuple[float, float]
    shuffled: tuple[float, float]
    copy_last: float

    @property
    def can_tell(self) -> bool:
        """Whether the score tells real from shuffled: their intervals do not overlap."""
        return self.floor[1] < self.shuffled[0]


@dataclass(frozen=True)
class Verdict:
    """An answer, and why in words."""

    answer: Answer
    why: str

    def __str__(self) -> str:
        return f"{self.answer}: {self.why}"


def verdict(
    a: Sequence[float], b: Sequence[float], references: References, names: tuple[str, str] = ("A", "B")
) -> Verdict:
    """Whether A is better than B by one score.

    Args:
        a, b: the score of each seed.
        references: what the same score says of clips that need no model.
        names: of A and B, for the words.
    """
    first, second = names
    if not references.can_tell:
        return Verdict("cannot tell", "the score does not tell real clips from shuffled ones here")
    if min(len(a), len(b)) < FEWEST_SEEDS:
        better = f"; so far {first} {span(a)}, {second} {span(b)}" if a and b else ""
        return Verdict("cannot tell", f"{min(len(a), len(b))} of {FEWEST_SEEDS} seeds{better}")
    if max(a) < min(b):
        if max(b) < references.copy_last:
            return Verdict(
                "confirmed", f"{first}'s worst seed ({short(max(a))}) is better than {second}'s best ({short(min(b))})"
            )
        return Verdict(
            "cannot tell", f"{second} ({span(b)}) does not beat copying the last frame ({short(references.copy_last)})"
        )
    if max(b) < min(a):
        if max(a) < references.copy_last:
            return Verdict(
                "refuted", f"{second}'s worst seed ({short(max(b))}) is better than {first}'s best ({short(min(a))})"
            )
        return Verdict(
            "cannot tell", f"{first} ({span(a)}) does not beat copying the last frame ({short(references.copy_last)})"
        )
    return Verdict("cannot tell", f"the seeds overlap: {first} {span(a)}, {second} {span(b)}")


FEWEST_CLIPS = 64
"""Fewer say nothing: the distance's own bias is larger than what models differ by."""


@dataclass(frozen=True)
class Judged:
    """A score of one model: its value and its 95 % interval over clips."""

    name: str
    value: float
    interval: tuple[float, float]


def better_model(a: Judged, b: Judged, references: References | None, clips: int) -> Verdict:
    """Which of two trained models is better on the clips that both have continued: of the models, not of the methods.

    Args:
        a, b: the score of each.
        references: what the score says of clips that need no model; None where the floor could not be taken.
        clips: of each.

    Returns:
        "confirmed" where A is better, "refuted" where B is.
    """
    if clips < FEWEST_CLIPS:
        return Verdict("cannot tell", f"{clips} clips; from {FEWEST_CLIPS} on the figures begin to mean something")
    if references is None:
        return Verdict("cannot tell", "there is no floor: the data gives no second set of real clips")
    if not references.can_tell:
        return Verdict("cannot tell", "the score does not tell real clips from shuffled ones here")
    first, second = sorted((a, b), key=lambda one: one.value)
    if first.value >= references.copy_last:
        return Verdict("cannot tell", f"neither beats copying the last frame ({short(references.copy_last)})")
    if first.interval[1] >= second.interval[0]:
        spans = " and ".join(f"{one.name} {span(one.interval)}" for one in (a, b))
        return Verdict("cannot tell", f"the 95 % intervals overlap: {spans}")
    figures = (f"{one.name} {short(one.value)} ({span(one.interval)})" for one in (first, second))
    why = ", ".join(figures)
    if second.value >= references.copy_last:
        why += f"; {second.name} does not even beat copying the last frame"
    return Verdict("confirmed" if first is a else "refuted", why)


def joined(answers: Sequence[Verdict]) -> Verdict:
    """The answer of several scores: contradiction, or silence of all, is "cannot tell"; else what one of them says."""
    said = {one.answer for one in answers} - {"cannot tell"}
    why = "; ".join(dict.fromkeys(one.why for one in answers))
    if len(said) == 1:
        return Verdict(said.pop(), why)
    return Verdict("cannot tell", ("the scores contradict each other: " if said else "") + why)


def beats(values: Sequence[float], reference: float) -> Literal["yes", "no", "some seeds"]:
    """Whether every seed, none, or some are better than a reference."""
    count = sum(value < reference for value in values)
    return "yes" if count == len(values) else "some seeds" if count else "no"


def span(values: Sequence[float]) -> str:
    """Lowest to highest."""
    low, high = short(min(values)), short(max(values))
    return low if low == high else f"{low}…{high}"


def short(value: float) -> str:
    """Four digits, and no exponent."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def start_verdict(scores: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Verdict:
    """Whether a model can begin so (claim f): confirmed if every seed is better than each reference by every score,
    refuted if no seed is so by any.

    Args:
        scores: name → the score of each seed, and those of the references.
    """
    answers = {name: beats(values, min(references)) for name, (values, references) in scores.items()}
    why = "; ".join(
        f"{name} {span(values)}, to beat {min(references):.4g}: {answers[name]}"
        for name, (values, references) in scores.items()
    )
    seeds = min(len(values) for values, _ in scores.values())
    if seeds < FEWEST_SEEDS:
        return Verdict("cannot tell", f"{seeds} of {FEWEST_SEEDS} seeds; {why}")
    said = set(answers.values())
    return Verdict("confirmed" if said == {"yes"} else "refuted" if said == {"no"} else "cannot tell", why)


def cache_verdict(figures: dict[str, Any]) -> Verdict:
    """Whether the cache makes time linear in the frames and saves time (claim e), from `time_against_frames`."""
    if not figures["cached"]:
        return Verdict("cannot tell", "it has no cache")
    cached, recomputed, most = figures["r2"], figures["r2_uncached"], figures["frames"][-1]
    times = figures["seconds_uncached"][-1] / figures["seconds_cached"][-1]
    why = f"R² {cached:.4f} with the cache, {recomputed:.4f} without; {most} frames {times:.1f} × as fast with it"
    return Verdict("confirmed" if cached > max(STRAIGHT, recomputed) and times > 1 else "refuted", why)
