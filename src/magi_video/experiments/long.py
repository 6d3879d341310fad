"""What rollouts far longer than a clip begin with: first frames, keys that are held, the truth as far as it goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.experiments.clips import Clips, read_clips
from magi_video.experiments.runs import Workplace

LONG_SEED = 2000


@dataclass(frozen=True, eq=False)
class LongSet:
    """What N rollouts begin with.

    Attributes:
        given: their first frames, uint8 [N, given, H, W, 3].
        true: the true videos as far as all of them go, uint8 [N, S, H, W, 3].
        actions: held on the way to each frame of a rollout, float32 [T, N, A]; None where the world has none.
        names: of the columns of `actions`.
    """

    given: Clips
    true: Clips
    actions: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def actions_for(self, names: list[str]) -> np.ndarray | None:
        """The actions in the order of a model's own columns."""
        return None if self.actions is None else self.actions[:, :, [self.names.index(name) for name in names]]


def long_set(workplace: Workplace, count: int, length: int, least: int) -> LongSet:
    """The set of a world.

    A world without end (`World.endless`) is recorded once more, in videos of `length` frames under
    OUT/WORLD/long-LENGTH. In another, the context half of the test videos is taken, the longest first; where one ends,
    the keys of the next are held.

    Args:
        workplace: the world's.
        count: rollouts.
        length: frames of a rollout.
        least: frames that every true video must have.

    Raises:
        MagiError: there are too few such videos.
    """
    world = workplace.world
    workplace.record()
    if world.endless:
        folder = f"long-{length}"
        workplace.record_episodes(folder, LONG_SEED, count, length)
        videos = VideoFolder(workplace.folder / folder)
        chosen = list(range(len(videos.videos)))
    else:
        videos = VideoFolder(workplace.folder / "test")
        chosen = sorted(range(1, len(videos.videos), 2), key=lambda index: -videos.videos[index].num_frames)
    chosen = [index for index in chosen if videos.videos[index].num_frames >= least][:count]
    if len(chosen) < count:
        raise MagiError(f"{videos.root}: {len(chosen)} videos of {least} frames or more; expected {count}")
    shortest = min(length, *(videos.videos[index].num_frames for index in chosen))
    true = read_clips(videos, [(index, 0) for index in chosen], world, shortest)
    if not world.actions:
        return LongSet(true[:, : world.given], true)
    recorded = []
    for index in chosen:
        actions_FA = videos.actions(index)
        if actions_FA is None:
            raise MagiError(f"{videos.videos[index].path}: no recorded actions")
        recorded.append(actions_FA)
    tracks = [hold(recorded[place:] + recorded[:place], length) for place in range(len(chosen))]
    return LongSet(true[:, : world.given], true, np.stack(tracks, axis=1), tuple(videos.action_names))


def hold(recorded: Sequence[np.ndarray], length: int) -> np.ndarray:
    """What is held on the way to each frame of a rollout, float32 `[length, A]`, row 0 being 0.

    Args:
        recorded: of videos, one after the other and again from the first, `[frames, A]` each: row i leads from frame i
            to frame i + 1, and the last row leads nowhere.
        length: frames.
    """
    rows = [np.zeros_like(recorded[0][:1])]
    for actions_FA in cycle(recorded):
        if sum(map(len, rows)) >= length:
            break
        rows.append(actions_FA[:-1])
    return np.concatenate(rows)[:length].astype(np.float32)
