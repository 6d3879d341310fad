"""Quality over the frame index of rollouts far longer than the training clips (paper, Fig. 6)."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from magi_video.data.folder import VideoFolder
from magi_video.evaluation.baselines import baselines
from magi_video.evaluation.frechet import Moments, frechet_distance
from magi_video.evaluation.measures import clip_motion
from magi_video.experiments.clips import Clips, every, read_clips
from magi_video.video.image import contact_sheet, write_image

if TYPE_CHECKING:
    from magi_video.experiments.measure import Measures

ROLLOUTS = 48
FRAMES = 120
WINDOW = 16
STARTS = (0, 32, 64, 104)
"""First frames of the windows that are compared; the last one ends with the rollout."""


def long_rollout(m: "Measures", models: dict[str, Path]) -> dict[str, Any]:
    """Roll models out to 120 frames and compare windows of 16 frames with the true videos' at the same index.

    The windows of one half of the long test videos are the reference; those of the other half are continued. Besides
    the model: the last given frame held for ever, and the other half's own true windows, which is as close as the real
    thing comes with so few clips.

    Returns:
        frame: first frame of each window; fvd: {a model's name, copy_last, true} per window; speed: {…} mean grey-level
        change from frame to frame per window; sharpness: {…} mean gradient magnitude per window.
    """
    reference, truth = long_sets(m)
    given = m.world.given
    sets = {"true": truth, "copy_last": every(baselines(given, None)["copy_last"])(truth)}
    for name, model in models.items():
        sets[name] = m.samples(f"rollout-{name}", model, context=truth, num_frames=FRAMES)
        sheet = contact_sheet(list(sets[name][:4]), columns=20, max_frames=20)
        write_image(m.folder / f"rollout-{name}.png", sheet)
    starts = list(STARTS)
    figures: dict[str, Any] = {"frame": starts, "clips": len(truth), "fvd": {}, "speed": {}, "sharpness": {}}
    real = window_features(m, "reference", reference, starts)
    for name, clips in sets.items():
        windows = [clips[:, start : start + WINDOW] for start in starts]
        features = window_features(m, name, clips, starts)
        figures["fvd"][name] = [
            round(frechet_distance(Moments.from_features(r), Moments.from_features(f), ddof=1).value, 1)
            for r, f in zip(real, features, strict=True)
        ]
        figures["speed"][name] = [round(speed(window), 3) for window in windows]
        figures["sharpness"][name] = [round(sharpness(window), 3) for window in windows]
    return figures


def window_features(m: "Measures", name: str, clips: Clips, starts: list[int]) -> list[np.ndarray]:
    """I3D logits [N, 400] of every window."""
    return [m.features(f"rollout-{name}-{s}", partial(_window, clips, s)) for s in starts]


def _window(clips: Clips, start: int) -> Clips:
    return clips[:, start : start + WINDOW]


def long_sets(m: "Measures") -> tuple[Clips, Clips]:
    """The beginnings of the test videos that are long enough: even numbers, odd numbers."""
    world = m.world
    videos = VideoFolder(m.folder / "test")
    span = (FRAMES - 1) * world.interval + 1
    long = [(i, 0) for i, video in enumerate(videos.videos) if video.num_frames >= span]
    count = min(ROLLOUTS, len(long) // 2)
    return tuple(read_clips(videos, long[half::2][:count], world, FRAMES) for half in (0, 1))  # type: ignore[return-value]


def speed(clips_NTHWC: Clips) -> float:
    """Mean absolute change from frame to frame, in grey levels."""
    return float(np.mean([clip_motion(clip).speed_T.mean() for clip in clips_NTHWC]))


def sharpness(clips_NTHWC: Clips) -> float:
    """Mean absolute difference of neighbouring pixels, in grey levels: blur lowers it, noise raises it."""
    values = clips_NTHWC.astype(np.int16)
    return float((np.abs(np.diff(values, axis=2)).mean() + np.abs(np.diff(values, axis=3)).mean()) / 2)
