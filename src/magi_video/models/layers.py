"""The two layers of a spatial-temporal block: pre-norm Transformer layers that differ in the axis they attend along.

Activations are `x_BSLW`: B clips, S frames, L places of a frame (its condition tokens, then its N tokens), width W.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.models.attention import attention
from magi_video.models.cache import LayerCache, pick
from magi_video.models.dropout import HIDDEN, OUTPUT, PROJECTION, Dropout
from magi_video.models.embeddings import rotate
from magi_video.models.linear import Linear


class Wanted(NamedTuple):
    """Whose output the last block is asked for; the rest of its work, on which nothing depends, is not done.

    Attributes:
        frames: of the sequence.
        places_Bn: of those frames; None for all.
    """

    frames: slice
    places_Bn: Tensor | None

    def of(self, x_BSL: Tensor) -> Tensor:
        """That part of `[B, S, L, …]`."""
        x_BSL = x_BSL[:, self.frames]
        return x_BSL if self.places_Bn is None else pick(x_BSL.transpose(1, 2), self.places_Bn).transpose(1, 2)


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the subclass says what attends to what.

    Under bfloat16 autocast x and both sums are float32, and the products bfloat16 (as in MAR).
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.qkv = Linear(width, 3 * width)
        self.project = Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.mlp_in = Linear(width, mlp_width)
        self.mlp_out = Linear(mlp_width, width)

    def queries_keys_values(self, x_BSLW: Tensor) -> Tensor:
        """`[B, S, L, 3, heads, head_dim]`."""
        return self.qkv(self.norm_attention(x_BSLW)).unflatten(-1, (3, self.heads, -1))

    def finish(self, x_BSLW: Tensor, attended_BSLHd: Tensor, dropout: Dropout | None) -> Tensor:
        """Output projection, both residuals and the MLP."""
        projected = self.project(attended_BSLHd.flatten(-2))
        x_BSLW = x_BSLW + (projected if dropout is None else dropout.drop(projected, PROJECTION))
        hidden = F.gelu(self.mlp_in(self.norm_mlp(x_BSLW)))
        if dropout is None:
            return x_BSLW + self.mlp_out(hidden)
        return x_BSLW + dropout.drop(self.mlp_out(dropout.drop(hidden, HIDDEN)), OUTPUT)


class SpatialLayer(TransformerLayer):
    """Full bidirectional attention among the places of one frame; no mask."""

    def forward(
        self,
        x_BSLW: Tensor,
        wanted: Wanted | None = None,
        cache: LayerCache | None = None,
        at_Bn: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → the same shape, or what is wanted of it.

        Args:
            x_BSLW: activations.
            wanted: whose output to compute; None for everything.
            cache: where it remembers, it keeps the last frame's keys and values and gives those of places not read.
            at_Bn: the places that `x_BSLW` holds, if not all of them (S = 1, over a cache that remembers).
            dropout: of this layer, in training.
        """
        q, k, v = self.queries_keys_values(x_BSLW).unbind(dim=3)
        if cache is not None and cache.remembers:
            held_k, held_v = cache.remember(k[:, -1], v[:, -1], at_Bn)
            if at_Bn is not None:
                k, v = held_k[:, None], held_v[:, None]
        if wanted is not None:
            x_BSLW, q, k, v = wanted.of(x_BSLW), wanted.of(q), k[:, wanted.frames], v[:, wanted.frames]
        attended = attention(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3), dropout=dropout)  # BSHLd
        return self.finish(x_BSLW, attended.transpose(2, 3), dropout)


class TemporalLayer(TransformerLayer):
    """Attention along time at each place, under the paradigm's mask or over the frame cache."""

    def forward(
        self,
        x_BSLW: Tensor,
        mask_SS: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        wanted: Wanted | None = None,
        at_Bn: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → the same shape, or what is wanted of it.

        Args:
            x_BSLW: activations.
            mask_SS: True where frame (row) may attend to frame (column: of the sequence, or the cache's slots).
            rotary: cosines and signed sines `[S, head_dim]` of the frames' positions, for `temporal_position="rope"`.
            cache: keys and values of the frames before.
            wanted: whose output to compute; None for everything.
            at_Bn: the places that `x_BSLW` holds, if not all of them (over a cache).
            dropout: of this layer, in training.
        """
        qkv = self.queries_keys_values(x_BSLW)
        # Split, not sliced: a slice's gradient is a whole tensor of zeros around it.
        qk, v = qkv.split([2, 1], dim=3)
        if rotary is not None:
            cos, sin = (angles[:, None, None, None] for angles in rotary)
            qk = rotate(qk, cos, sin)
        q, k, v = (part.permute(0, 2, 3, 1, 4) for part in (*qk.unbind(3), v.squeeze(3)))  # BLHSd
        if cache is not None:
            k, v = cache.write(k, v, at_Bn)
        if wanted is not None:
            x_BSLW, q = wanted.of(x_BSLW), q[:, :, :, wanted.frames]
            mask_SS = None if mask_SS is None else mask_SS[wanted.frames]
            if wanted.places_Bn is not None:
                q, k, v = (pick(part, wanted.places_Bn) for part in (q, k, v))
        attended = attention(q, k.to(q.dtype), v.to(q.dtype), mask_SS, dropout)
        return self.finish(x_BSLW, attended.permute(0, 3, 1, 2, 4), dropout)


class Block(nn.Module):
    """A spatial layer, then a temporal layer (paper, section 4)."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.spatial = SpatialLayer(width, heads, mlp_width)
        self.temporal = TemporalLayer(width, heads, mlp_width)

    def forward(
        self,
        x_BSLW: Tensor,
        mask_SS: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        wanted: Wanted | None = None,
        at_Bn: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → the same shape, or what is wanted of it; arguments as in `TemporalLayer`."""
        if at_Bn is not None:
            return self.temporal(self.spatial(x_BSLW, None, cache, at_Bn), mask_SS, rotary, cache, wanted, at_Bn)
        if wanted is None or wanted.places_Bn is None or x_BSLW.shape[1] > 1:
            in_space, in_time = (None, None) if dropout is None else (dropout.at(0), dropout.at(1))
            x_BSLW = self.spatial(x_BSLW, None, cache, dropout=in_space)
            return self.temporal(x_BSLW, mask_SS, rotary, cache, wanted, dropout=in_time)
        # Temporal attention runs at each place apart: nobody reads what the spatial layer says of the others.
        return self.temporal(self.spatial(x_BSLW, wanted, cache), mask_SS, rotary, cache, at_Bn=wanted.places_Bn)
