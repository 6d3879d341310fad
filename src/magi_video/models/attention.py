"""Scaled dot-product attention, by whichever kernel is fast on the device at hand."""

from typing import Any

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
        bias = None if mask is None else q.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        rows = (part.flatten(0, -3) for part in (q, k, v))
        return PlainAttention.apply(*rows, bias).unflatten(0, q.shape[:-2])
    # The fused kernels take one batch dimension; with more PyTorch silently does the arithmetic in many operators.
    batch = q.shape[:-3]
    q, k, v = (part.flatten(0, -4) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).unflatten(0, batch)


class PlainAttention(torch.autograd.Function):
    """Attention by plain products, keeping nothing but the probabilities for the backward.

    The gradient is the one that PyTorch would derive; written out, the scale and the mask go into the products, and the
    scores are overwritten instead of copied. That is a tenth to a third less time (docs/performance.md).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """`q` `[X, Lq, d]`, `k` and `v` `[X, Lk, d]`, `bias` `[Lq, Lk]` (0 or −∞) → `[X, Lq, d]`."""
        ctx.scale = q.shape[-1] ** -0.5
        start = q.new_zeros(1) if bias is None else bias
        scores = torch.baddbmm(start, q, k.transpose(1, 2), beta=0 if bias is None else 1, alpha=ctx.scale)
        probabilities = torch.softmax(scores, dim=-1, out=scores)
        ctx.save_for_backward(q, k, v, probabilities)
        return probabilities @ v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Of `q`, `k` and `v`."""
        (gradient,) = gradients
        q, k, v, probabilities = ctx.saved_tensors
        of_scores = torch._softmax_backward_data(
            gradient @ v.transpose(1, 2), probabilities, dim=-1, input_dtype=probabilities.dtype
        )
        zero = q.new_zeros(1)
        return (
            torch.baddbmm(zero, of_scores, k, beta=0, alpha=ctx.scale),
            torch.baddbmm(zero, of_scores.transpose(1, 2), q, beta=0, alpha=ctx.scale),
            probabilities.transpose(1, 2) @ gradient,
            None,
        )


def fused_pays(queries: int) -> bool:
    """Whether the fused bfloat16 kernel of this CPU beats three plain products, forward (docs/performance.md).

    It is slow for the short sequences here, and its backward more so; with matrix units (AMX) it wins for more than one
    query. On other devices it always wins.
    """
    return queries > 1 and torch.cpu._is_amx_tile_supported()
