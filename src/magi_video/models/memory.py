"""Which frames of a long rollout stay in sight beside the latest ones, and where in time they are seen."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameMemory:
    """The first frames and a strided past, in a part of the window; the latest frames have the rest.

    No more frames are in sight than without it, and they have consecutive positions up to the newest frame's: distances
    stay those of training, and cost and memory those of the window. As in StreamingLLM (Xiao et al. 2024), where the
    first tokens' positions close up to the latest; the strided past is that of Sparse Transformers (Child et al. 2019).
    While all frames fit, all are in sight: nothing differs from the window's rollout until then.

    Attributes:
        window: most frames in sight W, the newest one included.
        sink: first frames of the rollout that stay.
        strided: older frames that stay beside them, the latest of those whose number is a multiple of `stride`. At most
            W − 2 frames stay in all: the newest one and the one before it need the rest.
        stride: from one of them to the next, in frames.
    """

    window: int
    sink: int
    strided: int
    stride: int

    @property
    def kept(self) -> int:
        """Most frames that stay."""
        return self.sink + self.strided

    def seen_by(self, newest: int, before: list[int]) -> list[int]:
        """Numbers of the frames in sight of a frame, increasing, itself the last.

        Args:
            newest: its number.
            before: those in sight of the frame before it; none for the first frame.
        """
        frames = [*before, newest]
        if len(frames) > self.window:
            strided = self.sink
            while frames[strided] % self.stride == 0:
                strided += 1
            del frames[self.sink if strided > self.kept else strided]
        return frames

    @staticmethod
    def positions(frames: list[int]) -> list[int]:
        """Temporal positions at which the last of some frames sees them: consecutive, the last one's its number."""
        return list(range(frames[-1] - len(frames) + 1, frames[-1] + 1))

    def table(self, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of the frames 0, 1, … of a rollout, `[S, S]` both.

        Returns:
            Mask, True where the row's frame sees the column's; and the position at which it does, float64.
        """
        mask_SS = torch.zeros(frames, frames, dtype=torch.bool)
        position_SS = torch.zeros(frames, frames, dtype=torch.float64)
        seen: list[int] = []
        for newest in range(frames):
            seen = self.seen_by(newest, seen)
            mask_SS[newest, seen] = True
            position_SS[newest, seen] = torch.tensor(self.positions(seen), dtype=torch.float64)
        return mask_SS.to(device), position_SS.to(device)
