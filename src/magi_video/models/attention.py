"""Scaled dot-product attention, by whichever kernel is fast on the device at hand."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v.

    Args:
        q: `[..., heads, Lq, d]`.
        k: `[..., heads, Lk, d]`.
        v: `[..., heads, Lk, d]`.
        mask: boolean `[Lq, Lk]`, True where attention is allowed; every row must allow something.

    Returns:
        `[..., heads, Lq, d]`.
    """
    if q.device.type == "cpu" and (q.requires_grad or (q.dtype == torch.bfloat16 and not fused_pays(q.shape[-2]))):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return torch.softmax(scores, dim=-1).to(v.dtype) @ v
    # The fused kernels take one batch dimension; with more PyTorch silently does the arithmetic in many operators.
    batch = q.shape[:-3]
    q, k, v = (part.flatten(0, -4) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).unflatten(0, batch)


def fused_pays(queries: int) -> bool:
    """Whether the fused bfloat16 kernel of this CPU beats three plain products, forward (docs/performance.md).

    It is slow for the short sequences here, and its backward more so; with matrix units (AMX) it wins for more than one
    query. On other devices it always wins.
    """
    return queries > 1 and torch.cpu._is_amx_tile_supported()
