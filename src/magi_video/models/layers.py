"""The two layers of a spatial-temporal block (paper, section 4): pre-norm Transformer layers along different axes.

Activations are `x_BSLW`: B clips, S frames, L places of a frame (its condition tokens, then its N tokens), width W.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.models.cache import LayerCache
from magi_video.models.dropout import ATTENTION, HIDDEN, OUTPUT, PROJECTION, Dropout
from magi_video.models.embeddings import rotate


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the subclass says what attends to what.

    Under bfloat16 autocast x and both sums are float32, and the products bfloat16 (as in MAR).
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.mlp_in = nn.Linear(width, mlp_width)
        self.mlp_out = nn.Linear(mlp_width, width)

    def queries_keys_values(self, x_BSLW: Tensor) -> Tensor:
        """`[B, S, L, 3, heads, head_dim]`."""
        return self.qkv(self.norm_attention(x_BSLW)).unflatten(-1, (3, self.heads, -1))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """softmax(q kᵀ / √d) v.

        Args:
            q: `[B, X, heads, Lq, d]`.
            k, v: `[B, X, heads, Lk, d]`.
            mask: boolean, `[Lq, Lk]` or `[X, 1, Lq, Lk]`, True where attention is allowed; every row allows something.
            dropout: of the weights, in training.

        Returns:
            `[B, X, heads, Lq, d]`.
        """
        if dropout is None or not dropout.rates[ATTENTION]:
            batch = q.shape[:2]  # the kernels take one batch dimension
            if mask is not None and mask.ndim == 4:
                mask = mask.repeat(batch[0], 1, 1, 1)
            q, k, v = (part.flatten(0, 1) for part in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).unflatten(0, batch)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return dropout.drop(scores.softmax(-1), ATTENTION) @ v

    def finish(self, x_BSLW: Tensor, attended_BSLHd: Tensor, dropout: Dropout | None = None) -> Tensor:
        """Output projection, both residuals and the MLP."""
        projected = self.project(attended_BSLHd.flatten(-2))
        x_BSLW = x_BSLW + (projected if dropout is None else dropout.drop(projected, PROJECTION))
        hidden = F.gelu(self.mlp_in(self.norm_mlp(x_BSLW)))
        if dropout is None:
            return x_BSLW + self.mlp_out(hidden)
        return x_BSLW + dropout.drop(self.mlp_out(dropout.drop(hidden, HIDDEN)), OUTPUT)

    def among_all(
        self,
        x_BSLW: Tensor,
        mask_PP: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Attention among all P = S · L places of all frames, `[B, S, L, W]` → the same shape.

        Args:
            x_BSLW: activations.
            mask_PP: True where place (row) may attend to place (column).
            rotary: cosines and signed sines `[S, head_dim]` of the frames' positions, for `temporal_position="rope"`.
            dropout: of this layer, in training.
        """
        qkv = self.queries_keys_values(x_BSLW)
        qk, v = qkv.split([2, 1], dim=3)
        if rotary is not None:
            cos, sin = (angles[:, None, None, None] for angles in rotary)
            qk = rotate(qk, cos, sin)
        q, k, v = (part.flatten(1, 2).transpose(1, 2)[:, None] for part in (*qk.unbind(3), v.squeeze(3)))  # B1HPd
        attended = self.attend(q, k, v, mask_PP, dropout)[:, 0].transpose(1, 2)
        return self.finish(x_BSLW, attended.unflatten(1, x_BSLW.shape[1:3]), dropout)


class SpatialLayer(TransformerLayer):
    """Attention among the places of one frame: all of them, unless there is a mask."""

    def forward(self, x_BSLW: Tensor, mask_SLL: Tensor | None = None, dropout: Dropout | None = None) -> Tensor:
        """`[B, S, L, W]` → the same shape; `mask_SLL` is True where place (row) may attend to place (column)."""
        q, k, v = (part.transpose(2, 3) for part in self.queries_keys_values(x_BSLW).unbind(dim=3))  # BSHLd
        mask = None if mask_SLL is None else mask_SLL[:, None]
        return self.finish(x_BSLW, self.attend(q, k, v, mask, dropout).transpose(2, 3), dropout)


class TemporalLayer(TransformerLayer):
    """Attention along time at each place, under the paradigm's mask or over the frame cache."""

    def along_time(self, x_BSLW: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `[B, L, heads, S, head_dim]`, queries and keys rotated to the frames' positions."""
        # Split, not sliced: a slice's gradient is a whole tensor of zeros around it.
        qk, v = self.queries_keys_values(x_BSLW).split([2, 1], dim=3)
        if rotary is not None:
            cos, sin = (angles[:, None, None, None] for angles in rotary)
            qk = rotate(qk, cos, sin)
        q, k = qk.unbind(3)
        return q.permute(0, 2, 3, 1, 4), k.permute(0, 2, 3, 1, 4), v.squeeze(3).permute(0, 2, 3, 1, 4)

    def forward(
        self,
        x_BSLW: Tensor,
        mask_QS: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → `[B, Q, L, W]`, of the last Q frames: as many as the mask has rows, all S without one.

        Args:
            x_BSLW: activations.
            mask_QS: True where frame (row) may attend to frame (column: of the sequence, or the cache's slots).
            rotary: cosines and signed sines `[S, head_dim]` of the frames' positions, for `temporal_position="rope"`.
            cache: keys and values of the frames before.
            dropout: of this layer, in training.
        """
        q, k, v = self.along_time(x_BSLW, rotary)
        if cache is not None:
            k, v = cache.write(k, v)
        if mask_QS is not None:
            x_BSLW, q = x_BSLW[:, -len(mask_QS) :], q[:, :, :, -len(mask_QS) :]
        attended = self.attend(q, k.to(q.dtype), v.to(q.dtype), mask_QS, dropout)
        return self.finish(x_BSLW, attended.permute(0, 3, 1, 2, 4), dropout)


class Block(nn.Module):
    """A spatial layer, then a temporal layer."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.spatial = SpatialLayer(width, heads, mlp_width)
        self.temporal = TemporalLayer(width, heads, mlp_width)

    def forward(
        self,
        x_BSLW: Tensor,
        mask_QS: Tensor | None = None,
        spatial_SLL: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        dropout: Dropout | None = None,
        flat_PP: Tensor | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → `[B, Q, L, W]`; arguments as of the two layers, dropout that of the block.

        With `flat_PP` both layers attend among the places of all frames (`TransformerLayer.among_all`).
        """
        in_space, in_time = (None, None) if dropout is None else (dropout.at(0), dropout.at(1))
        if flat_PP is not None:
            return self.temporal.among_all(
                self.spatial.among_all(x_BSLW, flat_PP, rotary, in_space), flat_PP, rotary, in_time
            )
        return self.temporal(self.spatial(x_BSLW, spatial_SLL, in_space), mask_QS, rotary, cache, in_time)
