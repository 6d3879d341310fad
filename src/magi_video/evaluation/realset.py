"""The real set: which clips of which videos, chosen by the protocol alone, and what they look like when scored.

The choice is a pure function of (videos in sorted order, protocol, how many): no batch size, process count or earlier
call can change it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_video.data.clips import clip_frames
from magi_video.data.folder import VideoFolder, find_kind
from magi_video.data.identity import DataIdentity
from magi_video.errors import MagiError
from magi_video.evaluation.clipset import Clips, Origin, as_clips
from magi_video.evaluation.protocols import Protocol
from magi_video.evaluation.resizing import apply_chain, to_bytes
from magi_video.files.cache import cache_folder
from magi_video.video.image import fit_frames

ClipSource = Clips | Sequence[np.ndarray] | np.ndarray | str | Path


@dataclass(frozen=True)
class Pick:
    """A clip of the real set: number of the video in its list, and the video's frame that it begins with."""

    video: int
    start: int


class ClipSet:
    """Finished clips, all of one length: what a detector is given.

    Args:
        names: one for each clip.
        read: gives clip i, uint8 `[T, H, W, 3]`.
        where: what the set is, for messages.
        origins: what each clip was before it was prepared.
        left_out: videos and clips that were too short or could not be read.
    """

    def __init__(
        self,
        names: Sequence[str],
        read: Callable[[int], np.ndarray],
        where: str,
        origins: Sequence[Origin],
        left_out: int = 0,
    ) -> None:
        self.names, self.where, self.origins, self.left_out = list(names), where, list(origins), left_out
        self._read = read

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._read(index)

    def first(self, count: int | None) -> ClipSet:
        """The first clips of the set; all for None."""
        return ClipSet(self.names[:count], self._read, self.where, self.origins[:count], self.left_out)

    def last(self, count: int) -> ClipSet:
        """The last clips of the set."""
        start = len(self) - count
        return ClipSet(self.names[start:], lambda index: self._read(start + index), self.where, self.origins[start:])


def open_videos(data: str | Path, protocol: Protocol) -> tuple[VideoFolder, list[str]]:
    """The videos of a data set that a protocol speaks of, and warnings about how they were found.

    A data set that is recognised by its layout gives the protocol's split (see `for_evaluation` of its class); another
    folder may hold its splits as subfolders named "train" and "test"; anything else is taken as a whole, with a warning
    where the protocol names a split.

    Raises:
        MagiError: no such folder, or nothing usable in it.
    """
    root = Path(data)
    if not root.is_dir():
        raise MagiError(f"{data}: no such folder; expected a folder of videos")
    key = hashlib.sha256(f"{root.resolve()} {protocol.split}".encode()).hexdigest()[:16]
    index = _index_file(key)
    if protocol.split == "folder":
        videos, warnings = VideoFolder.for_evaluation(root, "all", index)
    else:
        videos, warnings = find_kind(root).for_evaluation(root, protocol.split, index)
    if not videos.videos:
        raise MagiError(f"{data}: no usable video ({videos.summary()}); expected at least two")
    return videos, warnings


def _index_file(key: str) -> Path | None:
    """Where the frame counts of a folder are remembered; None where nothing can be written."""
    folder = cache_folder() / "videos"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"{key}.json" if os.access(folder, os.W_OK) else None


def choose(
    lengths: Sequence[int], protocol: Protocol, count: int | None, labels: Sequence[int | None] | None = None
) -> list[Pick]:
    """The clips of the real set.

    Args:
        lengths: frames of each video, in sorted order.
        protocol: says the order, the temporal rule, the clips a video may give, and the seed.
        count: how many; None for as many as do not overlap on average, up to `protocol.most`.
        labels: class of each video, for the class-balanced order.

    Returns:
        At most `count` clips, fewer where the videos give no more. Too short videos give none. A longer list begins
        with the shorter ones' clips.
    """
    usable = [video for video, length in enumerate(lengths) if length >= protocol.span]
    apart = sum(lengths[video] // protocol.span for video in usable)  # so many do not overlap on average
    wanted = min(protocol.most, apart) if count is None else count
    picks: list[Pick] = []
    used: set[Pick] = set()
    turn = 0
    while usable and len(picks) < wanted and turn < (protocol.clips_per_video or max(lengths)):
        for video in _order(usable, protocol, turn, labels):
            pick = Pick(video, _start(video, turn, lengths[video] - protocol.span, protocol))
            if pick not in used and len(picks) < wanted:
                used.add(pick)
                picks.append(pick)
        turn += 1
    return picks


def _order(usable: list[int], protocol: Protocol, turn: int, labels: Sequence[int | None] | None) -> list[int]:
    if protocol.order == "sorted-first":
        return usable
    shuffled = [usable[i] for i in np.random.default_rng([protocol.seed, turn]).permutation(len(usable))]
    if protocol.order == "random" or labels is None:
        return shuffled
    place: dict[int, int] = {}
    seen: dict[int | None, int] = {}
    for video in shuffled:  # the first of every class, then the second of every class, …
        place[video] = seen.get(labels[video], 0)
        seen[labels[video]] = place[video] + 1
    return sorted(shuffled, key=place.__getitem__)


def _start(video: int, turn: int, last: int, protocol: Protocol) -> int:
    if protocol.temporal == "random" or turn > 0:
        return int(np.random.default_rng([protocol.seed, turn, video, 1]).integers(last + 1))
    return last // 2 if protocol.temporal == "center" else 0


def prepare(clip_THWC: np.ndarray, protocol: Protocol, size: tuple[int, int] | None = None) -> np.ndarray:
    """A clip's pixels as the protocol scores them: its `prepare` chain, rounded to uint8; where the protocol names no
    size, centre crop and antialiased resize to `size` (the generated clips' own)."""
    if protocol.side is None:
        return clip_THWC if size is None else fit_frames(clip_THWC, *size)
    if clip_THWC.shape[1:3] == (protocol.side, protocol.side):
        return clip_THWC
    frames_TCHW = torch.from_numpy(clip_THWC).permute(0, 3, 1, 2).float()
    return np.ascontiguousarray(to_bytes(apply_chain(frames_TCHW, protocol.prepare)).permute(0, 2, 3, 1).numpy())


def real_clips(
    videos: VideoFolder, protocol: Protocol, count: int | None, size: tuple[int, int] | None = None
) -> tuple[ClipSet, list[Pick]]:
    """The real set of a folder of videos, and which clips it is made of."""
    lengths = [video.num_frames for video in videos.videos]
    picks = choose(lengths, protocol, count, [video.label for video in videos.videos])
    short = sum(length < protocol.span for length in lengths)
    if not picks:
        raise MagiError(
            f"{videos.root}: no video of at least {protocol.span} frames ({videos.summary()}, longest "
            f"{max(lengths)}); {protocol.frames} frames at interval {protocol.interval} were expected"
        )
    names = [
        f"{videos.videos[p.video].path.relative_to(videos.root).with_suffix('').as_posix()}@{p.start}" for p in picks
    ]

    def read(index: int) -> np.ndarray:
        pick = picks[index]
        frames = clip_frames(pick.start, protocol.interval, protocol.frames)
        return prepare(videos.read(pick.video, frames).numpy(), protocol, size)

    taken = [videos.videos[pick.video] for pick in picks]
    origins = [Origin(video.frame_rate / protocol.interval or None, (video.height, video.width)) for video in taken]
    return ClipSet(names, read, str(videos.root), origins, short + len(videos.skipped)), picks


def finished_clips(clips: Clips, protocol: Protocol, count: int | None, size: tuple[int, int] | None = None) -> ClipSet:
    """Clips that somebody made already: the first of the list, each from its first frame on, every frame."""
    usable = [index for index, length in enumerate(clips.lengths) if length >= protocol.frames]
    if not usable:
        raise MagiError(
            f"{clips.where}: no clip of at least {protocol.frames} frames (longest {max(clips.lengths)}); "
            f"I3D needs at least 10, and --frames can ask for fewer than {protocol.frames}"
        )
    taken = usable[: protocol.most if count is None else count]

    def read(index: int) -> np.ndarray:
        return prepare(clips.read(taken[index], range(protocol.frames)), protocol, size)

    short = len(clips.lengths) - len(usable)
    names, origins = [clips.names[index] for index in taken], [clips.origins[index] for index in taken]
    return ClipSet(names, read, clips.where, origins, clips.left_out + short)


@dataclass(frozen=True)
class Numbers:
    """How many clips of each side are asked for.

    Attributes:
        real, fake: None for as many as there are, up to the protocol's `most`.
    """

    real: int | None
    fake: int | None

    @classmethod
    def of(cls, protocol: Protocol, num: int | None, num_real: int | None) -> Numbers:
        """The protocol's numbers, or `num` for both sides, or `num_real` for the real one."""
        for name, value in {"num": num, "num_real": num_real}.items():
            if value is not None and value < 2:
                raise MagiError(f"{name} {value}; a Fréchet distance needs at least 2 clips on each side")
        fake = protocol.num_fake if num is None else num
        if num_real is None:
            num_real = protocol.num_real if num is None else num
        return cls(num_real, fake)

    def larger(self, protocol: Protocol) -> int | None:
        """The larger number, None where both are open."""
        if self.real is None and self.fake is None:
            return None
        return max(protocol.most if number is None else number for number in (self.real, self.fake))


@dataclass(frozen=True)
class Sets:
    """The two sides of a comparison.

    Attributes:
        real: the real clips.
        fake: the generated ones.
        truth: the real clip that fake i continues, for each i; None where nothing is paired.
        chosen: whether the protocol chose the real clips from videos; else they came finished, and its order, interval
            and temporal rule were not applied.
        warnings: what a reader of the figures must know about the clips.
        data: what is recorded of the videos that the real clips were chosen from; see `DataIdentity.record`.
    """

    real: ClipSet
    fake: ClipSet
    truth: ClipSet | None = None
    chosen: bool = True
    warnings: tuple[str, ...] = ()
    data: dict[str, Any] | None = None


def open_sets(real: ClipSource, fake: ClipSource, protocol: Protocol, numbers: Numbers, paired: bool) -> Sets:
    """Open both sides of a comparison, see `magi_video.evaluation.score`.

    Raises:
        MagiError: unusable clips, fewer than asked for, or names that do not agree where the sides are paired.
    """
    for side in (real, fake):
        if isinstance(side, str | Path) and not Path(side).exists():
            raise MagiError(f"{side}: no such folder; expected a folder of videos or .npy files, or one .npy file")
    fakes = as_clips(fake, "generated clip")
    size = fakes.read(0, [0]).shape[1:3]
    warnings = []
    if protocol.side is not None and size != (protocol.side, protocol.side):
        warnings.append(
            f"the generated clips have {size[0]} × {size[1]} pixels, the protocol {protocol.side} × {protocol.side}: "
            "they are resized by its rule"
        )
    fake_set = finished_clips(fakes, protocol, numbers.fake, size)
    chosen, data = False, None
    if not paired and isinstance(real, str | Path) and _holds_videos(Path(real)):
        chosen = True
        videos, found = open_videos(real, protocol)
        warnings += found
        data = DataIdentity.of(videos).record()
        real_set, _ = real_clips(videos, protocol, numbers.real, size)
    else:
        real_set = finished_clips(as_clips(real, "real clip"), protocol, numbers.real, size)
    for side, clips, wanted in (("real", real_set, numbers.real), ("generated", fake_set, numbers.fake)):
        check_number(side, clips, wanted, protocol)
    if paired:
        _check_pairs(real_set, fake_set)
    warnings += warn_of_sizes(real_set, size, protocol)
    return Sets(real_set, fake_set, real_set if paired else None, chosen, tuple(warnings), data)


def warn_of_sizes(real: ClipSet, size: tuple[int, int], protocol: Protocol) -> list[str]:
    """Where the protocol names no size: that real clips of another size than the generated ones' are made to fit."""
    others = Counter(origin.size for origin in real.origins if origin.size != size)
    if protocol.side is not None or not others:
        return []
    (height, width), _ = others.most_common(1)[0]
    kinds = f"{height} × {width} pixels" + (f" and {len(others) - 1} other sizes" if len(others) > 1 else "")
    return [
        f"{others.total()} of {len(real)} real clips have {kinds}: cropped and resized to the generated clips' "
        f"{size[0]} × {size[1]}"
    ]


def check_number(side: str, clips: ClipSet, wanted: int | None, protocol: Protocol) -> None:
    """Refuse fewer clips than are wanted, or fewer than a Fréchet distance needs."""
    if len(clips) < max(wanted or 0, 2):
        raise MagiError(
            f"{clips.where}: {len(clips)} {side} clips of {protocol.frames} frames ({clips.left_out} left out), "
            f"{max(wanted or 0, 2)} expected"
            + (f"; --num {len(clips)} scores fewer than the protocol and says so" if len(clips) > 1 else "")
        )


def _holds_videos(path: Path) -> bool:
    """Whether a folder is one of videos and not of finished clips."""
    return path.is_dir() and not any(path.rglob("*.npy"))


def _check_pairs(real: ClipSet, fake: ClipSet) -> None:
    if len(real) != len(fake):
        raise MagiError(
            f"{len(real)} real and {len(fake)} generated clips cannot be paired; expected one real clip for each"
        )
    for ours, theirs in zip(real.names, fake.names, strict=True):
        if ours != theirs:
            raise MagiError(f"real clip {ours} and generated clip {theirs} cannot be paired; expected equal names")
