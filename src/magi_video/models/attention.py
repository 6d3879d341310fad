"""Scaled dot-product attention, by whichever kernel is fast on the device at hand."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v.

    Args:
        q: `[..., Lq, d]`.
        k: `[..., Lk, d]`.
        v: `[..., Lk, d]`.
        mask: boolean `[Lq, Lk]`, True where attention is allowed; every row must allow something.

    Returns:
        `[..., Lq, d]`.
    """
    # The fused CPU kernel is slow for the short sequences here, in bf16 and above all in its backward
    # (docs/performance.md); three plain products are faster. On other devices the fused kernel wins.
    if q.device.type == "cpu" and (q.dtype == torch.bfloat16 or q.requires_grad):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return torch.softmax(scores, dim=-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
