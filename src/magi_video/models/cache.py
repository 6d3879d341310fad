"""The frame-level key/value cache: allocated once, written in place, one slot a frame.

A rollout runs several passes over the frame being generated and one over the finished frame. Every pass writes the
keys and values of its frames into the slots that follow the past; only `advance` makes a slot part of the past. So a
pass over a masked frame leaves nothing behind, and cost per frame grows with nothing but attention to the past.
"""

import torch
from torch import Tensor

from magi_video.errors import MagiError


def pick(x_BL: Tensor, places_Bn: Tensor) -> Tensor:
    """`[B, L, …]` at each sample's own places: `[B, n, …]`."""
    if len(x_BL) == 1:
        return x_BL.index_select(1, places_Bn[0])
    return x_BL[sample_index(places_Bn), places_Bn]


def sample_index(places_Bn: Tensor) -> Tensor:
    """`[B, 1]`: with `places_Bn`, the index of each sample's own places."""
    return torch.arange(len(places_Bn), device=places_Bn.device)[:, None]


class LayerCache:
    """What one block keeps: temporal keys and values of the frames seen so far, and spatial ones of the current frame.

    Args:
        shape: `[B, L, H, F, d]` of the keys.
        dtype, device: of keys and values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> None:
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.slots: list[int] = []
        self.slots_S = torch.zeros(0, dtype=torch.long, device=device)
        self.held = 0
        self.remembers = False
        self._spatial: tuple[Tensor, Tensor] | None = None

    def write(self, k_BLHSd: Tensor, v_BLHSd: Tensor, at_Bn: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Put the keys and values of the pass's frames into their slots.

        Args:
            k_BLHSd: keys, at all places or at those of `at_Bn`.
            v_BLHSd: values.
            at_Bn: places of each sample; the slots keep what they hold at the others. None for all L.

        Returns:
            Keys and values of all held slots at these places, `[B, L, H, held, d]`.
        """
        for held, new in ((self.keys, k_BLHSd), (self.values, v_BLHSd)):
            if torch.compiler.is_compiling() and at_Bn is None:  # one graph for all slots
                held.index_copy_(3, self.slots_S, new.to(held.dtype))
                continue
            for s, slot in enumerate(self.slots):  # copies into slices: several times as fast as index_copy_
                if at_Bn is None:
                    held[:, :, :, slot] = new[:, :, :, s]
                else:
                    held[:, :, :, slot].index_put_((sample_index(at_Bn), at_Bn), new[:, :, :, s].to(held.dtype))
        keys, values = self.keys[:, :, :, : self.held], self.values[:, :, :, : self.held]
        return (keys, values) if at_Bn is None else (pick(keys, at_Bn), pick(values, at_Bn))

    def remember(self, k_BLHd: Tensor, v_BLHd: Tensor, at_Bn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Keep the spatial keys and values of the frame in the making, at all places or at those of `at_Bn`.

        A pass over some places alone attends to the others through what this returns, `[B, L, H, d]`: what was computed
        for each place last. An approximation, since every place sees every other and would change a little with each
        token that appears (as in LazyMAR, Yan et al. 2025).
        """
        if at_Bn is None:
            self._spatial = k_BLHd, v_BLHd
        assert self._spatial is not None, "the first pass over a frame reads all of it"
        if at_Bn is not None:
            for held, new in zip(self._spatial, (k_BLHd, v_BLHd), strict=True):
                held.index_put_((sample_index(at_Bn), at_Bn), new)
        return self._spatial


class FrameCache:
    """Keys and values of all layers for the frames seen so far.

    Args:
        layers: number of blocks.
        batch: samples B.
        places: locations L of one frame (condition tokens + tokens); temporal attention runs at each apart.
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
        self.layers = [LayerCache((batch, places, heads, capacity, head_dim), dtype, device) for _ in range(layers)]

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
        newest_S = torch.arange(self.length, end, device=self.device)
        slots, slots_S = [frame % self.capacity for frame in range(self.length, end)], newest_S % self.capacity
        for layer in self.layers:
            layer.slots, layer.slots_S, layer.held = slots, slots_S, held
        if frames == 1 and self.window is None:
            return None
        newest_S1 = newest_S[:, None]
        slot = torch.arange(held, device=self.device)
        frame = end - 1 - (end - 1 - slot) % self.capacity  # the newest one that belongs there; negative: none yet
        return (frame >= 0) & (frame <= newest_S1) & (frame > newest_S1 - (self.window or end))

    def advance(self) -> None:
        """Make the first frame of the last pass part of the past."""
        self.length += 1

    def remember(self) -> None:
        """From now on keep spatial keys and values too, so that passes may read a part of the current frame."""
        for layer in self.layers:
            layer.remembers = True

    @property
    def nbytes(self) -> int:
        """Memory held for frames, in bytes."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)
