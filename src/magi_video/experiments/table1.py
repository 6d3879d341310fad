"""`magi reproduce table1`: the paper's Table 1 on one backbone, with what each row costs and how well it continues.

Every row is trained once, to the end of the longer of its two budgets; a run's beginning is the run of a shorter
budget, for the learning rate is constant after the warm-up:

- equal steps: the steps of the world's recipe;
- equal operations: as many steps as cost the operations of so many steps of complete teacher forcing.

A call may ask for equal steps alone; a later one goes on from there.

Everything that is measured lies in files of its own under OUT/WORLD/, so a stopped call goes on where it was, and
`--rows` and `--seeds` may come in any order; the table is made of what is there.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np

from magi_video.errors import MagiError
from magi_video.evaluation.baselines import baselines
from magi_video.experiments.clips import every
from magi_video.experiments.costs import equal_steps, generation_costs, training_step_flops
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.rows import Row, all_rows
from magi_video.experiments.runs import PassedStepError
from magi_video.experiments.sheets import SHEET_CLIPS, write_sheet
from magi_video.files.atomic import write_json
from magi_video.files.json import read_json
from magi_video.paradigms import find_paradigm, make_paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import Preset

POINTS = 4
"""Points of a learning curve at equal distances; the end of the second budget is one more."""
TERA = 1e12
FID_FRAMES = 4
"""Frames of a clip, evenly spread over the generated ones, at which the FID is taken: the costliest of the scores."""
Keep = Callable[[Scores], None]
Budget = Literal["both", "equal-steps"]


def table1(
    m: Measures,
    seeds: Sequence[int],
    rows: Sequence[str] | None = None,
    keep: Keep = lambda figures: None,
    budget: Budget = "both",
) -> Scores:
    """Train and score rows; what is there already is kept.

    Args:
        m: the world's measures.
        seeds: of the training runs.
        rows: as `experiments.rows` writes them; all if not given.
        keep: called with the table as it stands whenever a run has ended.
        budget: where a run ends: at equal steps, or at the longer of both.

    Returns:
        The table of all rows and seeds that the world's folder holds; see `collect`.
    """
    chosen = [Row.parse(name) for name in (all_rows() if rows is None else rows)]
    references = reference_rows(m)
    for seed in seeds:
        for row in chosen:
            run_row(m, row, seed, budget)
            keep(collect(m, references))
    figures = collect(m, references)
    write_sheet(m.folder / "table1.png", sheet_rows(m, figures))
    return figures


def reference_rows(m: Measures) -> dict[str, Scores]:
    """The rows that need no model: real (the floor), codec, still, copy_last, shuffled."""
    rows = {"floor": lambda clips: clips} | {
        name: every(change) for name, change in baselines(m.world.given, m.codec).items()
    }
    found: dict[str, Scores] = {}
    for place, (name, change) in enumerate(rows.items()):
        m.workplace.watched.stage(f"{m.world.name}: scoring rows without a model, {place + 1} of {len(rows)}: {name}")
        found[name] = score(m, name, lambda: change(m.context), fid=True)  # noqa: B023
    return found


def score(m: Measures, name: str, clips: Callable[[], np.ndarray], *, fid: bool) -> Scores:
    """All scores of a clip set that continues the context set; the oracle's among them where the world has one."""
    return m.score(name, clips, paired=True, fid=fid and m.world.fid) | m.oracle(name, clips)


def run_row(m: Measures, row: Row, seed: int, budget: Budget = "both") -> None:
    """Train one row with one seed; each point of its learning curve, the ends of its budgets among them, is scored when
    it is reached."""
    path = run_path(m, row, seed)
    if (why := refusal(row, m.world.given, m.world.frames)) is not None:
        write_json(path, {"row": row.name, "seed": seed, "refused": why})
        return
    budgets, total = budgets_of(m, row), m.world.preset.train.steps
    ends = {total} | {end for end in budgets.values() if budget == "both" or end <= total}
    points = {max(1, round(total * part / POINTS)) for part in range(1, POINTS + 1)} | ends
    figures: Scores = {"points": {}} | (read_json(path) if path.is_file() else {})
    figures |= {"row": row.name, "seed": seed, "budgets": budgets, "step_tflop": step_tflop(m, row)}
    figures["paradigm"] = columns(row)
    for step in sorted(points):
        try:
            model = m.workplace.model(row.name, seed, step)
        except PassedStepError as error:  # a run of an earlier version; its other points stand
            m.workplace.display.say(str(error))
            continue
        if "costs" not in figures:
            pipe = MagiVideoPipeline.from_pretrained(model)
            figures |= {"costs": generation_costs(pipe, m.world), "sampling": sampling(pipe)}
        name = f"{row.key}-seed{seed}-step{step}"
        scored = score(m, name, partial(m.samples, name, model), fid=step in budgets.values())
        losses = training_losses(m.workplace.run_folder(row.name, seed) / "log.jsonl")
        figures["points"][str(step)] = scored | {"loss": loss_before(losses, step)}
        write_json(path, figures)


def refusal(row: Row, given: int, frames: int) -> str | None:
    """Why a row cannot make a clip of so many frames from so many given ones; None if it can."""
    try:
        make_paradigm(row.forcing, dict(row.options)).check_context(given, frames)
    except MagiError as error:
        return str(error)
    return None


def run_path(m: Measures, row: Row, seed: int) -> Path:
    """Where a run's figures lie."""
    return m.folder / "table1" / f"{row.key}-seed{seed}.json"


def budgets_of(m: Measures, row: Row) -> dict[str, int]:
    """Steps of both budgets."""
    preset = m.world.preset
    reference = Row.parse("complete").preset(preset)
    counted = m.kept_figures(
        f"budget-{row.key}", lambda: {"equal_operations": equal_steps(row.preset(preset), reference)}
    )
    return {"equal_steps": preset.train.steps, "equal_operations": max(1, counted["equal_operations"])}


def step_tflop(m: Measures, row: Row) -> float:
    """Operations of a training step, in 10¹²."""
    preset: Preset = row.preset(m.world.preset)
    counted = m.kept_figures(f"step-flops-{row.key}", lambda: {"tflop": training_step_flops(preset) / TERA})
    return float(counted["tflop"])


def columns(row: Row) -> Scores:
    """The paper's own columns."""
    paradigm = find_paradigm(row.forcing)
    return {
        "title": paradigm.title,
        "unit": paradigm.unit,
        "attention": paradigm.temporal_attention,
        "cached": paradigm.cached,
        "variable_context": paradigm.variable_context,
        "past": paradigm.past,
    }


def sampling(pipe: MagiVideoPipeline) -> Scores:
    """With how many steps a model generates; None for steps that its paradigm does not have."""
    resolved, own = pipe.resolve(), find_paradigm(pipe.config.forcing).steps
    numbers = {"mask_steps": resolved.mask_steps, "denoise_steps": resolved.denoise_steps}
    return {name: None if own.get(name) == 0 else number for name, number in numbers.items()}


def training_losses(log: Path) -> list[tuple[int, float]]:
    """Step and loss of every logged step."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return [(int(one["step"]), float(one["loss"])) for one in map(json.loads, lines) if "loss" in one]


def loss_before(losses: list[tuple[int, float]], step: int) -> float | None:
    """Mean of the last twenty logged losses up to a step."""
    values = [loss for at, loss in losses if at <= step][-20:]
    return round(fmean(values), 5) if values else None


def collect(m: Measures, references: dict[str, Scores]) -> Scores:
    """The table of everything that the world's folder holds.

    Returns:
        references: name → scores; n: clips of each side; given, interval, frames; steps: of equal steps; runs: row →
        list of what each seed left, in the order of seeds, at least to equal steps; unfinished: the same of runs that
        have not come so far; refused: row → why it cannot go on from the frames that are given.
    """
    found: dict[str, dict[str, list[Scores]]] = {"runs": {}, "unfinished": {}}
    refused: dict[str, str] = {}
    runs = sorted((read_json(path) for path in (m.folder / "table1").glob("*-seed*.json")), key=lambda one: one["seed"])
    order = {name: place for place, name in enumerate(all_rows())}
    for run in sorted(runs, key=lambda one: order.get(one["row"], len(order))):
        if "refused" in run:
            refused[run["row"]] = run["refused"]
            continue
        ended = str(run["budgets"]["equal_steps"]) in run["points"]
        found["runs" if ended else "unfinished"].setdefault(run["row"], []).append(run)
    return {
        "references": references,
        "n": len(m.context),
        "given": m.world.given,
        "interval": m.world.interval,
        "frames": m.world.frames,
        "steps": m.world.preset.train.steps,
        **found,
        "refused": refused,
    }


def sheet_rows(m: Measures, figures: Scores) -> Iterator[tuple[str, np.ndarray]]:
    """The truth and each row's continuations of the same clips."""
    for clip in range(min(SHEET_CLIPS, len(m.context))):
        yield f"clip {clip}: true ({m.world.given} given)", m.context[clip]
        for name, runs in figures["runs"].items():
            end = runs[0]["budgets"]["equal_steps"]
            path = m.folder / "samples" / f"{Row.parse(name).key}-seed{runs[0]['seed']}-step{end}.npy"
            if path.is_file():
                clips = np.load(path, allow_pickle=False, mmap_mode="r")
                yield f"{name}, seed {runs[0]['seed']}, step {end}", clips[clip]
