"""Frames of a long rollout that stay in sight beside the latest ones: which they are, where in time they are seen, and
the cache that holds them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.fast.cache import PlacesCache
from magi_video.models.embeddings import rotary_angles, rotate
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.sampling.sampling import Sampling

STRIDE = 4
"""Of the strided past, where none is given."""


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


def find_memory(
    model: MagiVideoTransformer, paradigm: Paradigm, sampling: Sampling, total_frames: int | None = None
) -> FrameMemory | None:
    """The frames that a sampling keeps in sight beside the latest; None for no others.

    Args:
        model: the transformer.
        paradigm: as the sampling wants it.
        sampling: what is asked for.
        total_frames: of the rollout; None for one without end.

    Raises:
        MagiError: the model or the paradigm cannot, or too many are asked for.
    """
    sink, strided = sampling.sink_frames or 0, sampling.strided_frames or 0
    if sampling.past_stride is not None and sampling.strided_frames is None:
        raise MagiError("past_stride is of the strided past: give strided_frames, the number of its frames, too")
    if not sink + strided:
        return None
    window = model.config.num_frames
    if model.config.temporal_position != "rope":
        raise MagiError(
            "sink_frames and strided_frames are for models with relative positions (temporal_position='rope'): "
            "this one always has its whole past in sight"
        )
    if not paradigm.frame_cache or paradigm.step_frames(model, 0, total_frames) > 1:
        raise MagiError(
            f"sink_frames and strided_frames need frames that are made one by one over the frame cache, and "
            f"{paradigm.name} generates in another way"
        )
    if sink + strided > window - 2:
        raise MagiError(
            f"sink_frames and strided_frames must leave 2 of the {window} frames in sight to the newest, so they are "
            f"{window - 2} at most together; got {sink} and {strided}"
        )
    return FrameMemory(window, sink, strided, sampling.past_stride or STRIDE)


class MemoryCache(PlacesCache):
    """A frame cache whose slots are those of the frames in sight; a pass has one frame.

    A rotary key at position a is one at b after a turn by b − a. Kept frames are turned anew for every frame, always
    from what was written, so that errors of rounding do not add up.
    """

    memory: FrameMemory
    unmoved: list[Tensor]
    """Of each layer, keys `[B, L, H, kept, d]` of kept frames at the positions at which they were written."""
    _slots: dict[int, int]  # frame in sight → its slot,
    _rows: dict[int, int]  # and, where it is seen elsewhere than it was written, its place in `unmoved`
    _seen_1F: Tensor

    @classmethod
    def keeping(cls, cache: PlacesCache, memory: FrameMemory) -> "MemoryCache":
        """The same cache, still empty and of `memory.window` slots, with a memory."""
        cache.__class__ = cls
        assert isinstance(cache, MemoryCache) and cache.capacity == memory.window
        cache.memory, cache._slots, cache._rows = memory, {}, {}
        cache.unmoved = [torch.zeros_like(layer.keys[:, :, :, : memory.kept]) for layer in cache.layers]
        cache._seen_1F = torch.zeros(1, cache.capacity, dtype=torch.bool, device=cache.device)
        return cache

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
            layer.slots, layer.slots_S, layer.held = [slot], slots_S, self.capacity  # type: ignore[attr-defined]
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
