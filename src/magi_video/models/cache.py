"""The frame-level key/value cache (paper, section 5.5): allocated once, written in place, one slot a frame.

A rollout runs several passes over the frame being generated and one over the finished frame. Every pass writes the
keys and values of its frames into the slots that follow the past; only `advance` makes a slot part of the past. So a
pass over a masked frame leaves nothing behind, and cost per frame grows with nothing but attention to the past.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from magi_video.errors import MagiError


class LayerCache:
    """Temporal keys and values of one block for the frames seen so far.

    Args:
        shape: `[B, L, H, F, d]` of the keys.
        dtype, device: of keys and values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> None:
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.slots: list[int] = []
        self.held = 0

    def write(self, k_BLHSd: Tensor, v_BLHSd: Tensor) -> tuple[Tensor, Tensor]:
        """Put the keys and values of the pass's frames into their slots; returns those of all held slots."""
        for s, slot in enumerate(self.slots):
            self.keys[:, :, :, slot] = k_BLHSd[:, :, :, s]
            self.values[:, :, :, slot] = v_BLHSd[:, :, :, s]
        return self.keys[:, :, :, : self.held], self.values[:, :, :, : self.held]


class FrameCache:
    """Keys and values of all layers for the frames seen so far.

    Args:
        layers: number of blocks.
        batch: samples B.
        places: places L of one frame (condition tokens + tokens); temporal attention runs at each apart.
        heads, head_dim: shape of the attention.
        capacity: frames F that the cache holds.
        window: frames that a frame may see, itself included, `capacity` − 1 at most; the newest frame then replaces
            the oldest when the cache is full (needs relative temporal positions). None: all of the past, and a full
            cache refuses another frame.
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
        window: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        assert window is None or window < capacity, "the frame before must stay in sight while the next is begun"
        self.capacity = capacity
        self.window = window
        self.length = 0
        self.device = torch.device(device)
        shape = (batch, places, heads, capacity, head_dim)
        self.layers: Sequence[LayerCache] = [LayerCache(shape, dtype, device) for _ in range(layers)]

    def begin(self, frames: int) -> Tensor | None:
        """Make room for a pass over the next `frames` frames S.

        Returns:
            Which of the held slots (column) each of them (row) may see, boolean `[S, held]`: itself, the frames of the
            pass before it, and the past as far as the window reaches. None where that is everything.

        Raises:
            MagiError: the cache is full and has no window.
        """
        end = self.length + frames
        if end > self.capacity and self.window is None:
            raise MagiError(
                f"the rollout was planned for {self.capacity} frames and cannot go past them: "
                "ask for more frames at the start, or use a model with temporal_position='rope'"
            )
        # A window is attended to whole, empty slots hidden: products over part of a tensor would copy it first.
        held = end if self.window is None else self.capacity
        slots = [frame % self.capacity for frame in range(self.length, end)]
        for layer in self.layers:
            layer.slots, layer.held = slots, held
        return None if frames == 1 and self.window is None else self.visible(end, frames, held)

    def visible(self, end: int | Tensor, frames: int, held: int) -> Tensor:
        """Which of the held slots (column) each of the next frames (row) may see, boolean `[frames, held]`.

        `end` frames are there with them: a tensor of no dimensions where the device alone knows the number.
        """
        newest_S1 = end - frames + torch.arange(frames, device=self.device)[:, None]
        slot = torch.arange(held, device=self.device)
        frame = end - 1 - (end - 1 - slot) % self.capacity  # the newest one that belongs there; negative: none yet
        return (frame >= 0) & (frame <= newest_S1) & (frame > newest_S1 - (end if self.window is None else self.window))

    def advance(self) -> None:
        """Make the first frame of the last pass part of the past."""
        self.length += 1

    @property
    def nbytes(self) -> int:
        """Memory held for frames, in bytes."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)
