"""Clips at another interval than the world's own: the real ones, and how a model continues them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from magi_video.data.folder import VideoFolder
from magi_video.evaluation.baselines import baselines
from magi_video.experiments.clips import Clips, every, read_clips, recorded_picks
from magi_video.experiments.measure import Measures, Scores
from magi_video.experiments.oracle import balls


class IntervalClips:
    """Two disjoint real sets of a recorded world at one interval.

    Args:
        m: the world's measures.
        interval: frames of the video from one frame of a clip to the next.
    """

    def __init__(self, m: Measures, interval: int) -> None:
        self.m, self.interval = m, interval
        m.workplace.record()
        world, videos = replace(m.world, interval=interval), VideoFolder(m.folder / "test")
        reference, context = recorded_picks(videos, world)
        self.reference: Clips = read_clips(videos, reference, world)
        self.context: Clips = read_clips(videos, context, world)
        given = (world.given - 1) * interval + 1
        self.dense: Clips = read_clips(videos, context, replace(world, interval=1), given)
        """Every frame of the video, from the first that is given to the last."""

    def references(self) -> Scores:
        """Name → scores of clips that need no model: real, codec, still, copy_last, shuffled."""
        rows: dict[str, Callable[[Clips], Clips]] = {"real": lambda clips: clips}
        rows |= {name: every(change) for name, change in baselines(self.m.world.given, self.m.codec).items()}
        return {name: self._score(name, lambda: change(self.context)) for name, change in rows.items()}  # noqa: B023

    def score(self, name: str, model: Path, largest: int) -> Scores:
        """How a model continues the context set.

        Args:
            name: of the model, in file names.
            model: its folder.
            largest: interval that it can be asked for. A larger one is made of every frame between: the model is given
                all frames of the video up to the last given one, goes on frame by frame, and every `interval`-th frame
                is kept.
        """
        m, interval, key = self.m, self.interval, f"interval{self.interval}-{name}"
        if interval <= largest:
            return self._score(name, lambda: m.samples(key, model, context=self.context, interval=interval))

        def thinned() -> Clips:
            frames, given = (m.world.frames - 1) * interval + 1, self.dense.shape[1]
            return m.samples(key, model, self.dense, frames, given, interval=1)[:, ::interval]

        return self._score(name, thinned)

    def _score(self, name: str, clips: Callable[[], Clips]) -> Scores:
        """FVD with its interval, and what the oracle reads."""
        m, prefix = self.m, f"interval{self.interval}"

        def compute() -> Scores:
            made = clips()
            scores = m.frechet(f"{prefix}-{name}", lambda: made, reference=(f"{prefix}-reference", self.reference))
            return scores | {"oracle": balls(made, self.context, m.world.given)}

        return m.kept_figures(f"{prefix}-{name}", compute)
