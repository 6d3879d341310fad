"""Bouncing balls as a Gymnasium environment, `magi/BouncingBalls-v0`: the field's oldest toy of moving objects.

After Sutskever et al., "The Recurrent Temporal Restricted Boltzmann Machine" (2008), but the balls pass through each
other. Each keeps its speed and bounces off the borders. One frame tells where the balls are, only several tell where
they go, and there are no actions that would tell it: what comes next must be read from the past.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from magi_video.recordings.ball_looks import COLOURS, RADIUS

ENV_ID = "magi/BouncingBalls-v0"
SPEEDS = (0.03, 0.09)  # of the box's side a frame, least and largest


class BouncingBalls(gymnasium.Env[np.ndarray, np.int64]):
    """Balls that bounce in a black box; frames uint8 [side, side, 3]. The only action does nothing; no episode ends.

    Args:
        num_balls: balls in the box, each of its own colour, 4 at most.
        side: height and width of the box in pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, num_balls: int = 2, side: int = 64) -> None:
        self.side, self.num_balls = side, num_balls
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.action_space = spaces.Discrete(1)
        self.centre_N2 = self.velocity_N2 = np.zeros((num_balls, 2))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Balls at random places with random velocities; the first frame."""
        super().reset(seed=seed)
        count = self.num_balls
        self.centre_N2 = self.np_random.uniform(RADIUS, 1 - RADIUS, (count, 2))
        angle_N = self.np_random.uniform(0, 2 * np.pi, count)
        speed_N = self.np_random.uniform(*SPEEDS, count)
        self.velocity_N2 = speed_N[:, None] * np.stack([np.sin(angle_N), np.cos(angle_N)], axis=1)
        return self._picture(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One frame further, whatever the action."""
        centre_N2 = self.centre_N2 + self.velocity_N2
        mirrored_N2 = np.where(centre_N2 < RADIUS, 2 * RADIUS - centre_N2, centre_N2)
        mirrored_N2 = np.where(centre_N2 > 1 - RADIUS, 2 * (1 - RADIUS) - centre_N2, mirrored_N2)
        self.velocity_N2 = np.where(mirrored_N2 == centre_N2, self.velocity_N2, -self.velocity_N2)
        self.centre_N2 = mirrored_N2
        return self._picture(), 0.0, False, False, {}

    def _picture(self) -> np.ndarray:
        pixels = np.arange(self.side) + 0.5
        picture = np.zeros((self.side, self.side, 3))
        for (top, left), colour in zip(self.centre_N2 * self.side, COLOURS, strict=False):
            distance = np.hypot(pixels[:, None] - top, pixels[None] - left)
            cover = np.clip(RADIUS * self.side - distance + 0.5, 0, 1)[..., None]  # soft by a pixel at the rim
            picture += cover * (np.array(colour) - picture)
        return picture.round().astype(np.uint8)
