"""The two disjoint real sets of a world, and what is made of them to see whether a score can tell."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from magi_video.data.clips import clip_actions, clip_frames
from magi_video.data.folder import VideoFolder
from magi_video.data.ucf101 import UCF101
from magi_video.errors import MagiError
from magi_video.evaluation.baselines import Baseline
from magi_video.experiments.runs import Workplace
from magi_video.experiments.worlds import World
from magi_video.files.atomic import write_json
from magi_video.video.image import fit_frames

Clips = np.ndarray
"""uint8 [N, T, H, W, 3]."""


Pick = tuple[int, int]
"""A clip: video, first frame."""
UCF101_SEED = 0
"""Of the choice of clips."""
GROUP = re.compile(r"_g(\d+)_c\d+")
"""In a name of UCF-101: videos of one group show the same people in the same place."""


@dataclass(frozen=True, eq=False)
class RealSet:
    """Real clips and, where the world is played, what was held on the way to each of their frames.

    Attributes:
        clips: uint8 [N, T, H, W, 3].
        actions: float32 [T, N, A]; None where the world has none.
        names: of the columns of `actions`.
    """

    clips: Clips
    actions: np.ndarray | None = None
    names: tuple[str, ...] = ()


def real_sets(workplace: Workplace) -> tuple[RealSet, RealSet]:
    """The reference set, which all scores are taken against, and the context set, whose clips are continued.

    Recorded worlds: the test videos with even and with odd numbers, `clips_per_video` evenly spread over each.
    UCF-101: see `ucf101_picks`. What was chosen is recorded in OUT/WORLD/sets.json.
    """
    world = workplace.world
    span = (world.frames - 1) * world.interval + 1
    if world.game is None:
        videos: VideoFolder = UCF101(workplace.train_data, split=world.preset.data.split, subset="test")
        lengths, labels = [video.num_frames for video in videos.videos], [video.label for video in videos.videos]
        picked = ucf101_picks(videos.names, lengths, labels, span, world.num_clips)
    else:
        workplace.record()
        videos = VideoFolder(workplace.folder / "test")
        picked = recorded_picks(videos, world)
    named = ([f"{videos.names[video]}@{start}" for video, start in chosen] for chosen in picked)
    record = dict(zip(("reference", "context"), named, strict=True))
    write_json(workplace.folder / "sets.json", record if world.game else record | {"seed": UCF101_SEED})
    reference, context = (read_set(videos, chosen, world) for chosen in picked)
    return reference, context


def recorded_picks(videos: VideoFolder, world: World) -> tuple[list[Pick], list[Pick]]:
    """Clips for both sets: of the videos with even and with odd numbers, those long enough, evenly spread over each."""
    span, count = (world.frames - 1) * world.interval + 1, world.clips_per_video
    spread = [
        [(i, round((part + 0.5) / count * (v.num_frames - span))) for part in range(count)]
        for i, v in enumerate(videos.videos)
        if v.num_frames >= span
    ]
    evens, odds = ([one for video in spread[half::2] for one in video][: world.num_clips] for half in (0, 1))
    return evens, odds


def read_set(videos: VideoFolder, chosen: Sequence[Pick], world: World) -> RealSet:
    """Clips by (video, first frame), with their actions where the world has any."""
    clips = read_clips(videos, chosen, world)
    if not world.actions:
        return RealSet(clips)
    tracks = []
    for video, start in chosen:
        recorded = videos.actions(video)
        if recorded is None:
            raise MagiError(f"{videos.videos[video].path}: no recorded actions")
        tracks.append(clip_actions(recorded, clip_frames(start, world.interval, world.frames)))
    return RealSet(clips, np.stack(tracks, axis=1), tuple(videos.action_names))


def training_set(workplace: Workplace, count: int) -> RealSet:
    """So many clips of the training videos, one from the middle of each."""
    world, videos = workplace.world, VideoFolder(workplace.train_data)
    span = (world.frames - 1) * world.interval + 1
    fitting = [(i, (video.num_frames - span) // 2) for i, video in enumerate(videos.videos) if video.num_frames >= span]
    return read_set(videos, fitting[:count], world)


def ucf101_picks(
    names: Sequence[str], lengths: Sequence[int], labels: Sequence[int | None], span: int, count: int
) -> tuple[list[Pick], list[Pick]]:
    """Clips of the test videos for both sets: classes balanced, no group, and so no video, on both sides.

    Of each class every other group belongs to the reference set. Each set takes the first video of every class, then
    the second, in orders drawn with `UCF101_SEED`; of a video its middle. Both sets are of one size, `count` at most.

    Args:
        names, lengths, labels: of the videos of a test half: "Class/v_Class_g01_c01.avi", frames, class.
        span: frames from the first to the last of a clip.
        count: clips that are wanted for each set.
    """
    groups: dict[int | None, list[str]] = {}
    of_video = [GROUP.search(name) for name in names]
    for match, label in zip(of_video, labels, strict=True):
        if match is not None and match[1] not in groups.setdefault(label, []):
            groups[label].append(match[1])
    halves: tuple[list[Pick], list[Pick]] = ([], [])
    for half, picks in enumerate(halves):
        turns: dict[int | None, list[int]] = {label: [] for label in groups}
        for video, (match, label) in enumerate(zip(of_video, labels, strict=True)):
            if match is not None and sorted(groups[label]).index(match[1]) % 2 == half and lengths[video] >= span:
                turns[label].append(video)
        orders = {
            label: [
                int(videos[i]) for i in np.random.default_rng([UCF101_SEED, half, label or 0]).permutation(len(videos))
            ]
            for label, videos in turns.items()
        }
        for turn in range(max(map(len, orders.values()), default=0)):
            picks += [
                (order[turn], (lengths[order[turn]] - span) // 2) for order in orders.values() if turn < len(order)
            ]
    size = min(count, *map(len, halves))
    return halves[0][:size], halves[1][:size]


def read_clips(videos: VideoFolder, chosen: Sequence[Pick], world: World, frames: int | None = None) -> Clips:
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
