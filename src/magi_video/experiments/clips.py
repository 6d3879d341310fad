"""The two disjoint real sets of a world, and what is made of them to see whether a score can tell."""

from collections.abc import Callable

import numpy as np

from magi_video.data.clips import clip_frames
from magi_video.data.folder import VideoFolder
from magi_video.data.ucf101 import UCF101
from magi_video.evaluation.baselines import Baseline
from magi_video.experiments.runs import Workplace
from magi_video.experiments.worlds import World
from magi_video.video.image import fit_frames

Clips = np.ndarray
"""uint8 [N, T, H, W, 3]."""


def real_sets(workplace: Workplace) -> tuple[Clips, Clips]:
    """The reference set, which all scores are taken against, and the context set, whose clips are continued.

    Recorded worlds: the test videos with even and with odd numbers, `clips_per_video` evenly spread over each.
    UCF-101: the first and the last clip of every video (training and test half, as in published figures) that is long
    enough for the two not to share a frame.
    """
    world = workplace.world
    span = (world.frames - 1) * world.interval + 1
    if world.game is None:
        videos: VideoFolder = UCF101(workplace.train_data, split=world.preset.data.split, subset="all")
        ends = [(i, v.num_frames - span) for i, v in enumerate(videos.videos) if v.num_frames >= 2 * span]
        picked = [[(i, 0) for i, _ in ends], [(i, last) for i, last in ends]]
    else:
        workplace.record()
        videos = VideoFolder(workplace.folder / "test")
        count = world.clips_per_video
        spread = [
            [(i, round((part + 0.5) / count * (v.num_frames - span))) for part in range(count)]
            for i, v in enumerate(videos.videos)
            if v.num_frames >= span
        ]
        picked = [[one for video in spread[half::2] for one in video] for half in (0, 1)]
    reference, context = (read_clips(videos, chosen[: world.num_clips], world) for chosen in picked)
    return reference, context


def read_clips(videos: VideoFolder, chosen: list[tuple[int, int]], world: World, frames: int | None = None) -> Clips:
    """Clips by (video, first frame), at the world's size and interval."""
    size = (world.preset.data.height, world.preset.data.width)
    length = frames or world.frames
    return np.stack(
        [
            fit_frames(videos.read(index, clip_frames(start, world.interval, length)).numpy(), *size)
            for index, start in chosen
        ]
    )


def every(change: Baseline) -> Callable[[Clips], Clips]:
    """A change of one clip, made on each clip of a set."""
    return lambda clips_NTHWC: np.stack([change(clip, index) for index, clip in enumerate(clips_NTHWC)])


def noise(clips_NTHWC: Clips) -> Clips:
    """Uniform noise."""
    return np.random.default_rng(7).integers(0, 256, clips_NTHWC.shape, np.uint8)
