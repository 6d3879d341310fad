"""Any folder of videos as a data set; `VideoFolder` is also the base of the data sets with a layout of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from magi_video.data.actions import ActionTrack, actions_path, read_actions, recorded_game
from magi_video.data.scan import Skipped, find_videos, inspect_videos, is_inside
from magi_video.data.video import VideoInfo, read_frames
from magi_video.errors import MagiError


@dataclass(frozen=True)
class Video:
    """A video of a data set: its file, what it holds (frames, pixels, frames/s), its class, and the file of its
    actions if it was recorded."""

    path: Path
    num_frames: int
    height: int
    width: int
    frame_rate: float
    label: int | None
    actions: Path | None


class VideoFolder:
    """All videos below a folder, in sorted order; whatever cannot be used is skipped and listed, never fatal.

    The class of a video is the first folder on its way down from the root; a video in the root itself has none. A
    recorded video brings its actions; the action columns are those of all recordings together.

    Args:
        root: the folder.
        min_frames: shorter videos are skipped.
        index: a JSON file that remembers what each video holds, so that a second start does not decode them again.
        sample: look at no more videos than this, evenly spread over all: for a survey.

    Attributes:
        root: the folder.
        videos: the usable videos.
        skipped: files that are not used, with reasons; an unusable actions file is listed too, its video is used
            without.
        class_names: `Video.label` is an index into it.
        action_names: the columns of `actions`.
        num_files: files that were there to be looked at.

    Raises:
        MagiError: no such folder, or the index cannot be written.
    """

    root: Path
    videos: list[Video]
    skipped: list[Skipped]
    class_names: list[str]
    action_names: list[str]
    num_files: int

    def __init__(
        self, root: str | Path, *, min_frames: int = 1, index: str | Path | None = None, sample: int | None = None
    ) -> None:
        self._begin(root, sample)
        candidates: list[Path] = []
        for found in find_videos(self.root):
            if isinstance(found, Skipped):
                self.skipped.append(found)
            else:
                candidates.append(found)
        parts = [path.relative_to(self.root).parts for path in candidates]
        self.class_names = sorted({p[0] for p in parts if len(p) > 1})
        number = {name: i for i, name in enumerate(self.class_names)}
        self._add(candidates, [number[p[0]] if len(p) > 1 else None for p in parts], min_frames, index)

    def _begin(self, root: str | Path, sample: int | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise MagiError(f"{root}: no such folder; expected a folder of videos")
        self.videos, self.skipped, self.class_names, self.action_names = [], [], [], []
        self._tracks: dict[int, ActionTrack] = {}
        self._sample, self.num_files = sample, 0

    def _add(
        self, paths: Sequence[Path], labels: Sequence[int | None], min_frames: int, index: str | Path | None
    ) -> None:
        """Inspects the files and takes up those that are usable."""
        self.num_files = len(paths)
        if self._sample is not None and self._sample < len(paths):
            picked = [i * len(paths) // self._sample for i in range(self._sample)]
            paths, labels = [paths[i] for i in picked], [labels[i] for i in picked]
        infos = inspect_videos(self.root, paths, None if index is None else Path(index))
        for path, label, info in zip(paths, labels, infos, strict=True):
            if isinstance(info, Skipped):
                self.skipped.append(info)
            elif info.num_frames < min_frames:
                self.skipped.append(Skipped(path, f"shorter than {min_frames} frames"))
            else:
                self._take(path, label, info)

    def _take(self, path: Path, label: int | None, info: VideoInfo) -> None:
        actions: Path | None = actions_path(path)
        if actions is not None and (actions.is_file() or actions.is_symlink()):
            try:
                if not is_inside(actions, self.root):
                    raise MagiError(f"{actions}: link out of the folder")
                track = read_actions(actions, info.num_frames)
                self._tracks[len(self.videos)] = track
                self.action_names += [name for name in track.names if name not in self.action_names]
            except MagiError as error:
                self.skipped.append(Skipped(actions, str(error).removeprefix(f"{actions}: ")))
                actions = None
        else:
            actions = None
        self.videos.append(Video(path, info.num_frames, info.height, info.width, info.frame_rate, label, actions))

    def read(self, video: int, frames: Sequence[int]) -> torch.Tensor:
        """Frames of a video in the order asked for, uint8 [T, H, W, 3] at the file's own size; see `read_frames` for
        the errors."""
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
    def games(self) -> list[str]:
        """Names of the games that the videos are recordings of, sorted."""
        folders = {self.videos[index].path.parent for index in self._tracks}
        return sorted({game for folder in folders if (game := recorded_game(folder))})

    def summary(self) -> str:
        """One line: "120 videos, 2 skipped (1 zero frames, 1 unreadable)"."""
        line = f"{len(self.videos)} video" + ("" if len(self.videos) == 1 else "s")
        if not self.skipped:
            return line
        reasons = Counter(skipped.reason.split(" (")[0].split(";")[0] for skipped in self.skipped)
        return (
            f"{line}, {len(self.skipped)} skipped ({', '.join(f'{n} {reason}' for reason, n in reasons.most_common())})"
        )
