"""Any folder of videos as a data set; `VideoFolder` is also the base of the data sets with a layout of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from magi_video.data.actions import ActionTrack, actions_path, read_actions, recorded_game
from magi_video.data.scan import Inspected, inspect_videos
from magi_video.data.walk import Skipped, find_videos, is_inside, tell_ignored
from magi_video.errors import MagiError, counted
from magi_video.files.limits import follows_links
from magi_video.registry import Registry
from magi_video.video.video import read_frames


@dataclass(frozen=True)
class Video:
    """A video of a data set: its file, what it holds (see `VideoInfo`), its class, the file of its actions if it was
    recorded, and the digest of its content ("" where it is not known)."""

    path: Path
    num_frames: int
    height: int
    width: int
    frame_rate: float
    label: int | None
    actions: Path | None
    shown: str = ""
    content: str = ""


DATA_SETS: Registry[VideoFolder] = Registry("data", "dataset")
"""Every data set that a recipe can name."""
register = DATA_SETS.register


def find_kind(root: Path) -> type[VideoFolder]:
    """The data set whose own layout a folder has; `VideoFolder` if it has none."""
    return next((kind for kind in DATA_SETS.values() if kind.recognises(root)), VideoFolder)


@register
class VideoFolder:
    """All videos below a folder, in sorted order; whatever cannot be used is skipped and listed, never fatal.

    The class of a video is the first folder on its way down from the root; a video in the root itself has none. A
    recorded video brings its actions; the action columns are those of all recordings together.

    Args:
        root: the folder.
        min_frames: shorter videos are skipped.
        index: a JSON file that remembers what each video holds, so that a second start does not decode them again.
        sample: look at no more videos than this, evenly spread over all: for a survey.
        follow_links: use what links out of the folder lead to, and linked folders; if not given, what the command line
            or the environment says, by default not.

    Attributes:
        root: the folder.
        videos: the usable videos.
        skipped: files that are not used, with reasons; an unusable actions file is listed too, its video is used
            without.
        class_names: `Video.label` is an index into it.
        action_names: the columns of `actions`.
        num_files: files that were there to be looked at.
        ignored: how many files are no videos by their suffix, by suffix.

    Raises:
        MagiError: no such folder, or the index cannot be written.
    """

    name = "folder"
    """In recipes and on the command line."""
    title = "videos of its makers"
    """On a model's card."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Settings of `presets.DataConfig` that say which of its videos are trained on; arguments of the class."""
    training_videos: ClassVar[int | None] = None
    """Published number of training videos; epochs and plans without data count with it."""
    mean_frames: ClassVar[int | None] = None
    """Published mean length of a video, frames."""

    root: Path
    videos: list[Video]
    skipped: list[Skipped]
    class_names: list[str]
    action_names: list[str]
    num_files: int
    ignored: Counter[str]

    def __init__(
        self,
        root: str | Path,
        *,
        min_frames: int = 1,
        index: str | Path | None = None,
        sample: int | None = None,
        follow_links: bool | None = None,
    ) -> None:
        self._begin(root, sample, follow_links)
        candidates = self._find()
        parts = [path.relative_to(self.root).parts for path in candidates]
        self.class_names = sorted({p[0] for p in parts if len(p) > 1})
        number = {name: i for i, name in enumerate(self.class_names)}
        self._add(candidates, [number[p[0]] if len(p) > 1 else None for p in parts], min_frames, index)

    @classmethod
    def for_training(
        cls, root: Path, settings: dict[str, Any], *, index: Path | None = None, sample: int | None = None
    ) -> Self:
        """The videos that a recipe trains on.

        Args:
            root: folder of the data set.
            settings: the recipe's `DataConfig` as a dictionary; those named in `settings` are used.
            index, sample: see the class.

        Raises:
            MagiError: see the class.
        """
        return cls(root, index=index, sample=sample, **{name: settings[name] for name in cls.settings})

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a folder has this data set's own layout; its `for_evaluation` is then used."""
        return False

    @classmethod
    def for_evaluation(cls, root: Path, subset: str, index: Path | None = None) -> tuple[VideoFolder, list[str]]:
        """The videos of one subset to score against, and warnings about how they were found.

        A folder may hold its subsets as folders of these names. Otherwise all of it is taken.

        Args:
            root: folder of the data set.
            subset: "train", "test" or "all".
            index: see the class.

        Raises:
            MagiError: see the class.
        """
        if subset == "all":
            return cls(root, index=index), []
        if (root / subset).is_dir():
            return cls(root / subset, index=index), []
        warning = f"no {subset} split was found in the data: all of its videos are taken"
        return cls(root, index=index), [warning]

    def _begin(self, root: str | Path, sample: int | None = None, follow_links: bool | None = None) -> None:
        self.root = Path(root)
        self.follow_links = follows_links() if follow_links is None else follow_links
        if not self.root.is_dir():
            raise MagiError(f"{root}: no such folder; expected a folder of videos")
        self.videos, self.skipped, self.class_names, self.action_names = [], [], [], []
        self._tracks: dict[int, ActionTrack] = {}
        self._sample, self.num_files, self.ignored = sample, 0, Counter()

    def _find(self) -> list[Path]:
        """All files that are videos by their names; notes the others."""
        found = find_videos(self.root, self.follow_links)
        self.skipped += found.skipped
        self.ignored += found.ignored
        return found.videos

    def holds(self, path: Path) -> bool:
        """Whether a file below the root may be read: it is no link out of it, or such links are followed."""
        return self.follow_links or is_inside(path, self.root)

    def _add(
        self, paths: Sequence[Path], labels: Sequence[int | None], min_frames: int, index: str | Path | None
    ) -> None:
        """Inspects the files and takes up those that are usable."""
        self.num_files = len(paths)
        if self._sample is not None and self._sample < len(paths):
            picked = [i * len(paths) // self._sample for i in range(self._sample)]
            paths, labels = [paths[i] for i in picked], [labels[i] for i in picked]
        looked = inspect_videos(self.root, paths, None if index is None else Path(index))
        for path, label, found in zip(paths, labels, looked, strict=True):
            if isinstance(found, Skipped):
                self.skipped.append(found)
            elif found.info.num_frames < min_frames:
                self.skipped.append(Skipped(path, f"shorter than {min_frames} frames"))
            else:
                self._take(path, label, found)

    def _take(self, path: Path, label: int | None, found: Inspected) -> None:
        info = found.info
        actions: Path | None = actions_path(path)
        if actions is not None and (actions.is_file() or actions.is_symlink()):
            try:
                if not self.holds(actions):
                    raise MagiError(f"{actions}: link out of the folder")
                track = read_actions(actions, info.num_frames)
                self._tracks[len(self.videos)] = track
                self.action_names += [name for name in track.names if name not in self.action_names]
            except MagiError as error:
                self.skipped.append(Skipped(actions, str(error).removeprefix(f"{actions}: ")))
                actions = None
        else:
            actions = None
        facts = (info.num_frames, info.height, info.width, info.frame_rate)
        self.videos.append(Video(path, *facts, label, actions, info.shown, found.content))

    def read(self, video: int, frames: Sequence[int]) -> torch.Tensor:
        """Frames of a video in the order asked for, uint8 [T, H, W, 3] at the size they are shown; see `read_frames`
        for the errors."""
        info = self.videos[video]
        return torch.from_numpy(read_frames(info.path, frames, num_frames=info.num_frames))

    def actions(self, video: int, names: Sequence[str] | None = None) -> np.ndarray | None:
        """The actions of a video, float32 [num_frames, A]; row i leads from frame i to frame i+1.

        The columns are `names` (default: `self.action_names`); what the recording does not know is 0. None for a
        video without actions.
        """
        track = self._tracks.get(video)
        return None if track is None else track.columns(self.action_names if names is None else names)

    @property
    def names(self) -> list[str]:
        """Paths of the videos below the root, "/" between their parts."""
        return [video.path.relative_to(self.root).as_posix() for video in self.videos]

    @property
    def games(self) -> list[str]:
        """Names of the games that the videos are recordings of, sorted."""
        folders = {self.videos[index].path.parent for index in self._tracks}
        return sorted({game for folder in folders if (game := recorded_game(folder))})

    def summary(self) -> str:
        """One line: "120 videos, 2 skipped (1 zero frames, 1 unreadable);
        9 files are no videos by their names (9 .jpg)"."""
        line = counted(len(self.videos), "video")
        if self.skipped:
            reasons = Counter(skipped.reason.split(" (")[0].split(";")[0] for skipped in self.skipped)
            listed = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
            line += f", {len(self.skipped)} skipped ({listed})"
        return "; ".join(filter(None, (line, tell_ignored(self.ignored))))
