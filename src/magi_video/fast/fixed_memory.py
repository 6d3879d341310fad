"""Memory that stays where it is, which CUDA graphs read and write: keys and values, and the inputs of a mask step."""

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.fast.cache import PlaceCache, PlacesCache, sample_index
from magi_video.fast.graph import StepInputs, frames_of
from magi_video.models.cache import FrameCache
from magi_video.sampling.past import pick


class FixedLayer(PlaceCache):
    """A block's cache that is written at slots given by a tensor, and attended to whole.

    Args:
        like: the layer of a rollout; memory of the same shape is allocated.
    """

    def __init__(self, like: PlaceCache) -> None:
        self.keys, self.values = torch.zeros_like(like.keys), torch.zeros_like(like.values)
        self.remembers = like.remembers
        self.spatial: tuple[Tensor, Tensor] | None = None

    @override
    def write(self, k_BLHSd: Tensor, v_BLHSd: Tensor, at_Bn: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `PlaceCache.write`: of all slots."""
        for held, new in ((self.keys, k_BLHSd), (self.values, v_BLHSd)):
            if at_Bn is None:
                held.index_copy_(3, self.slots_S, new.to(held.dtype))
            else:  # one frame: S = 1
                held[sample_index(at_Bn), at_Bn, :, self.slots_S] = new[:, :, :, 0].to(held.dtype)
        return (self.keys, self.values) if at_Bn is None else (pick(self.keys, at_Bn), pick(self.values, at_Bn))

    @override
    def remember(self, k_BLHd: Tensor, v_BLHd: Tensor, at_Bn: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `PlaceCache.remember`: always in the same memory."""
        assert self.spatial is not None, "a rollout's own pass comes before"
        if at_Bn is not None:
            return super().remember(k_BLHd, v_BLHd, at_Bn)
        for held, new in zip(self.spatial, (k_BLHd, v_BLHd), strict=True):
            held.copy_(new)
        return self.spatial


class FixedCache(FrameCache):
    """Keys and values where graphs find them, lent to one rollout at a time.

    Args:
        like: the cache of a rollout; memory of the same shapes is allocated.
    """

    def __init__(self, like: PlacesCache) -> None:
        self.layers: list[FixedLayer] = [FixedLayer(layer) for layer in like.layers]
        self.capacity, self.window, self.device = like.capacity, like.window, like.device
        self.length_on_device = torch.zeros((), dtype=torch.long, device=like.device)
        self._borrower: Callable[[], PlacesCache | None] = lambda: None

    def lend(self, cache: PlacesCache) -> None:
        """Make this a rollout's memory: what it holds is copied here, and the one before gets its own back."""
        before = self._borrower()
        if before is not cache:
            if before is not None:
                self._give_back(before)
            self._borrower = weakref.ref(cache)
        for mine, its in zip(self.layers, cache.layers, strict=True):
            if its.keys is not mine.keys:
                mine.keys.copy_(its.keys)
                mine.values.copy_(its.values)
                its.keys, its.values = mine.keys, mine.values
            if its.spatial is None:  # of its own it has none: what its graphs will write is its all the same
                its.spatial = mine.spatial
            elif its.spatial is not mine.spatial:
                if mine.spatial is None:
                    mine.spatial = fixed_like(its.spatial[0]), fixed_like(its.spatial[1])
                for held, new in zip(mine.spatial, its.spatial, strict=True):
                    held.copy_(new)
                its.spatial = mine.spatial
        self.length_on_device.fill_(cache.length)

    def _give_back(self, cache: PlacesCache) -> None:
        for mine, its in zip(self.layers, cache.layers, strict=True):
            if its.keys is mine.keys:
                its.keys, its.values = mine.keys.clone(), mine.values.clone()
            if mine.spatial is not None and its.spatial is mine.spatial:
                its.spatial = mine.spatial[0].clone(), mine.spatial[1].clone()

    def fill(self, content: "Content") -> None:
        """Put content here; where it has None, nothing is put."""
        for held, new in zip(*both_of(tensors_of(self), content), strict=True):
            held.copy_(new)

    def begin(self, frames: int) -> Tensor:
        """See `FrameCache.begin`; `[S, F]`, reckoned on the device."""
        slots_S = (self.length_on_device + torch.arange(frames, device=self.device)) % self.capacity
        for layer in self.layers:
            layer.slots_S = slots_S
        return self.visible(self.length_on_device + frames, frames, self.capacity)


Content = Sequence[Tensor | None]
"""What a cache holds: of every block keys, values, spatial keys and spatial values; None for what is not there yet."""


def tensors_of(cache: PlacesCache | FixedCache) -> Content:
    """The memory of a cache."""
    layers: Sequence[PlaceCache] = cache.layers
    return [one for layer in layers for one in (layer.keys, layer.values, *(layer.spatial or (None, None)))]


def content_of(cache: PlacesCache | FixedCache) -> Content:
    """A copy of what a cache holds."""
    return [None if one is None else one.clone() for one in tensors_of(cache)]


def both_of(one: Content, other: Content) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of either, where both have one."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def without_changes(before: Content, after: Content) -> Content:
    """Content with NaN for all that has changed: the beginning from which a pass has to make these changes itself."""
    return [
        None
        if new is None
        else torch.full_like(new, torch.nan)
        if old is None
        else new.masked_fill(old != new, torch.nan)
        for old, new in zip(before, after, strict=True)
    ]


def fixed_like(one: Tensor) -> Tensor:
    """Memory for a tensor of this shape and type."""
    return torch.empty(one.shape, dtype=one.dtype, device=one.device)


def fixed_inputs(inputs: StepInputs) -> StepInputs:
    """Memory for inputs of these shapes."""
    frames, conditions = [[fixed_like(one) for one in part] for part in (inputs.of_frames(), inputs.conditions())]
    return StepInputs(
        frames_of(frames, sorted(inputs.frames.conditions), conditions),
        fixed_like(inputs.places_Rn),
        [fixed_like(one) for one in inputs.draws],
        fixed_like(inputs.temperature),
        None if inputs.guidance is None else fixed_like(inputs.guidance),
        None if inputs.appeared_Rn is None else fixed_like(inputs.appeared_Rn),
    )
