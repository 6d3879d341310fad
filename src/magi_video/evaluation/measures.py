"""How much moves, measured on pixels alone: it needs no network and shows what a distance of features may hide.

Frozen video has no speed; video with frames out of order, or that flickers, has too much jerk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wasserstein_distance

from magi_video.errors import MagiError


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion of one clip of T frames, in 8-bit levels (0–255), mean over pixels and channels.

    Attributes:
        speed_T: |x[t+1] − x[t]| for the T − 1 pairs of successive frames.
        jerk_T: |x[t+2] − 2 x[t+1] + x[t]| for the T − 2 triples: small where motion is steady.
    """

    speed_T: np.ndarray
    jerk_T: np.ndarray


def clip_motion(video_THWC: np.ndarray) -> Motion:
    """Motion of one clip, uint8 [T, H, W, C] with T ≥ 3."""
    video_THWC = np.asarray(video_THWC)
    if video_THWC.dtype != np.uint8 or video_THWC.ndim != 4 or len(video_THWC) < 3:
        got = f"{video_THWC.dtype} {list(video_THWC.shape)}"
        raise MagiError(f"motion needs a clip of uint8 [frames ≥ 3, height, width, channels], got {got}")
    step_THWC = np.diff(video_THWC.astype(np.int16), axis=0)
    return Motion(np.abs(step_THWC).mean((1, 2, 3)), np.abs(np.diff(step_THWC, axis=0)).mean((1, 2, 3)))


def compare_motion(real: Sequence[Motion], fake: Sequence[Motion]) -> dict[str, float]:
    """Compare two sets of clips (any sizes, any lengths) by their clips' mean speed and mean jerk.

    Returns, for speed and for jerk: `real_speed`, `fake_speed` (means over clips, 8-bit levels), `speed_distance` (the
    1-Wasserstein distance between the clips' values, 8-bit levels; 0 is best) and `speed_ratio` (fake over real; 1 is
    best; absent where nothing moves in the real set).
    """
    if not real or not fake:
        raise MagiError(f"motion needs clips on both sides, got {len(real)} real and {len(fake)} fake")
    result: dict[str, float] = {}
    for name in ("speed", "jerk"):
        real_N, fake_N = (np.array([getattr(motion, f"{name}_T").mean() for motion in side]) for side in (real, fake))
        result[f"real_{name}"] = float(real_N.mean())
        result[f"fake_{name}"] = float(fake_N.mean())
        result[f"{name}_distance"] = float(wasserstein_distance(real_N, fake_N))
        if real_N.mean() > 0:
            result[f"{name}_ratio"] = float(fake_N.mean() / real_N.mean())
    return result
