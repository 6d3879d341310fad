"""What a pipeline is at work on: a rollout, what it begins from and what it is conditioned on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from magi_video.sampling.rollout import Rollout


@dataclass
class Task:
    """A batch of videos in the making.

    Attributes:
        rollout: over latent frames.
        given_BTCHW: given frames `[B, K, 3, height, width]` in [−1, 1], or, as `latents` says, latent frames
            `[B, K, C, h, w]`; None if there are none.
        conditions: of each latent frame, in order, without end.
    """

    rollout: Rollout
    given_BTCHW: Tensor | None
    conditions: Iterator[dict[str, Tensor]]
    latents: bool = False

    @property
    def total_frames(self) -> float:
        """Latent frames in all; infinite for a rollout without end."""
        return math.inf if self.rollout.total_frames is None else self.rollout.total_frames
