"""The frame cache of a rollout in which frames stay in sight beyond the window (`exposure/memory.py`)."""

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.exposure.memory import FrameMemory
from magi_video.fast.cache import PlacesCache
from magi_video.models.cache import FrameCache
from magi_video.models.embeddings import rotary_angles, rotate


class MemoryCache(PlacesCache):
    """A frame cache whose slots are those of the frames in sight; a pass has one frame.

    A rotary key at position a is one at b after a turn by b − a. Kept frames are turned anew for every frame, always
    from what was written, so that errors of rounding do not add up.

    Args:
        cache: an empty one of `memory.window` slots.
        remembers: as of `PlacesCache`.
        memory: which frames are in sight.
    """

    def __init__(self, cache: FrameCache, remembers: bool, memory: FrameMemory) -> None:
        super().__init__(cache, remembers)
        assert self.capacity == memory.window
        self.memory = memory
        self.unmoved = [torch.zeros_like(layer.keys[:, :, :, : memory.kept]) for layer in self.layers]
        """Of each layer, keys `[B, L, H, kept, d]` of kept frames at the positions at which they were written."""
        self._slots: dict[int, int] = {}  # frame in sight → its slot,
        self._rows: dict[int, int] = {}  # and, where it is seen elsewhere than it was written, its place in `unmoved`
        self._seen_1F = torch.zeros(1, self.capacity, dtype=torch.bool, device=self.device)

    @override
    def begin(self, frames: int) -> Tensor | None:
        """See `FrameCache.begin`."""
        assert frames == 1, "every frame sees the kept ones at positions of its own"
        if self.length not in self._slots:
            self._make_room()
        return self._seen_1F

    @property
    @override
    def nbytes(self) -> int:
        return super().nbytes + sum(keys.nbytes for keys in self.unmoved)

    def _make_room(self) -> None:
        """Choose the frames in sight of the next one, and turn the keys of those that stay to where it sees them."""
        seen = self.memory.seen_by(self.length, list(self._slots))
        self._slots = {frame: self._slots[frame] for frame in seen[:-1]}
        slot = self._slots[self.length] = free(self._slots, self.capacity)
        slots_S = torch.tensor([slot], device=self.device)
        for layer in self.layers:
            layer.slots, layer.slots_S, layer.held = [slot], slots_S, self.capacity
        turns = {frame: at - frame for frame, at in zip(seen, self.memory.positions(seen), strict=True) if at != frame}
        self._rows = {frame: row for frame, row in self._rows.items() if frame in turns}
        for frame in turns.keys() - self._rows:
            row = self._rows[frame] = free(self._rows, self.memory.kept)
            for layer, unmoved in zip(self.layers, self.unmoved, strict=True):
                unmoved[:, :, :, row] = layer.keys[:, :, :, self._slots[frame]]
        if turns:
            rows, slots = [self._rows[frame] for frame in turns], [self._slots[frame] for frame in turns]
            angles = torch.tensor(list(turns.values()), device=self.device)
            cos, sin = rotary_angles(angles, self.unmoved[0].shape[-1])
            for layer, unmoved in zip(self.layers, self.unmoved, strict=True):
                layer.keys[:, :, :, slots] = rotate(unmoved[:, :, :, rows].float(), cos, sin).to(unmoved.dtype)
        self._seen_1F = torch.zeros_like(self._seen_1F)
        self._seen_1F[:, list(self._slots.values())] = True


def free(taken: dict[int, int], count: int) -> int:
    """The first of 0…count − 1 that is not among the values."""
    return next(place for place in range(count) if place not in taken.values())
