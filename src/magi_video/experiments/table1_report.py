"""Table 1 as figures for scripts, as a page in Markdown, and as learning curves."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from magi_video.experiments import by_frame
from magi_video.experiments.plots import legend_beside, line_of, new_figure
from magi_video.experiments.rows import Row
from magi_video.experiments.tables import table
from magi_video.experiments.verdicts import FEWEST_SEEDS, References, Verdict, beats, joined, span, verdict

Figures = dict[str, Any]
BUDGETS = {"equal_steps": "equal steps", "equal_operations": "equal operations"}
REFERENCES = {
    "floor": "real (floor)", "codec": "codec", "still": "still", "copy_last": "copy-last", "shuffled": "shuffled",
}  # fmt: skip
PAIRED = ("psnr", "ssim", "lpips")
DECIDING = "position"
"""The oracle's score that decides beside FVD, in a world that has it."""
RESAMPLES = 1000


def summarise(world: str, figures: Figures) -> Figures:
    """The table of one world for scripts: `reproduction.json`, `table1` → world."""
    references = figures["references"]
    rows = {name: summarise_row(name, runs, figures) for name, runs in figures["runs"].items()}
    return {
        **{name: scores["fvd"] for name, scores in references.items()},
        "n": figures["n"],
        "given": figures["given"],
        "interval": figures["interval"],
        "frames": figures["frames"],
        "world": world,
        "machine": figures.get("machine"),
        "refused": figures.get("refused", {}),
        "baselines": {name: brief(scores) for name, scores in references.items()},
        "by_frame": by_frame.verdicts(figures["runs"]) if by_frame.applies(references) else {},
        "rows": rows,
    }


def brief(scores: Figures) -> Figures:
    """Without what there is one of a clip or a frame."""
    kept = {name: scores[name] for name in ("fvd", "fvd_interval", *PAIRED, "motion") if name in scores}
    if "fid_per_frame" in scores:
        kept |= {"fid_by_frame": scores["fid_per_frame"], "fid_frames": scores["fid_frames"]}
    if "oracle" in scores:
        kept["oracle"] = flat(scores["oracle"])
    return kept


def flat(oracle: Figures) -> dict[str, float]:
    """An oracle's scores, means alone."""
    return {name: value for name, value in oracle.items() if not isinstance(value, dict)}


def summarise_row(name: str, runs: Sequence[Figures], figures: Figures) -> Figures:
    """One row: at equal steps at the top, at equal operations inside, the learning curve of every seed."""
    budgets = {budget: summarise_end(budget, runs) for budget in BUDGETS}
    costs = runs[0]["costs"]
    return {
        "seeds": [run["seed"] for run in runs],
        "paradigm": runs[0]["paradigm"],
        "sampling": runs[0]["sampling"],
        **(budgets["equal_steps"] or {}),
        "seconds_per_frame": costs["seconds_per_frame"],
        "flops_per_frame": round(fmean(costs["flops_per_frame"])),
        "parameters": costs["parameters"],
        "beats_copy_last": against_copy_last(ends_of(runs, "equal_steps"), figures["references"]),
        "equal_operations": budgets["equal_operations"],
        "curve": [curve_of(run) for run in runs],
        "verdict": words(name, figures),
    }


def ends_of(runs: Sequence[Figures], budget: str) -> list[Figures]:
    """The scores at the end of a budget, of the runs that have reached it."""
    return [run["points"][end] for run in runs if (end := str(run["budgets"][budget])) in run["points"]]


def summarise_end(budget: str, runs: Sequence[Figures]) -> Figures | None:
    """The scores at the end of a budget: FVD and drift of every seed that has reached it, the others as means over
    these seeds; None where there is no such seed."""
    if not (points := ends_of(runs, budget)):
        return None
    steps = runs[0]["budgets"][budget]
    result: Figures = {
        "fvd": [point["fvd"] for point in points],
        "fvd_interval": [point["fvd_interval"] for point in points],
        "paired": {name: round(fmean(p[name] for p in points), 4) for name in PAIRED if name in points[0]},
        "drift": [drift(point["psnr_per_frame"]) for point in points],
        "motion": {key: round(fmean(p["motion"][key] for p in points), 4) for key in points[0]["motion"]},
        "loss": [point["loss"] for point in points],
        "train_steps": steps,
        "train_tflop": short(steps * runs[0]["step_tflop"]),
    }
    if all("fid_per_frame" in point for point in points):
        by_frame = zip(*(point["fid_per_frame"] for point in points), strict=True)
        result["fid_by_frame"] = [round(fmean(values), 2) for values in by_frame]
    if "oracle" in points[0]:
        each = [flat(point["oracle"]) for point in points]
        result["oracle"] = {key: mean_known([one[key] for one in each]) for key in each[0]}
        result["oracle_per_seed"] = each
    return result


def mean_known(values: Sequence[float | None]) -> float | None:
    """Mean of the numbers among values; None without any."""
    known = [value for value in values if value is not None]
    return round(fmean(known), 4) if known else None


def short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def drift(per_frame: Sequence[float]) -> float:
    """Score of the first fifth of the generated frames minus the score of all (BAgger's drift), of PSNR in dB."""
    first = max(1, round(len(per_frame) / 5))
    return round(fmean(per_frame[:first]) - fmean(per_frame), 4)


def curve_of(run: Figures) -> list[Figures]:
    """The points of a run's learning curve that are scored, by steps."""
    points = sorted(run["points"].items(), key=lambda one: int(one[0]))
    curve = []
    for step, point in points:
        figures = {"step": int(step), "tflop": short(int(step) * run["step_tflop"])}
        figures |= {name: point[name] for name in ("fvd", "psnr", "loss")}
        curve.append(figures | ({"oracle": flat(point["oracle"])} if "oracle" in point else {}))
    return curve


def fvd_references(references: Figures) -> References:
    """What FVD says of clips that need no model."""
    real, mixed = references["floor"]["fvd_interval"], references["shuffled"]["fvd_interval"]
    return References(tuple(real), tuple(mixed), references["copy_last"]["fvd"])


def oracle_references(references: Figures) -> References:
    """The same of the oracle's deciding score; the true clips have no error, so the codec's interval is the floor."""
    codec, mixed = (
        interval_over_clips(references[name]["oracle"]["per_clip"][DECIDING]) for name in ("codec", "shuffled")
    )
    return References(codec, mixed, references["copy_last"]["oracle"][DECIDING])


def interval_over_clips(values: Sequence[float | None]) -> tuple[float, float]:
    """95 % interval of the mean, from the bootstrap over clips."""
    known = np.array([value for value in values if value is not None])
    random = np.random.default_rng(0)
    means = known[random.integers(len(known), size=(RESAMPLES, len(known)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def deciding(figures: Figures) -> dict[str, References]:
    """The scores that decide in this world, by name."""
    references = figures["references"]
    found = {"FVD": fvd_references(references)}
    if DECIDING in references["copy_last"].get("oracle", {}):
        found[DECIDING] = oracle_references(references)
    return found


def values_of(points: Sequence[Figures], name: str) -> list[float]:
    """A deciding score of every seed; a row that has none counts as infinitely bad."""
    if name == "FVD":
        return [point["fvd"] for point in points]
    found = [point["oracle"][name] for point in points]
    return [float("inf") if value is None else value for value in found]


def against_copy_last(points: Sequence[Figures], references: Figures) -> dict[str, str]:
    """Score → whether every seed is better than the last given frame held."""
    return {
        name: beats(values_of(points, name), held.copy_last)
        for name, held in deciding({"references": references}).items()
    }


def compared(name: str, budget: str, figures: Figures) -> Verdict:
    """Whether complete teacher forcing is better than a row, by every deciding score; without a guard that the row goes
    without."""
    runs, base = figures["runs"], Row.parse(name).base
    ends = [ends_of(runs[base], "equal_steps"), ends_of(runs[name], budget)]
    if not ends[1]:
        return Verdict("cannot tell", "no run has reached the end of this budget")
    answers = []
    for score, references in deciding(figures).items():
        one = verdict(values_of(ends[0], score), values_of(ends[1], score), references, (base, name))
        answers.append(Verdict(one.answer, f"{score}: {one.why}"))
    return joined(answers)


def words(name: str, figures: Figures) -> str:
    """A row's sentence: whether it beats copying the last frame, and what can be said of it against `Row.base`."""
    runs = figures["runs"][name]
    against = against_copy_last(ends_of(runs, "equal_steps"), figures["references"])
    answers = ", ".join(f"{answer} by {score}" for score, answer in against.items())
    sentence = f"beats copying the last frame: {answers}"
    base = Row.parse(name).base
    if name != base and base in figures["runs"]:
        for budget, label in BUDGETS.items():
            sentence += f"; {base} better at {label}: {compared(name, budget, figures)}"
    return sentence


# --- the page -------------------------------------------------------------------------------------------------------


def page(world: str, figures: Figures) -> str:
    """The world's part of the page, without a heading."""
    rows = {name: summarise_row(name, runs, figures) for name, runs in figures["runs"].items()}
    seeds = sorted({seed for row in rows.values() for seed in row["seeds"]})
    few = "" if len(seeds) >= FEWEST_SEEDS else f" Fewer than {FEWEST_SEEDS} seeds: no verdict is possible yet."
    count, frames, given = figures["n"], figures["frames"], figures["given"]
    parts = [
        f"{count} clips of {frames} frames at interval {figures['interval']}, {given} given; FVD against {count} other "
        f"real clips. Seeds {', '.join(map(str, seeds))}.{few}",
        "**What each row is** (the paper's columns)\n\n" + paradigms(rows),
        *(f"**At {label}**\n\n" + scores(rows, figures, budget) for budget, label in BUDGETS.items()),
        "**What it costs**\n\n" + costs(rows, figures),
    ]
    if "fid_per_frame" in figures["references"]["floor"]:
        title = "**FID by generated frame** (biased upwards with so few pictures: compare with the floor alone)"
        parts.append(f"{title}\n\n{fid(rows, figures)}")
    if by_frame.applies(figures["references"]):
        title = "**Errors of single frames**, at the first and the last generated one"
        parts.append(f"{title}\n\n{by_frame.page(figures, REFERENCES)}")
    if figures.get("unfinished"):
        parts.append("**Runs that have not reached equal steps**\n\n" + unfinished(figures["unfinished"]))
    if figures.get("refused"):
        lines = "\n".join(f"- `{name}`: {why}." for name, why in figures["refused"].items())
        parts.append("**Rows that cannot go on from the frames given here**\n\n" + lines)
    parts.append("**In words**\n\n" + "\n".join(f"- `{name}` {row['verdict']}." for name, row in rows.items()))
    return "\n\n".join(parts) + "\n"


def paradigms(rows: Figures) -> str:
    """The paper's own columns, and with how many passes a row generates."""
    lines = []
    for name, row in rows.items():
        one, sampled = row["paradigm"], row["sampling"]
        lines.append(
            [
                f"`{name}`",
                one["unit"],
                one["attention"],
                yes(one["cached"]),
                yes(one["variable_context"]),
                one["past"],
                f"{sampled['mask_steps'] or '–'} × {sampled['denoise_steps']}",
            ]
        )
    head = [
        "row",
        "unit",
        "temporal attention",
        "KV cache",
        "variable context",
        "past in training",
        "mask × denoise steps",
    ]
    return table(head, lines)


def yes(value: bool) -> str:
    """In a cell."""
    return "yes" if value else "no"


def scores(rows: Figures, figures: Figures, budget: str) -> str:
    """FVD, paired and oracle scores, drift; the rows without a model first."""
    oracle = [name for name in flat(figures["references"]["codec"].get("oracle", {}))]
    head = ["row", "steps", "FVD", "PSNR", "LPIPS", *oracle, "speed, fake/real", "drift Δ (dB)", "beats copy-last"]
    lines = []
    for name, label in REFERENCES.items():
        one = figures["references"][name]
        paired = ["", ""] if name == "floor" else [number(one.get("psnr"), 2), number(one.get("lpips"), 3)]
        scores = [number(one["oracle"][key], 3) for key in oracle]
        lines.append(
            [
                f"*{label}*",
                "",
                number(one["fvd"], 1),
                *paired,
                *scores,
                number(one["motion"].get("speed_ratio"), 2),
                "",
                "",
            ]
        )
    for name, row in rows.items():
        one = row if budget == "equal_steps" else row[budget]
        if one is None:
            lines.append([f"`{name}`", "not yet", *[""] * (len(head) - 2)])
            continue
        against = against_copy_last(ends_of(figures["runs"][name], budget), figures["references"])
        lines.append(
            [
                f"`{name}`",
                one["train_steps"],
                span(one["fvd"]),
                number(one["paired"].get("psnr"), 2),
                number(one["paired"].get("lpips"), 3),
                *(number(one["oracle"][key], 3) for key in oracle),
                number(one["motion"].get("speed_ratio"), 2),
                number(fmean(one["drift"]), 2),
                ", ".join(f"{answer} ({score})" for score, answer in against.items()),
            ]
        )
    return table(head, lines)


def costs(rows: Figures, figures: Figures) -> str:
    """Training and generation."""
    head = [
        "row",
        "TFLOP a step",
        "TFLOP, equal steps",
        "steps, equal operations",
        "MFLOP a frame",
        "seconds a frame: first",
        "last",
    ]
    lines = [
        [
            f"`{name}`", f"{figures['runs'][name][0]['step_tflop']:.4f}", row["train_tflop"],
            figures["runs"][name][0]["budgets"]["equal_operations"], round(row["flops_per_frame"] / 1e6),
            number(row["seconds_per_frame"][0], 4), number(row["seconds_per_frame"][-1], 4),
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    return table(head, lines)


def fid(rows: Figures, figures: Figures) -> str:
    """One line a row, one column a generated frame."""
    lines = [
        [f"*{label}*", *(f"{value:.0f}" for value in figures["references"][name]["fid_per_frame"])]
        for name, label in REFERENCES.items()
    ]
    lines += [
        [f"`{name}`", *(f"{value:.0f}" for value in row["fid_by_frame"])]
        for name, row in rows.items()
        if "fid_by_frame" in row
    ]
    return table(["frame", *figures["references"]["floor"]["fid_frames"]], lines)


def unfinished(runs: dict[str, list[Figures]]) -> str:
    """The points so far of runs that are in no table yet."""
    head = ["row", "seed", "step", "of", "FVD", "PSNR", DECIDING, "loss"]
    lines = []
    for name, seeds in runs.items():
        for run in seeds:
            for point in curve_of(run):
                position = number(point.get("oracle", {}).get(DECIDING), 2)
                figures = [number(point["fvd"], 1), number(point["psnr"], 2), position, number(point["loss"], 4)]
                lines.append([f"`{name}`", run["seed"], point["step"], max(run["budgets"].values()), *figures])
    return table(head, lines)


def number(value: float | None, digits: int) -> str:
    """In a cell; empty where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def curves(world: str, figures: Figures) -> Figure:
    """FVD, and the oracle's deciding score where there is one, against steps and against operations."""
    keys = list(deciding(figures))
    figure, axes = new_figure(2 * len(keys))
    references = deciding(figures)
    for place, (key, by) in enumerate([(key, by) for key in keys for by in ("step", "tflop")]):
        axis = axes[place]
        for row, (name, runs) in enumerate(figures["runs"].items()):
            for which, run in enumerate(runs):
                points = curve_of(run)
                values = [point["fvd"] if key == "FVD" else point["oracle"][key] for point in points]
                label = name if which == 0 else None
                steps = [point[by] for point in points]
                axis.plot(steps, values, marker="o", markersize=3, label=label, **line_of(row))
        axis.axhline(references[key].copy_last, color="0.35", linestyle="--", linewidth=1, label="copy-last")
        axis.set_xlabel("training steps" if by == "step" else "training TFLOP")
        axis.set_ylabel(key if key == "FVD" else f"error of {key} (% of the side)")
    legend_beside(figure, axes[0])
    axes[0].set_title(world)
    return figure
