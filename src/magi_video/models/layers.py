"""The two layers of a spatial-temporal block: pre-norm Transformer layers that differ in the axis they attend along.

Activations are `x_BSLW`: B clips, S frames, L places of a frame (its condition tokens, then its N tokens), width W.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.models.attention import attention
from magi_video.models.cache import FrameCache
from magi_video.models.embeddings import rotate


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the subclass says what attends to what."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.mlp_in = nn.Linear(width, mlp_width)
        self.mlp_out = nn.Linear(mlp_width, width)

    def queries_keys_values(self, x_BSLW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each `[B, S, L, heads, head_dim]`."""
        qkv = self.qkv(self.norm_attention(x_BSLW)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.unbind(dim=-3)
        return q, k, v

    def finish(self, x_BSLW: Tensor, attended_BSLHd: Tensor) -> Tensor:
        """Output projection, both residuals and the MLP."""
        x_BSLW = x_BSLW + self.project(attended_BSLHd.flatten(-2))
        return x_BSLW + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x_BSLW))))


class SpatialLayer(TransformerLayer):
    """Full bidirectional attention among the places of one frame; no mask."""

    def forward(self, x_BSLW: Tensor) -> Tensor:
        """`[B, S, L, W]` → the same shape."""
        q, k, v = (part.transpose(2, 3) for part in self.queries_keys_values(x_BSLW))  # BSHLd
        return self.finish(x_BSLW, attention(q, k, v).transpose(2, 3))


class TemporalLayer(TransformerLayer):
    """Attention along time at each place, under the paradigm's mask or over the frame cache."""

    def __init__(self, index: int, width: int, heads: int, mlp_width: int) -> None:
        super().__init__(width, heads, mlp_width)
        self.index = index

    def forward(
        self,
        x_BSLW: Tensor,
        mask_SS: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: FrameCache | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → the same shape.

        Args:
            x_BSLW: activations; S = 1 with a cache.
            mask_SS: True where frame (row) may attend to frame (column); not used with a cache, whose content is
                the past alone.
            rotary: cosines and sines `[S, head_dim]` of the frames' positions, for `temporal_position="rope"`.
            cache: keys and values of the frames before.
        """
        q, k, v = (part.permute(0, 2, 3, 1, 4) for part in self.queries_keys_values(x_BSLW))  # BLHSd
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            k, v = cache.write(self.index, k, v)
            mask_SS = None
        return self.finish(x_BSLW, attention(q, k.to(q.dtype), v.to(q.dtype), mask_SS).permute(0, 3, 1, 2, 4))


class Block(nn.Module):
    """A spatial layer, then a temporal layer (paper, section 4)."""

    def __init__(self, index: int, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.spatial = SpatialLayer(width, heads, mlp_width)
        self.temporal = TemporalLayer(index, width, heads, mlp_width)

    def forward(
        self,
        x_BSLW: Tensor,
        mask_SS: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: FrameCache | None = None,
    ) -> Tensor:
        """`[B, S, L, W]` → the same shape."""
        return self.temporal(self.spatial(x_BSLW), mask_SS, rotary, cache)
