"""From the figures of the recipes to `reproduction.json`, tables in Markdown and plots: `magi reproduce report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from magi_video.errors import MagiError
from magi_video.experiments import (
    ablation_report,
    answers,
    drift_report,
    own_past,
    plots,
    rollout_report,
    table1_report,
    tables,
)
from magi_video.experiments.asked import ABLATION, BY_ROWS, DRIFT, OWN_PAST, ROLLOUT, STARTS, TABLE1
from magi_video.experiments.recipes import RECIPES, mean_and_deviation
from magi_video.experiments.results import find_results
from magi_video.experiments.worlds import CPU_WORLDS
from magi_video.files.atomic import write_json
from magi_video.files.folders import ensure_folder
from magi_video.files.json import read_json

Figures = dict[str, Any]
PRIMARY = CPU_WORLDS[0].name
HAS: dict[str, set[str]] = {
    TABLE1: {"runs", "references"},
    STARTS: {"starts"},
    OWN_PAST: {"errors"},
    DRIFT: {"runs", "references"},
    ROLLOUT: {"runs", "references"},
    ABLATION: {"runs", "references", "intervals"},
    "kv-cache": {"rows"},
}
"""Recipe → what its figures have today and those of earlier versions had not."""


def publish(out: str | Path) -> Path:
    """Write OUT/report: `reproduction.json`, `tables.md` and plots, from every result that OUT holds.

    Raises:
        MagiError: OUT holds no results, or some that another version of a recipe has left.
    """
    out = Path(out)
    found = {
        recipe: {world: read_json(path) for world, path in worlds.items()}
        for recipe, worlds in find_results(out, (*RECIPES, *BY_ROWS)).items()
    }
    for recipe, worlds in found.items():
        for world, figures in worlds.items():
            if missing := HAS.get(recipe, set()) - set(figures):
                raise MagiError(
                    f"{out / 'results' / f'{recipe}-{world}.json'}: has no {sorted(missing)[0]!r}: another version of "
                    "the recipe has left it; run the recipe again, or take the file away"
                )
    return write(found, out / "report")


def write(found: dict[str, dict[str, Figures]], report: Path) -> Path:
    """Everything that figures are made into; returns the folder.

    Args:
        found: recipe → world → figures.
        report: folder to write.
    """
    ensure_folder(report)
    summary = summarise(found)
    write_json(report / "reproduction.json", summary)
    (report / "tables.md").write_text(tables.write(summary), encoding="utf-8")
    plots.write(summary, report)
    for world, figures in found.get(TABLE1, {}).items():
        (report / f"table1_{world}.md").write_text(table1_report.page(world, figures), encoding="utf-8")
        plots.save(table1_report.curves(world, figures), report / f"table1_{world}.png")
    for world, figures in found.get(DRIFT, {}).items():
        (report / f"drift_{world}.md").write_text(drift_report.page(figures), encoding="utf-8")
    for world, figures in found.get(ROLLOUT, {}).items():
        (report / f"rollout_{world}.md").write_text(rollout_report.page(figures), encoding="utf-8")
        plots.save(rollout_report.curves(figures), report / f"rollout_{world}.png")
    for world, figures in found.get(ABLATION, {}).items():
        (report / f"ablation_{world}.md").write_text(ablation_report.page(figures), encoding="utf-8")
    for world, figures in found.get(OWN_PAST, {}).items():
        (report / f"own_past_{world}.md").write_text(own_past.page(figures) + "\n", encoding="utf-8")
        plots.save(own_past.curves(figures), report / f"own_past_{world}.png")
    return report


def summarise(found: dict[str, dict[str, Figures]]) -> Figures:
    """The figures by claim; where a claim was measured in several worlds, the primary one is named at the top."""
    summary: Figures = {}
    sensitivity = found.get("sensitivity", {})
    if sensitivity:
        summary["sensitivity"] = {world: sensitivity_of(figures) for world, figures in sensitivity.items()}
    if compared := found.get("ctf-vs-mtf"):
        worlds = {
            world: comparison_of(world, figures, sensitivity.get(world, {})) for world, figures in compared.items()
        }
        summary["ctf_vs_mtf"] = worlds.get(PRIMARY, next(iter(worlds.values()))) | {"worlds": worlds}
    if ablated := found.get(ABLATION):
        world = PRIMARY if PRIMARY in ablated else next(iter(ablated))
        summary["ablation"] = ablation_report.summarise(world, ablated[world])
    if timed := found.get("kv-cache"):
        summary["kv_cache"] = timed.get(PRIMARY, next(iter(timed.values())))
    if rolled := found.get(ROLLOUT):
        summary["rollout"] = {world: rollout_report.summarise(figures) for world, figures in rolled.items()}
    if rows := found.get(TABLE1):
        summary["table1"] = {world: table1_report.summarise(world, figures) for world, figures in rows.items()}
    if drifted := found.get(DRIFT):
        summary["drift"] = {world: drift_report.summarise(figures) for world, figures in drifted.items()}
    if begun := found.get(STARTS):
        summary["starts"] = begun
    if read := found.get(OWN_PAST):
        summary["own_past"] = read
    if stepped := found.get("sampling-steps"):
        summary["sampling_steps"] = stepped.get(PRIMARY, next(iter(stepped.values())))
    summary["verdicts"] = answers.answers(found)
    return summary


def sensitivity_of(figures: Figures) -> Figures:
    """FVD of every damage, and its excess over the floor."""
    damages = {name: value for name, value in figures.items() if isinstance(value, dict) and "fvd" in value}
    floor = damages["floor"]["fvd"]
    return {
        "fvd": {name: value["fvd"] for name, value in damages.items()},
        "over_floor": {name: round(value["fvd"] - floor, 2) for name, value in damages.items()},
        "motion": {name: value["motion"] for name, value in damages.items()},
    }


def comparison_of(world: str, figures: Figures, sensitivity: Figures) -> Figures:
    """CTF against MTF in one world; `fvd_mtf` and `reduction` are at equal training time."""
    runs, references = (
        figures["runs"],
        {name: sensitivity[name]["fvd"] for name in sensitivity if "fvd" in (sensitivity[name] or {})},
    )
    fvd = {name: [run["fvd"] for run in entries] for name, entries in runs.items()}
    mean = {name: mean_and_deviation(values) for name, values in fvd.items()}
    ctf, equal_time, equal_steps = (mean[name][0] for name in ("ctf", "mtf_equal_time", "mtf_equal_steps"))
    result: Figures = {
        "world": world,
        "fvd_ctf": round(ctf, 2),
        "fvd_mtf": round(equal_time, 2),
        "fvd_mtf_equal_steps": round(equal_steps, 2),
        "floor": references.get("floor"),
        "shuffled": references.get("shuffled"),
        "frozen": references.get("frozen"),
        "copy_last": references.get("copy_last"),
        "codec": references.get("codec"),
        "seeds": figures["seeds"],
        "reduction": round(1 - ctf / equal_time, 4),
        "reduction_equal_steps": round(1 - ctf / equal_steps, 4),
        "fvd_per_seed": fvd,
        "fvd_deviation": {name: round(deviation, 2) for name, (_, deviation) in mean.items()},
        "steps": figures["steps"],
        "step_time": figures["step_time"],
        "given": figures["given"],
        "other": {name: other_scores(entries) for name, entries in runs.items()},
    }
    if floor := result["floor"]:
        result["reduction_over_floor"] = round(1 - (ctf - floor) / (equal_time - floor), 4)
    return result


def other_scores(runs: Sequence[Figures]) -> Figures:
    """Means over seeds of everything that is not FVD: figures as they are, curves point by point."""
    names = [n for n in ("psnr", "lpips", "fid", "psnr_per_frame", "lpips_per_frame", "fid_per_frame") if n in runs[0]]
    means: Figures = {name: mean_of([run[name] for run in runs]) for name in names}
    means["motion"] = {key: mean_of([run["motion"][key] for run in runs]) for key in runs[0]["motion"]}
    if "last_frame_loss" in runs[0]:
        keys = runs[0]["last_frame_loss"]
        means["last_frame_loss"] = {key: mean_of([run["last_frame_loss"][key] for run in runs]) for key in keys}
    if "fid_frames" in runs[0]:
        means["fid_frames"] = runs[0]["fid_frames"]
    return means


def mean_of(values: Sequence[Any]) -> Any:
    """The mean of numbers, or of lists of them point by point."""
    if isinstance(values[0], list):
        return [mean_of(point) for point in zip(*values, strict=True)]
    return round(sum(values) / len(values), 4)
