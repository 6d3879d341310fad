"""Episodes as data sets of other projects hold them, and how they must come out."""

from pathlib import Path

import numpy as np

from magi_video.data.folder import VideoFolder

LENGTHS = (5, 7, 4)
NAMES = ["shoulder", "gripper"]


def clip(episode: int, frames: int, side: int = 16) -> np.ndarray:
    """Frames whose brightness tells episode and number."""
    levels = np.array([40 * episode + 12 * t + 20 for t in range(frames)], np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, side, side, 3)).copy()


def track(episode: int, frames: int) -> np.ndarray:
    return np.stack([np.arange(frames) * 10.0 + episode, np.full(frames, -1.5)], axis=1).astype(np.float32)


def check_recording(folder: Path, tolerance: float = 3.0) -> VideoFolder:
    """The videos and actions that were put in, as training reads them."""
    videos = VideoFolder(folder)
    assert [video.num_frames for video in videos.videos] == list(LENGTHS) and not videos.skipped
    assert videos.action_names == NAMES and videos.videos[0].frame_rate == 10.0
    for e, frames in enumerate(LENGTHS):
        assert np.abs(videos.read(e, range(frames)).numpy().astype(int) - clip(e, frames)).max() <= tolerance
        assert np.allclose(videos.actions(e), track(e, frames))
    return videos
