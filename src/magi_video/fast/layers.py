"""Blocks that compute only what a pass of generation needs, and attend by the kernel that is fast on the device.

`fast.speed_up` puts these classes in the place of the plain ones (`models/layers.py`); weights and results stay. A
pass may ask for some tokens of the last frame alone (`Wanted`): the last block then computes no others. It may also
read some tokens alone (`at_Bn`): the keys and values of the others are those of the pass before (`cache.PlaceCache`).
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor

from magi_video.fast.attention import attention
from magi_video.fast.cache import PlaceCache
from magi_video.models.cache import LayerCache
from magi_video.models.dropout import Dropout
from magi_video.models.embeddings import rotate
from magi_video.models.layers import Block, SpatialLayer, TemporalLayer, TransformerLayer
from magi_video.sampling.past import pick


class Wanted(NamedTuple):
    """Whose output the last block is asked for.

    Attributes:
        frames: of the sequence.
        places_Bn: places of those frames; None for all.
    """

    frames: slice
    places_Bn: Tensor | None

    def of(self, x_BSL: Tensor) -> Tensor:
        """That part of `[B, S, L, …]`."""
        x_BSL = x_BSL[:, self.frames]
        return x_BSL if self.places_Bn is None else pick(x_BSL.transpose(1, 2), self.places_Bn).transpose(1, 2)


class FastAttention(TransformerLayer):
    """The kernel that is fast on the device (`fast/attention.py`)."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """As of `TransformerLayer`."""
        if mask is None or mask.ndim == 2:
            return attention(q, k, v, mask, dropout)
        return super().attend(q, k, v, mask, dropout)


class FastSpatialLayer(FastAttention, SpatialLayer):
    """The spatial layer, over some places alone if asked."""

    def forward(
        self,
        x_BSLW: Tensor,
        mask_SLL: Tensor | None = None,
        dropout: Dropout | None = None,
        cache: LayerCache | None = None,
        wanted: Wanted | None = None,
        at_Bn: Tensor | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → the same shape, or what is wanted of it.

        Args:
            x_BSLW: activations.
            mask_SLL, dropout: as of `SpatialLayer`.
            cache: a `PlaceCache` that remembers keeps the last frame's keys and values, and gives those of places that
                this pass does not read.
            wanted: whose output to compute; None for everything.
            at_Bn: the places that `x_BSLW` holds, if not all of them (S = 1, over a cache that remembers).
        """
        q, k, v = self.queries_keys_values(x_BSLW).unbind(dim=3)
        if isinstance(cache, PlaceCache) and cache.remembers:
            held_k, held_v = cache.remember(k[:, -1], v[:, -1], at_Bn)
            if at_Bn is not None:
                k, v = held_k[:, None], held_v[:, None]
        if wanted is not None:
            x_BSLW, q, k, v = wanted.of(x_BSLW), wanted.of(q), k[:, wanted.frames], v[:, wanted.frames]
        mask = None if mask_SLL is None else mask_SLL[:, None]
        attended = self.attend(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3), mask, dropout)  # BSHLd
        return self.finish(x_BSLW, attended.transpose(2, 3), dropout)


class FastTemporalLayer(FastAttention, TemporalLayer):
    """The temporal layer, over some places alone if asked."""

    def forward(
        self,
        x_BSLW: Tensor,
        mask_QS: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        dropout: Dropout | None = None,
        wanted: Wanted | None = None,
        at_Bn: Tensor | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → `[B, Q, L, W]`, or what is wanted of it.

        Args:
            x_BSLW: activations.
            mask_QS, rotary, cache, dropout: as of `TemporalLayer`.
            wanted: whose output to compute; None for everything.
            at_Bn: the places that `x_BSLW` holds, if not all of them (over a `PlaceCache`).
        """
        if cache is None and fuses_attention(x_BSLW.device):
            return self.by_place(x_BSLW, mask_QS, rotary, dropout)
        if wanted is None and at_Bn is None:
            return super().forward(x_BSLW, mask_QS, rotary, cache, dropout)
        q, k, v = self.along_time(x_BSLW, rotary)
        k, v = cast(PlaceCache, cache).write(k, v, at_Bn)
        if wanted is not None:
            x_BSLW, q = wanted.of(x_BSLW), q[:, :, :, wanted.frames]
            mask_QS = None if mask_QS is None else mask_QS[wanted.frames]
            if wanted.places_Bn is not None:
                q, k, v = (pick(part, wanted.places_Bn) for part in (q, k, v))
        attended = self.attend(q, k.to(q.dtype), v.to(q.dtype), mask_QS)
        return self.finish(x_BSLW, attended.permute(0, 3, 1, 2, 4))

    def by_place(
        self,
        x_BSLW: Tensor,
        mask_QS: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """As of `TemporalLayer` without a cache, place after place instead of frame after frame.

        Queries, keys and values are projected in the order in which attention reads them, `[B, L, S, …]`: the fused
        kernel takes them as views. What is copied is the norm's output alone, a third as much.
        """
        qkv = self.qkv(self.norm_attention(x_BSLW).transpose(1, 2)).unflatten(-1, (3, self.heads, -1))  # BLS3Hd
        qk, v = qkv.split([2, 1], dim=3)
        if rotary is not None:
            cos, sin = (angles[:, None, None] for angles in rotary)
            qk = rotate(qk, cos, sin)
        q, k, v = (part.transpose(2, 3) for part in (*qk.unbind(3), v.squeeze(3)))  # BLHSd
        if mask_QS is not None:
            x_BSLW, q = x_BSLW[:, -len(mask_QS) :], q[:, :, :, -len(mask_QS) :]
        attended = self.attend(q, k, v, mask_QS, dropout)
        return self.finish(x_BSLW, attended.permute(0, 3, 1, 2, 4), dropout)


def fuses_attention(device: torch.device) -> bool:
    """Whether a device's fused attention takes strided queries, keys and values: GPUs do."""
    return device.type == "cuda"


class FastBlock(Block):
    """A spatial layer, then a temporal layer, over some places alone if asked."""

    def forward(
        self,
        x_BSLW: Tensor,
        mask_QS: Tensor | None = None,
        spatial_SLL: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        dropout: Dropout | None = None,
        flat_PP: Tensor | None = None,
        wanted: Wanted | None = None,
        at_Bn: Tensor | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → `[B, Q, L, W]`, or what is wanted of it; arguments as of the two layers."""
        if flat_PP is not None:
            return super().forward(x_BSLW, dropout=dropout, rotary=rotary, flat_PP=flat_PP)
        if wanted is None or wanted.places_Bn is None or at_Bn is not None or x_BSLW.shape[1] > 1:
            in_space, in_time = (None, None) if dropout is None else (dropout.at(0), dropout.at(1))
            x_BSLW = self.spatial(x_BSLW, spatial_SLL, in_space, cache, None, at_Bn)
            return self.temporal(x_BSLW, mask_QS, rotary, cache, in_time, wanted, at_Bn)
        # Temporal attention runs at each place apart: nobody reads what the spatial layer gives for the others.
        x_BSLW = self.spatial(x_BSLW, spatial_SLL, None, cache, wanted)
        return self.temporal(x_BSLW, mask_QS, rotary, cache, None, None, wanted.places_Bn)
