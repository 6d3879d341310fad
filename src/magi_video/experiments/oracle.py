"""Scores of a world whose state can be read from its pixels: no detector, no bias of few clips, nothing to be blind to.

`balls`: every pixel goes to the nearest of black and the balls' own colours; a ball's state is the area, the centre and
the hue of its pixels. Real and generated clips are read alike, so what the reading cannot see (a ball behind another)
it cannot see on either side. What each score is: `BallScores`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import ndimage

from magi_video.errors import MagiError
from magi_video.recordings.ball_looks import COLOURS, RADIUS

Clips = np.ndarray
"""uint8 [N, T, H, W, 3]."""

BALLS = 2
PALETTE = np.array([(0, 0, 0), *COLOURS[:BALLS]], dtype=np.float32)
LEAST_AREA = 0.25
"""Of a ball's area: fewer pixels are no ball."""
FARTHEST = 0.5
"""Error of position, in sides of the picture, of a ball that is not there; a larger one counts as this."""
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


@dataclass(frozen=True, eq=False)
class BallStates:
    """What is seen in the T frames of a clip; K balls.

    Attributes:
        blobs_T: separate coloured regions of at least a quarter of a ball's area.
        area_TK: pixels of each ball's colour, in areas of a whole ball.
        centre_TK2: their mean place (down, right) in sides of the picture; NaN where a ball is not there.
        hue_TK: absolute difference of their mean hue from the ball's own, degrees; NaN where it is not there.
    """

    blobs_T: np.ndarray
    area_TK: np.ndarray
    centre_TK2: np.ndarray
    hue_TK: np.ndarray

    @property
    def there_TK(self) -> np.ndarray:  # noqa: N802 (the shape suffix)
        """Whether a ball is seen."""
        return self.area_TK >= LEAST_AREA


def read_balls(clip_THWC: np.ndarray) -> BallStates:
    """Read a clip of two balls, uint8 [T, side, side, 3]."""
    if clip_THWC.dtype != np.uint8 or clip_THWC.ndim != 4 or clip_THWC.shape[3] != 3:
        got = f"{clip_THWC.dtype} {list(clip_THWC.shape)}"
        raise MagiError(f"the world of balls is read from uint8 [frames, height, width, 3], got {got}")
    height, width = clip_THWC.shape[1:3]
    if height != width:
        raise MagiError(f"the world of balls is square, got {height}×{width} pixels")
    whole = np.pi * (RADIUS * height) ** 2
    colour_THWC = clip_THWC.astype(np.float32)
    nearest_THW = np.stack([np.square(colour_THWC - one).sum(-1) for one in PALETTE]).argmin(0)
    is_ball_KTHW = nearest_THW == np.arange(1, BALLS + 1)[:, None, None, None]
    pixels_TK = is_ball_KTHW.sum((2, 3)).T
    area_TK = pixels_TK / whole
    counted_TK = np.maximum(pixels_TK, 1)
    places = (np.arange(height) + 0.5) / height
    rows_TK = (is_ball_KTHW.sum(3) @ places).T / counted_TK
    columns_TK = (is_ball_KTHW.sum(2) @ places).T / counted_TK
    mean_TK3 = np.einsum("kthw,thwc->tkc", is_ball_KTHW.astype(np.float32), colour_THWC) / counted_TK[..., None]
    own_K = hue_degrees(PALETTE[1:])
    hue_TK = np.abs((hue_degrees(mean_TK3) - own_K + 180) % 360 - 180)
    absent_TK = area_TK < LEAST_AREA
    centre_TK2 = np.stack([rows_TK, columns_TK], axis=-1)
    centre_TK2[absent_TK] = np.nan
    hue_TK[absent_TK] = np.nan
    blobs_T = np.array([count_blobs(frame_HW > 0, LEAST_AREA * whole) for frame_HW in nearest_THW])
    return BallStates(blobs_T, area_TK, centre_TK2, hue_TK)


def count_blobs(filled_HW: np.ndarray, least: float) -> int:
    """Connected regions (with corners) of at least `least` pixels."""
    labels_HW, count = ndimage.label(filled_HW, EIGHT_NEIGHBOURS)
    return int((np.bincount(labels_HW.ravel(), minlength=count + 1)[1:] >= least).sum())


def hue_degrees(colours_X3: np.ndarray) -> np.ndarray:
    """The angle of colours in the plane at right angles to grey, 0…360 (Preucil's circle, without branches)."""
    red, green, blue = np.moveaxis(colours_X3, -1, 0)
    return np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360


@dataclass(frozen=True, eq=False)
class BallScores:
    """How right the generated frames of a clip are, one value a frame; the first F frames were given, G = T − F follow.

    Attributes:
        apart_G: 1 where exactly two separate balls are seen. The truth has its own share, to compare with.
        number_G: 1 where as many separate balls are seen as in the true frame.
        area_G: mean over balls of |area − the true frame's|, in areas of a ball.
        hue_G: mean over the balls that are seen of the difference from the ball's own hue, degrees; NaN without any.
        speed_G: mean over balls and both axes of the difference of |displacement| into this frame from the ball's own
            speed along that axis, in hundredths of the side: a ball keeps it all its life. Its speed is the median of
            |displacement| over the true clip, so a bounce costs the truth itself a little. NaN where no ball is seen.
        position_G: mean over the balls that are seen in the true frame of the distance from the true place, in
            hundredths of the side; at most 50, and 50 for a ball that is not there.
    """

    apart_G: np.ndarray
    number_G: np.ndarray
    area_G: np.ndarray
    hue_G: np.ndarray
    speed_G: np.ndarray
    position_G: np.ndarray


def score_balls(fake_THWC: np.ndarray, truth_THWC: np.ndarray, given: int) -> BallScores:
    """Compare a generated clip with the true continuation of its first `given` frames."""
    if fake_THWC.shape != truth_THWC.shape:
        raise MagiError(f"a clip of shape {list(fake_THWC.shape)} cannot continue one of {list(truth_THWC.shape)}")
    fake, truth = read_balls(fake_THWC), read_balls(truth_THWC)
    later = slice(given, None)
    with np.errstate(invalid="ignore"):
        step_TK2, true_TK2 = (np.abs(np.diff(one.centre_TK2, axis=0, prepend=np.nan)) for one in (fake, truth))
        speed_K2 = mean_or_nan(true_TK2, 0, np.nanmedian)
        distance_TK = np.linalg.norm(fake.centre_TK2 - truth.centre_TK2, axis=-1)
        distance_TK = np.where(fake.there_TK, np.minimum(distance_TK, FARTHEST), FARTHEST)
        distance_TK = np.where(truth.there_TK, distance_TK, np.nan)
        return BallScores(
            apart_G=(fake.blobs_T == BALLS)[later].astype(float),
            number_G=(fake.blobs_T == truth.blobs_T)[later].astype(float),
            area_G=np.abs(fake.area_TK - truth.area_TK).mean(1)[later],
            hue_G=mean_or_nan(fake.hue_TK, 1)[later],
            speed_G=100 * mean_or_nan(np.abs(step_TK2 - speed_K2), (1, 2))[later],
            position_G=100 * mean_or_nan(distance_TK, 1)[later],
        )


def mean_or_nan(
    values: np.ndarray, axis: int | tuple[int, ...], mean: Callable[..., np.ndarray] = np.nanmean
) -> np.ndarray:
    """Mean of what is not NaN; NaN, without a warning, where everything is."""
    empty = np.isnan(values).all(axis=axis, keepdims=True)
    found = mean(np.where(empty, 0.0, values), axis=axis)
    return np.where(np.squeeze(empty, axis=axis), np.nan, found)


def balls(fake_NTHWC: Clips, truth_NTHWC: Clips, given: int) -> dict[str, Any]:
    """The scores of a set of clips that continue true ones.

    Returns:
        name → mean over clips and generated frames of each of `BallScores`; `per_frame` → name → mean over clips of
        each generated frame; `per_clip` → name → mean over the frames of each clip (for intervals over clips). None
        where no frame of any clip has the value.
    """
    scored = [score_balls(fake, truth, given) for fake, truth in zip(fake_NTHWC, truth_NTHWC, strict=True)]
    result: dict[str, Any] = {"per_frame": {}, "per_clip": {}}
    for one in fields(BallScores):
        name = one.name.removesuffix("_G")
        values_NG = np.stack([getattr(scores, one.name) for scores in scored])
        result[name] = plain(mean_or_nan(values_NG, (0, 1)))
        result["per_frame"][name] = [plain(value) for value in mean_or_nan(values_NG, 0)]
        result["per_clip"][name] = [plain(value) for value in mean_or_nan(values_NG, 1)]
    return result


def plain(value: float | np.ndarray) -> float | None:
    """A number for JSON, four digits behind the point; None for NaN."""
    return None if np.isnan(value) else round(float(value), 4)


def names(figures: dict[str, Any]) -> Sequence[str]:
    """The scores in what an oracle returned."""
    return [name for name in figures if name not in ("per_frame", "per_clip")]
