"""A frame cache that can also be written at some places of a frame alone."""

import torch
from torch import Tensor

from magi_video.models.cache import FrameCache, LayerCache
from magi_video.sampling.past import pick


def sample_index(places_Bn: Tensor) -> Tensor:
    """`[B, 1]`: with `places_Bn`, the index of each sample's own places."""
    return torch.arange(places_Bn.shape[0], device=places_Bn.device)[:, None]


class PlaceCache(LayerCache):
    """A block's cache, which may remember the spatial keys and values of the frame in the making as well.

    Args:
        layer: an empty one, whose memory it takes over.
        remembers: whether it does.
    """

    def __init__(self, layer: LayerCache, remembers: bool) -> None:
        self.keys, self.values, self.slots, self.held = layer.keys, layer.values, layer.slots, layer.held
        self.slots_S = torch.zeros(0, dtype=torch.long, device=self.keys.device)
        self.remembers = remembers
        self.spatial: tuple[Tensor, Tensor] | None = None
        """What is remembered; None before the first pass."""

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
            self.spatial = k_BLHd, v_BLHd
        assert self.spatial is not None, "the first pass over a frame reads all of it"
        if at_Bn is not None:
            for held, new in zip(self.spatial, (k_BLHd, v_BLHd), strict=True):
                held.index_put_((sample_index(at_Bn), at_Bn), new)
        return self.spatial


class PlacesCache(FrameCache):
    """A `FrameCache` of `PlaceCache`s.

    Args:
        cache: an empty one, whose memory it takes over.
        remembers: whether passes may read a part of the frame in the making.
    """

    layers: list[PlaceCache]

    def __init__(self, cache: FrameCache, remembers: bool) -> None:
        self.capacity, self.window, self.length, self.device = cache.capacity, cache.window, cache.length, cache.device
        self.layers = [PlaceCache(layer, remembers) for layer in cache.layers]

    def begin(self, frames: int) -> Tensor | None:
        """See `FrameCache.begin`."""
        mask = super().begin(frames)
        slots_S = torch.arange(self.length, self.length + frames, device=self.device) % self.capacity
        for layer in self.layers:
            layer.slots_S = slots_S
        return mask
