"""Which clips a latent cache holds for a codec that compresses time.

Such a codec encodes a clip as a whole, its first frame alone, so the interval applies before encoding and another
start is another clip. All of them would be too many: the grid says which there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from magi_video.errors import MagiError


@dataclass(frozen=True)
class ClipGrid:
    """Clips at regular starts, for each of some intervals.

    At interval k a clip spans (length − 1)·k + 1 frames. Its starts lie evenly from the first frame to the last start
    that fits, at most `stride` frames apart. With `stride` = `length`, each interval encodes each video about once, and
    as many of its k phases occur as there are clips.

    Args:
        length: frames of a clip.
        intervals: of the video's frames, increasing.
        stride: largest distance in frames between the starts of two neighbouring clips of one interval.

    Raises:
        MagiError: the numbers make no sense.
    """

    length: int
    intervals: tuple[int, ...]
    stride: int

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.intervals, self.intervals[1:], strict=False))
        if self.length < 1 or self.stride < 1 or not self.intervals or self.intervals[0] < 1 or not rising:
            raise MagiError(
                f"clips of {self.length} frames every {self.stride} frames at intervals {_listed(self.intervals)}; "
                "expected positive numbers, the intervals increasing"
            )

    def __str__(self) -> str:
        return f"clips of {self.length} frames at intervals {_listed(self.intervals)}, every {self.stride} frames"

    def starts(self, num_frames: int, interval: int) -> list[int]:
        """First frames of the clips at an interval, increasing; none where the video is too short."""
        last = num_frames - 1 - (self.length - 1) * interval
        if last < 0 or interval not in self.intervals:
            return []
        steps = -(-last // self.stride)
        return [last * step // steps for step in range(steps + 1)] if steps else [0]

    def count(self, num_frames: int) -> int:
        """Clips of a video of so many frames."""
        lasts = (num_frames - 1 - (self.length - 1) * interval for interval in self.intervals)
        return sum(1 - (-last // self.stride) for last in lasts if last >= 0)

    def rows(self, num_frames: int) -> dict[tuple[int, int], int]:
        """(interval, start) of each clip → its row in the cache; in the order in which a reader meets their ends."""
        return _rows(self, num_frames)


@lru_cache(maxsize=4096)
def _rows(grid: ClipGrid, num_frames: int) -> dict[tuple[int, int], int]:
    clips = [(interval, start) for interval in grid.intervals for start in grid.starts(num_frames, interval)]
    clips.sort(key=lambda clip: (clip[1] + (grid.length - 1) * clip[0], clip[0]))
    return {clip: row for row, clip in enumerate(clips)}


def _listed(intervals: tuple[int, ...]) -> str:
    return ", ".join(map(str, intervals)) or "none"
