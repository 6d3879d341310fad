"""The paper's experiments: each takes a world's folder and gives its figures; nothing is measured twice."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from magi_video.evaluation.baselines import baselines
from magi_video.experiments.clips import Clips, every, noise
from magi_video.experiments.gap import last_frame_loss
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.rows import Row, all_rows
from magi_video.experiments.timing import time_against_frames
from magi_video.experiments.verdicts import cache_verdict
from magi_video.sampling.sampling import Sampling

GAP_CLIPS = 64
MASK_STEPS = (1, 4, 8, 16)
DENOISE_STEPS = (5, 10, 20)


def sensitivity(m: Measures, seeds: Sequence[int]) -> Scores:
    """What the score says of clips whose faults are known: can it tell at all, and what is its floor?"""
    rows = baselines(m.world.given, m.codec)
    damages: dict[str, Callable[[Clips], Clips]] = {
        "floor": lambda clips: clips,
        **{"frozen" if name == "still" else name: every(change) for name, change in rows.items()},
        "noise": noise,
    }
    return {name: m.score(name, partial(damaged, m, damage)) for name, damage in damages.items()}


def damaged(m: Measures, damage: Callable[[Clips], Clips]) -> Clips:
    """The context set with a fault."""
    return damage(m.context)


def ctf_vs_mtf(m: Measures, seeds: Sequence[int]) -> Scores:
    """CTF against MTF, at equal steps and at equal training time (paper: table 2 and Fig. 4c-d, 5b)."""
    steps = m.world.preset.train.steps
    longer = m.workplace.equal_time_steps(steps)
    entries = {
        "ctf": [score_model(m, "ctf", seed, steps) for seed in seeds],
        "mtf_equal_steps": [score_model(m, "mtf", seed, steps) for seed in seeds],
        "mtf_equal_time": [score_model(m, "mtf", seed, longer) for seed in seeds],
    }
    return {
        "seeds": list(seeds),
        "steps": {"ctf": steps, "mtf_equal_steps": steps, "mtf_equal_time": longer},
        "step_time": m.workplace.step_time(),
        "given": m.world.given,
        "runs": entries,
    }


def score_model(m: Measures, variant: str, seed: int, steps: int) -> Scores:
    """One model's continuations of the context set."""
    name = f"{variant}-seed{seed}-step{steps}"
    model = m.workplace.model(variant, seed, steps)
    scored = m.score(name, lambda: m.samples(name, model), paired=True, fid=m.world.fid)

    def measure_gap() -> Scores:
        m.settle()
        return dict(last_frame_loss(model, m.context[:GAP_CLIPS], m.world.interval))

    gap = m.kept_figures(f"{name}-gap", measure_gap)
    return scored | {"last_frame_loss": gap}


def kv_cache(m: Measures, seeds: Sequence[int]) -> Scores:
    """Generation time and memory against frames, with and without the cache (paper: Fig. 5a), by every row of table 1.

    Models have random weights: nothing is trained. The figures of complete teacher forcing also stand by themselves.
    """
    rows: dict[str, Scores] = {}
    for name in all_rows():
        row = Row.parse(name)
        m.workplace.watched.stage(f"{m.world.name}: timing {name}")
        figures = m.kept_figures(f"time-{row.key}", partial(time_against_frames, row, m.world))
        rows[name] = figures | {"verdict": str(cache_verdict(figures))}
    return rows["complete"] | {"rows": rows}


def sampling_steps(m: Measures, seeds: Sequence[int]) -> Scores:
    """Mask steps × denoise steps: quality against seconds a frame."""
    steps, own = m.world.preset.train.steps, m.world.preset.own_sampling
    grid = [replace(own, mask_steps=mask) for mask in MASK_STEPS]
    grid += [replace(own, denoise_steps=denoise) for denoise in DENOISE_STEPS if denoise != own.denoise_steps]
    return {"grid": [score_steps(m, seeds[0], steps, one) for one in grid]}


def score_steps(m: Measures, seed: int, steps: int, one: Sampling) -> Scores:
    """Quality and speed of one sampling."""
    model = m.workplace.model("ctf", seed, steps)
    asked: dict[str, Any] = {"mask_steps": one.mask_steps, "denoise_steps": one.denoise_steps}
    name = f"ctf-seed{seed}-mask{one.mask_steps}-denoise{one.denoise_steps}"
    timed = m.kept_figures(f"{name}-seconds", lambda: {"seconds_per_frame": m.seconds_per_frame(model, asked)})
    if one == m.world.preset.own_sampling:
        scored = score_model(m, "ctf", seed, steps)
    else:
        scored = m.score(name, lambda: m.samples(name, model, **asked), paired=True)
    return {**asked, **scored, **timed}


RECIPES: dict[str, Callable[[Measures, Sequence[int]], Scores]] = {
    "sensitivity": sensitivity,
    "ctf-vs-mtf": ctf_vs_mtf,
    "kv-cache": kv_cache,
    "sampling-steps": sampling_steps,
}
"""In the order in which they are worth running."""


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Over seeds; the deviation of a single one is 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
