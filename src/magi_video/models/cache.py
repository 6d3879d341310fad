"""The frame-level key/value cache: allocated once, written in place, one slot a frame.

A rollout runs several passes over the frame being generated and one over the finished frame. Every pass writes that
frame's keys and values into the same slot and attends over all slots up to it; only `advance` makes the slot permanent.
So a pass over a masked frame leaves nothing behind, and cost per frame grows with nothing but attention to the past.
"""

import torch
from torch import Tensor

from magi_video.errors import MagiError


class FrameCache:
    """Keys and values of the temporal layers for the frames seen so far.

    Args:
        layers: number of temporal layers.
        batch: samples B.
        places: locations L of one frame (condition tokens + tokens); temporal attention runs at each apart.
        heads, head_dim: shape of the attention.
        capacity: frames F that the cache holds.
        sliding: when full, let the newest frame replace the oldest (needs relative temporal positions) instead of
            refusing it.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        places: int,
        heads: int,
        head_dim: int,
        capacity: int,
        *,
        sliding: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = capacity
        self.sliding = sliding
        self.length = 0
        shape = (layers, batch, places, heads, capacity, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def write(self, layer: int, k_BLHSd: Tensor, v_BLHSd: Tensor) -> tuple[Tensor, Tensor]:
        """Put the current frame's keys and values (S = 1) in its slot.

        Returns:
            Keys and values to attend to, `[B, L, H, frames, d]`: the past and the current frame itself.

        Raises:
            MagiError: the cache is full and does not slide.
        """
        if self.length >= self.capacity and not self.sliding:
            raise MagiError(
                f"the rollout was planned for {self.capacity} frames and cannot go past them: "
                "ask for more frames at the start, or use a model with temporal_position='rope'"
            )
        # Once full, order among slots is lost; attention does not mind, positions are inside the keys.
        slot = self.length % self.capacity
        self.keys[layer, :, :, :, slot] = k_BLHSd[..., 0, :]
        self.values[layer, :, :, :, slot] = v_BLHSd[..., 0, :]
        held = min(self.length + 1, self.capacity)
        return self.keys[layer, :, :, :, :held], self.values[layer, :, :, :, :held]

    def advance(self) -> None:
        """Make the current frame part of the past."""
        self.length += 1

    def reset(self) -> None:
        """Forget every frame, keep the memory."""
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return 2 * self.keys.nbytes
