"""The answers to the claims of docs/preregistration.md that the figures at hand allow, for `reproduction.json`."""

from collections.abc import Iterator, Mapping
from typing import Any

from magi_video.experiments import ablation_report, by_frame, drift_report, rollout_report, table1_report
from magi_video.experiments.asked import ABLATION, DRIFT, ROLLOUT
from magi_video.experiments.rows import Row
from magi_video.experiments.verdicts import Answer

Figures = dict[str, Any]
FIRST_WORLD = "balls"
"""Where a claim about the paper as a whole has to hold, besides one more world."""

IN_ONE_WORLD = ("b.", "d.", "e.")
"""Claims that are tested in one world alone, as written down; seconds hang on no data at all."""


def answers(found: Mapping[str, Mapping[str, Figures]]) -> dict[str, Answer]:
    """Claim → confirmed, refuted or cannot tell: in each world, then as a whole.

    Args:
        found: recipe → world → figures, as `publish` reads them.
    """
    by_claim: dict[str, dict[str, Answer]] = {}
    for world, claim, words in each(found):
        by_claim.setdefault(claim, {})[world] = answer_in(words)
    result: dict[str, Answer] = {}
    for claim, worlds in sorted(by_claim.items()):
        result |= {f"{claim}, in {world}": answer for world, answer in worlds.items()}
        if claim[:2] not in IN_ONE_WORLD:
            result[claim] = as_a_whole(worlds)
    return result


def each(found: Mapping[str, Mapping[str, Figures]]) -> Iterator[tuple[str, str, str]]:
    """(world, claim, the verdict in words) of everything that was measured."""
    for world, figures in found.get("table1", {}).items():
        for name in figures["runs"]:
            base = Row.parse(name).base
            if name != base and base in figures["runs"]:
                for budget, label in table1_report.BUDGETS.items():
                    claim = f"a. {base} is better than {name} at {label}"
                    yield world, claim, str(table1_report.compared(name, budget, figures))
        if by_frame.applies(figures["references"]):
            for claim, said in by_frame.verdicts(figures["runs"]).items():
                yield world, f"c. {claim}", said
    for world, figures in found.get(ABLATION, {}).items():
        for pair in ablation_report.pairs(figures):
            yield world, f"b. {ablation_report.claim(*pair)}", str(ablation_report.verdict(*pair, figures))
    for world, figures in found.get(ROLLOUT, {}).items():
        for name in figures["runs"]:
            claim = f"d. 16 frames in training, more than 100 in generation: {name}"
            yield world, claim, str(rollout_report.verdict(name, figures))
    for world, figures in found.get(DRIFT, {}).items():
        for claim, words in drift_report.claims(figures).items():
            yield world, f"g. {claim}", str(words)
    for world, figures in found.get("kv-cache", {}).items():
        for name, row in figures.get("rows", {}).items():
            if row["cached"]:
                yield world, f"e. time is linear with the cache, and it saves time: {name}", row["verdict"]
    for world, figures in found.get("starts", {}).items():
        for given, start in figures["starts"].items():
            for name, row in start["rows"].items():
                if "verdict" in row:
                    yield world, f"f. {name} begins from {given} frames", row["verdict"]


def answer_in(words: str) -> Answer:
    """The answer that a verdict in words begins with."""
    decided: tuple[Answer, ...] = ("confirmed", "refuted")
    return next((answer for answer in decided if words.startswith(answer)), "cannot tell")


def as_a_whole(worlds: Mapping[str, Answer]) -> Answer:
    """Confirmed in the first world and one more, and refuted in none; refuted likewise."""
    said = list(worlds.values())
    first = worlds.get(FIRST_WORLD, "cannot tell")
    return first if said.count(first) > 1 and set(said) <= {first, "cannot tell"} else "cannot tell"
