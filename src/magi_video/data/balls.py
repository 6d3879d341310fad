"""Bouncing digits as a Gymnasium environment, `magi/BouncingDigits-v0`: the field's toy of moving objects.

After Srivastava et al., "Unsupervised Learning of Video Representations using LSTMs" (2015), "Moving MNIST", with
digits of a typeface in place of MNIST's, so that nothing is downloaded. Each digit keeps its speed and bounces off the
borders; where digits overlap the brighter value shows. One frame tells where the digits are, only several tell where
they go, and there are no actions that would tell it: what comes next must be read from the past.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ENV_ID = "magi/BouncingDigits-v0"
GLYPH_POINTS = 32  # digits about 24 pixels high and 18 wide, on 64 × 64
SPEEDS = (2.0, 5.0)  # pixels a frame, least and largest
COLOURS = ((255, 208, 96), (96, 176, 255), (255, 112, 128), (144, 240, 144))


class BouncingDigits(gymnasium.Env[np.ndarray, np.int64]):
    """Digits that bounce in a black box; frames uint8 [64, 64, 3]. The only action does nothing; no episode ends.

    Args:
        num_digits: digits in the box, each of its own colour, 4 at most.
        side: height and width of the box in pixels.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, num_digits: int = 2, side: int = 64) -> None:
        self.side, self.num_digits = side, num_digits
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.action_space = spaces.Discrete(1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """New digits at random places with random velocities; the first frame."""
        super().reset(seed=seed)
        count = self.num_digits
        self.glyphs = [digit_glyph(int(digit)) for digit in self.np_random.integers(10, size=count)]
        self.room_N2 = np.array([[self.side - side for side in glyph.shape] for glyph in self.glyphs], float)
        self.place_N2 = self.np_random.uniform(0, self.room_N2)
        angle_N = self.np_random.uniform(0, 2 * np.pi, count)
        speed_N = self.np_random.uniform(*SPEEDS, count)
        self.velocity_N2 = speed_N[:, None] * np.stack([np.sin(angle_N), np.cos(angle_N)], axis=1)
        return self._picture(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One frame further, whatever the action."""
        place_N2 = self.place_N2 + self.velocity_N2
        outside_N2 = (place_N2 < 0) | (place_N2 > self.room_N2)
        self.velocity_N2 = np.where(outside_N2, -self.velocity_N2, self.velocity_N2)
        place_N2 = np.where(place_N2 < 0, -place_N2, place_N2)
        self.place_N2 = np.where(place_N2 > self.room_N2, 2 * self.room_N2 - place_N2, place_N2)
        return self._picture(), 0.0, False, False, {}

    def _picture(self) -> np.ndarray:
        picture = np.zeros((self.side, self.side, 3), np.uint8)
        for glyph, (top, left), colour in zip(self.glyphs, self.place_N2.round().astype(int), COLOURS, strict=False):
            region = picture[top : top + glyph.shape[0], left : left + glyph.shape[1]]
            np.maximum(region, (glyph[..., None] * np.array(colour) / 255).astype(np.uint8), out=region)
        return picture


@cache
def digit_glyph(digit: int) -> np.ndarray:
    """A digit in the bold typeface that matplotlib ships, cut to its ink; uint8 [height, width]."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf", GLYPH_POINTS)
    page = Image.new("L", (2 * GLYPH_POINTS, 2 * GLYPH_POINTS))
    ImageDraw.Draw(page).text((GLYPH_POINTS // 2, GLYPH_POINTS // 2), str(digit), fill=255, font=font)
    return np.asarray(page.crop(page.getbbox()))
