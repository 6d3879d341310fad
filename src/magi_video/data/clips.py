"""Clips for training: T frames of a video at a random start and a random interval, with the actions between them.

The frames are start, start + k, …, start + (T−1)·k, exactly; a share of the clips may begin with older ones
(`sparse_past`). Which clip is drawn at which position of the training is a pure function of the seed, so a resumed run
goes on with the clips the uninterrupted one would have seen, whatever the number of loader processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from magi_video.data.folder import VideoFolder
from magi_video.data.sparse_past import SparsePast, follow_each_other
from magi_video.errors import MagiError
from magi_video.latents.grid import ClipGrid
from magi_video.video.image import fit_frames, to_model_range

USUAL_RATE = 25.0
"""Frames/s, where no video tells its own."""
UNBOUNDED = 2**31 - 1  # the largest interval of a one-frame clip, to which intervals mean nothing


def max_interval(num_frames: int, clip_length: int) -> int:
    """The largest interval at which a clip of `clip_length` frames fits into a video: floor((L − 1) / (T − 1)); 0
    where none does."""
    if num_frames < clip_length:
        return 0
    return UNBOUNDED if clip_length == 1 else (num_frames - 1) // (clip_length - 1)


def clip_frames(start: int, interval: int, length: int) -> list[int]:
    """The frame numbers of a clip: start, start + interval, …"""
    return list(range(start, start + interval * length, interval))


def clip_actions(recorded: np.ndarray, frames: Sequence[int], interval: int | None = None) -> np.ndarray:
    """The actions that lead to each frame of a clip, float32 `[T, A]`: the mean of those in the interval before it.

    Row 0 is 0.

    Args:
        recorded: of the whole video, `[frames, A]`; row i leads from frame i to frame i + 1.
        frames: of the clip, increasing.
        interval: in frames of the video; the distance of the first two frames if not given.
    """
    actions_TA = np.zeros((len(frames), recorded.shape[1]), np.float32)
    if len(frames) > 1:
        steps = frames[1] - frames[0] if interval is None else interval
        ways_TK = np.array(frames[1:])[:, None] + np.arange(-steps, 0)
        actions_TA[1:] = recorded[ways_TK].mean(axis=1)
    return actions_TA


class FrameReader(Protocol):
    """What a clip's frames come from: pixels of the files, or cached latents.

    Attributes:
        grid: which clips can be read; None if any can.
    """

    grid: ClipGrid | None

    def read(self, video: int, frames: Sequence[int], mirrored: bool = False) -> torch.Tensor:
        """Frames [T, C, H, W], float32, of a video of the folder; or those of its mirror image, left for right."""
        ...


class PixelReader:
    """Reads frames from the video files, resized by `fit_frames`: float32 [T, 3, height, width] in [-1, 1]."""

    def __init__(self, folder: VideoFolder, height: int, width: int) -> None:
        self.folder, self.height, self.width = folder, height, width
        self.grid: ClipGrid | None = None

    def read(self, video: int, frames: Sequence[int], mirrored: bool = False) -> torch.Tensor:
        """Frames of a video in the order asked for; `mirrored` left for right."""
        pixels = to_model_range(fit_frames(self.folder.read(video, frames).numpy(), self.height, self.width))
        return pixels.flip(-1) if mirrored else pixels


@dataclass(frozen=True)
class ClipRequest:
    """Which clip to draw: an item of the `ClipDataset` and the seed of its random choices."""

    index: int
    seed: int


def check_lengths(folder: VideoFolder, clip_length: int, min_interval: int) -> None:
    """Before anything is made of the videos.

    Raises:
        MagiError: there is none, or none is long enough for a clip.
    """
    if not any(max_interval(video.num_frames, clip_length) >= min_interval for video in folder.videos):
        raise no_clip(folder, clip_length, min_interval)


def no_clip(folder: VideoFolder, clip_length: int, min_interval: int) -> MagiError:
    """The error that no video gives a clip."""
    if not folder.videos:
        return MagiError(f"{folder.root}: no readable video ({folder.summary()})")
    needed, longest = (clip_length - 1) * min_interval + 1, max(video.num_frames for video in folder.videos)
    return MagiError(
        f"{folder.root}: no video of at least {needed} frames ({folder.summary()}, longest {longest}); expected one or "
        "more"
    )


class ClipDataset(Dataset[dict[str, torch.Tensor]]):
    """Clips of the videos of a folder; one item a video, asked for by a `ClipRequest`.

    The interval is uniform in min_interval…max_interval, or up to the largest that fits where the video is too short
    for all of them. A video too short for min_interval is left out. Of a reader that holds the clips of a grid,
    interval and start are drawn among the grid's.

    Args:
        folder: the videos.
        reader: where the frames come from; its video numbers are the folder's.
        clip_length: T, frames of a clip.
        min_interval: in frames of the video.
        max_interval: in frames of the video.
        action_names: the columns of `action`; the folder's own if not given.
        temporal_factor: frames c that a latent frame holds, c ≥ 1 and T = 1 + a multiple of it; the first stands alone.
        flip: probability that a clip is mirrored, all of its frames; nothing is drawn for it at 0.
        sparse_past: which clips show one; None for none, and then nothing is drawn for it.

    Attributes:
        videos: the folder's numbers of the videos in use.
        left_out: how many videos are too short.
        frame_rates: frames/s of the videos in use where known, the commonest first, each but once.

    Raises:
        MagiError: no video is long enough, or the settings make no sense.
    """

    def __init__(
        self,
        folder: VideoFolder,
        reader: FrameReader,
        clip_length: int,
        min_interval: int = 1,
        max_interval: int = 25,
        *,
        action_names: Sequence[str] | None = None,
        temporal_factor: int = 1,
        flip: float = 0.0,
        sparse_past: SparsePast | None = None,
    ) -> None:
        if clip_length < 1 or not 1 <= min_interval <= max_interval:
            raise MagiError(
                f"clips of {clip_length} frames at intervals {min_interval} to {max_interval}; expected 1 ≤ min ≤ max"
            )
        self.folder, self.reader, self.clip_length, self.flip = folder, reader, clip_length, flip
        if temporal_factor < 1 or (clip_length - 1) % temporal_factor:
            raise MagiError(
                f"clips of {clip_length} frames for a codec that compresses time by {temporal_factor}; "
                f"expected 1 + a multiple of {temporal_factor}"
            )
        if sparse_past is not None and (temporal_factor > 1 or sparse_past.memory.window != clip_length):
            raise MagiError(
                f"clips of {clip_length} frames, {temporal_factor} in a latent one, with a sparse past of "
                f"{sparse_past.memory.window}; expected as many, and a codec that encodes every frame by itself"
            )
        self.sparse_past = sparse_past
        if reader.grid is not None and reader.grid.length != clip_length:
            raise MagiError(f"clips of {clip_length} frames; expected what the reader holds: {reader.grid}")
        self.min_interval, self.max_interval, self.temporal_factor = min_interval, max_interval, temporal_factor
        self.action_names = list(folder.action_names if action_names is None else action_names)
        self.videos = [i for i, video in enumerate(folder.videos) if self._intervals(video.num_frames)]
        self.left_out = len(folder.videos) - len(self.videos)
        if not self.videos:
            raise no_clip(folder, clip_length, min_interval)
        rates = [rate for i in self.videos if (rate := folder.videos[i].frame_rate) > 0]
        self.frame_rates = [rate for rate, _ in Counter(rates).most_common()]

    def __len__(self) -> int:
        return len(self.videos)

    def _intervals(self, num_frames: int) -> Sequence[int]:
        """The intervals that a clip of a video of so many frames may have."""
        largest = min(self.max_interval, max_interval(num_frames, self.clip_length))
        if self.reader.grid is None:
            return range(self.min_interval, largest + 1)
        return [interval for interval in self.reader.grid.intervals if self.min_interval <= interval <= largest]

    def __getitem__(self, request: ClipRequest) -> dict[str, torch.Tensor]:
        """Draws a clip.

        Returns:
            frames: what the reader gives for the T frames, [T, …];
            interval: the interval used, int64 scalar;
            video: the folder's number of the video, int64 scalar;
            label: the class, int64 scalar, -1 where unknown;
            action: float32 [t, A] for the t = 1 + (T−1)/c latent frames, a row the mean of the actions on the way from
                the latent frame before (its last frame) to this one (its last frame); row 0: zeros;
            action_known: bool [t], False in row 0 and throughout a video without actions;
            learned: bool [t], whether the latent frame has a loss: False for one that lies further from the frame
                before it than the interval (`sparse_past`).
        """
        video = self.videos[request.index]
        info = self.folder.videos[video]
        random = np.random.default_rng(request.seed)
        intervals = self._intervals(info.num_frames)
        interval = intervals[int(random.integers(len(intervals)))]
        starts: Sequence[int] = range(info.num_frames - (self.clip_length - 1) * interval)
        if self.reader.grid is not None:
            starts = self.reader.grid.starts(info.num_frames, interval)
        start = starts[int(random.integers(len(starts)))]
        frames = clip_frames(start, interval, self.clip_length)
        if self.sparse_past is not None:
            frames = self.sparse_past.draw(random, info.num_frames, interval) or frames
        mirrored = self.flip > 0 and random.random() < self.flip
        latent, steps = frames[:: self.temporal_factor], interval * self.temporal_factor
        action, known = self._actions_between(video, latent, steps)
        return {
            "frames": self.reader.read(video, frames, mirrored),
            "interval": torch.tensor(interval, dtype=torch.int64),
            "video": torch.tensor(video, dtype=torch.int64),
            "label": torch.tensor(-1 if info.label is None else info.label, dtype=torch.int64),
            "action": action,
            "action_known": known,
            "learned": torch.tensor(follow_each_other(latent, steps)),
        }

    def _actions_between(self, video: int, latent: list[int], steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of latent frames so many frames of the video apart."""
        action = torch.zeros(len(latent), len(self.action_names))
        known = torch.zeros(len(latent), dtype=torch.bool)
        recorded = self.folder.actions(video, self.action_names)
        if recorded is not None:
            action = torch.from_numpy(clip_actions(recorded, latent, steps))
            known[1:] = True
        return action, known


class ClipSampler(Sampler[ClipRequest]):
    """An endless order of clips: epoch after epoch each item once, every epoch in a permutation of its own, every
    clip with a seed of its own.

    Args:
        num_items: `len(clip_dataset)`.
        seed: of the whole order.
        start: position to begin at: the number of clips an interrupted run has already used.
    """

    def __init__(self, num_items: int, seed: int, start: int = 0) -> None:
        if num_items < 1 or seed < 0 or start < 0:
            raise MagiError(f"sampler of {num_items} items, seed {seed}, start {start}; expected at least 1, 0 and 0")
        self.num_items, self.seed, self.start = num_items, seed, start

    def __iter__(self) -> Iterator[ClipRequest]:
        position = self.start
        while True:
            epoch, offset = divmod(position, self.num_items)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_items)
            for index in order[offset:]:
                clip_seed = np.random.SeedSequence([self.seed, position, 1]).generate_state(1, np.uint64)[0]
                yield ClipRequest(int(index), int(clip_seed))
                position += 1
