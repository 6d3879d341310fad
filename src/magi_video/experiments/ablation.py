"""`magi reproduce ablation`: what interval training and noise injection do, for complete and for masked teacher forcing
(paper, Fig. 5c).

Every variant is trained on long recordings at intervals up to `INTERVALS[-1]`, or at 1 where it goes without. It
continues clips at each interval, and is rolled out for the longest of `LENGTHS`; windows at the end of each length are
scored as in `drift`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from magi_video.experiments.asked import ABLATION, ABLATION_ROWS, check_asked
from magi_video.experiments.intervals import IntervalClips
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.rollouts import Keep, Rollouts, described, kept_runs, run_name, split, windows_of
from magi_video.experiments.runs import changed
from magi_video.experiments.worlds import World
from magi_video.files.atomic import write_json

INTERVALS = (1, 2, 4, 8)
"""At which clips are continued; the largest is that of training."""
LENGTHS = (16, 64, 120, 256)
"""Of the rollouts that are compared, in frames."""
CLIPS = 64
"""Continued at each interval; as many other real ones are the reference."""


def ablation_world(world: World) -> World:
    """The world with training videos as long as its test videos, at every interval at which these hold a clip."""
    largest = max(interval for interval in INTERVALS if (world.frames - 1) * interval < world.test_frames)
    preset = replace(world.preset, data=replace(world.preset.data, max_interval=largest))
    return replace(world, preset=preset, train_frames=world.test_frames, num_clips=min(CLIPS, world.num_clips))


def intervals_of(world: World) -> list[int]:
    """At which clips of such a world are continued."""
    return [interval for interval in INTERVALS if interval <= world.preset.data.max_interval]


def lengths_of(world: World) -> list[int]:
    """Of the rollouts that are compared in this world."""
    return [*(length for length in LENGTHS if length < world.long_frames), world.long_frames]


def ablation(
    m: Measures, seeds: Sequence[int], rows: Sequence[str] | None = None, keep: Keep = lambda figures: None
) -> Scores:
    """Train and score the variants; what is there already is kept.

    Args:
        m: the world's measures. What is made here lies in a folder of its own, OUT/WORLD/ablation.
        seeds: of the training runs.
        rows: names of `ABLATION_ROWS`; all if not given.
        keep: called with the figures as they stand whenever a run has been scored.

    Returns:
        The figures of everything that the folder holds; see `collect`.

    Raises:
        MagiError: the world is none that the recipe is meant for, or a row is none of `ABLATION_ROWS`.
    """
    check_asked(ABLATION, seeds, rows, [m.world.name])
    own = m.at(replace(m.workplace, world=ablation_world(m.world), folder=m.folder / ABLATION))
    world, lengths = own.world, lengths_of(own.world)
    windows = windows_of(world.given, world.frames, lengths)
    rollouts = Rollouts(own, ABLATION, windows, count=world.rollouts, length=lengths[-1], least_true=lengths[-1])
    clips = {interval: IntervalClips(own, interval) for interval in intervals_of(world)}
    references = {name: split(scores) | {"intervals": {}} for name, scores in rollouts.references().items()}
    for interval, one in clips.items():
        for name, scores in one.references().items():
            references[name]["intervals"][str(interval)] = scores
    for seed in seeds:
        for name in ABLATION_ROWS if rows is None else rows:
            score_row(rollouts, clips, name, seed)
            keep(collect(own, references))
    return collect(own, references)


def score_row(rollouts: Rollouts, clips: dict[int, IntervalClips], name: str, seed: int) -> None:
    """Score one model at every interval and at the end of every length."""
    m = rollouts.m
    steps = m.world.preset.train.steps
    model, key = partial(m.workplace.model, name, seed, steps), run_name(name, seed, steps)
    largest = changed(m.world.preset, name).data.max_interval
    figures = {"row": name, "seed": seed, "steps": steps, "largest_interval": largest}
    figures |= {"intervals": {str(interval): one.score(key, model(), largest) for interval, one in clips.items()}}
    figures |= split(rollouts.score(key, model))
    write_json(m.folder / "rows" / f"{name}-seed{seed}.json", figures)


def collect(m: Measures, references: Scores) -> Scores:
    """The figures of everything that the folder holds.

    Returns:
        references: name → {"early": scores, "late": length → scores, "intervals": interval → scores}; rollouts; clips:
        at each interval; given, window, lengths, intervals, steps; oracle: its name; runs: row → list of what each seed
        left, in the order of seeds.
    """
    world = m.world
    return {
        "references": references,
        "rollouts": world.rollouts,
        "clips": world.num_clips,
        "lengths": lengths_of(world),
        "intervals": intervals_of(world),
        **described(world),
        "runs": kept_runs(m.folder / "rows", ABLATION_ROWS, world.preset.train.steps),
    }
