"""How far a model follows its actions, by pixels alone: ΔPSNR (Genie, Bruce et al. 2024, section 3).

Each clip is continued twice with the same noise, under the recorded actions and under random ones:
ΔPSNR = PSNR(truth, under the recorded actions) − PSNR(truth, under random ones), frame by frame, mean over the clips.
Above 0 the recorded actions bring a continuation nearer to what happened; 0 means that actions change nothing. Genie
reports frame t = 4 and draws random latent actions evenly; here actions are drawn as often as they were recorded in
all videos of the data set, so that a clip's do not depend on how many clips there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from magi_video.errors import MagiError

REPORTED = 4
"""Generated frame, counted from 1, whose ΔPSNR is reported, as in Genie."""


def check_controllability(actions: bool, given: int | None = None, generated: int | None = None) -> None:
    """Refuse a ΔPSNR that cannot be measured.

    Args:
        actions: whether the model is given the recorded actions.
        given: frames that it is given; None where that is not known yet.
        generated: frames that it generates; None where that is not known yet.

    Raises:
        MagiError: it is not given the actions, or no frame, or it generates too few.
    """
    if not actions:
        raise MagiError("--controllability compares recorded actions with random ones: ask for --actions as well")
    if given == 0:
        raise MagiError("--controllability compares with the true continuation: give --context-frames 1 or more")
    if generated is not None and generated < REPORTED:
        raise MagiError(f"--controllability is of generated frame {REPORTED}; the clips have {generated} generated")


def random_actions(recorded_TBA: np.ndarray, given: int, pool_MA: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """Random actions on the way to every generated frame.

    Args:
        recorded_TBA: that lead to each frame of B clips; those that lead to the `given` frames stay.
        given: frames that the model is given.
        pool_MA: actions to draw from, each as likely as any other.
        seeds: of each clip.

    Returns:
        float32 `[T, B, A]`.
    """
    drawn_TBA = recorded_TBA.copy()
    first = max(given, 1)  # nothing leads to frame 0
    for clip, seed in enumerate(seeds):
        picked = np.random.default_rng([seed, 1]).integers(len(pool_MA), size=len(drawn_TBA) - first)
        drawn_TBA[first:, clip] = pool_MA[picked]
    return drawn_TBA


def delta_psnr(recorded_NT: np.ndarray, random_NT: np.ndarray) -> dict[str, Any]:
    """The figures of a result.

    Args:
        recorded_NT: PSNR of each generated frame under the recorded actions, dB.
        random_NT: the same under random ones.

    Returns:
        frame: the one that is reported, counted from 1; delta_psnr: dB; interval: its 95 % interval over the clips
        (Student's t), None of a single clip; psnr_random: PSNR under random actions, mean of all frames; by_frame:
        ΔPSNR of each.
    """
    delta_NT = recorded_NT - random_NT
    reported_N = delta_NT[:, REPORTED - 1]
    mean, interval = float(reported_N.mean()), None
    if len(reported_N) > 1:
        from scipy.special import stdtrit  # the options of this module are read without scipy

        count = len(reported_N)
        spread = float(stdtrit(count - 1, 0.975) * reported_N.std(ddof=1)) / count**0.5
        interval = [mean - spread, mean + spread]
    return {
        "frame": REPORTED,
        "delta_psnr": mean,
        "interval": interval,
        "psnr_random": float(random_NT.mean()),
        "by_frame": delta_NT.mean(axis=0),
    }
