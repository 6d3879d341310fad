"""Training clips that show a sparse past: older frames first, as they stay in sight in a long rollout, then the latest.

`DataConfig.sparse_past`. A rollout with `Sampling.sink_frames` or `strided_frames` sees frames far apart at consecutive
positions (`FrameMemory`). Clips of neighbouring frames never look like that.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from magi_video.exposure.memory import FrameMemory


@dataclass(frozen=True)
class SparsePast:
    """How many clips show a sparse past, and which.

    Attributes:
        share: probability that a clip shows one, in (0, 1].
        memory: which frames are in sight of the last one; its window is the length of a clip.
    """

    share: float
    memory: FrameMemory

    def draw(self, random: np.random.Generator, num_frames: int, interval: int) -> list[int] | None:
        """Frame numbers of a clip that ends anywhere in a rollout that begins anywhere in a video.

        Args:
            random: source of the draws: whether the clip shows a sparse past, how long the rollout is, and its start.
            num_frames: of the video.
            interval: from one frame of the rollout to the next, in frames of the video.

        Returns:
            The frames, increasing; None for a clip that shows its neighbours: by the share, or because no rollout of
            this video would be longer than the window.
        """
        longest = (num_frames - 1) // interval
        if random.random() >= self.share or longest < self.memory.window:
            return None
        newest = int(random.integers(self.memory.window, longest + 1))
        start = int(random.integers(num_frames - newest * interval))
        return [start + interval * frame for frame in self.memory.in_sight(newest)]


def follow_each_other(frames: list[int], interval: int) -> list[bool]:
    """Of each frame of a clip, whether it lies one interval after the frame before it; true of the first."""
    return [True, *(after - before == interval for before, after in pairwise(frames))]
