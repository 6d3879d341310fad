"""Scaled dot-product attention, by whichever kernel is fast on the device at hand."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from magi_video.models.dropout import ATTENTION, Dropout, kept


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: Dropout | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v.

    Args:
        q: `[..., heads, Lq, d]`.
        k: `[..., heads, Lk, d]`.
        v: `[..., heads, Lk, d]`.
        mask: boolean `[Lq, Lk]`, True where attention is allowed; every row must allow something.
        dropout: of the weights, in a layer; the first dimension is then its B clips.

    Returns:
        `[..., heads, Lq, d]`.
    """
    rate = 0.0 if dropout is None else dropout.rates[ATTENTION]
    if q.device.type == "cpu" and (
        rate or q.requires_grad or (q.dtype == torch.bfloat16 and not fused_pays(q.shape[-2]))
    ):
        bias = None if mask is None else q.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        keep = None
        if dropout is not None and rate:
            weights = (*q.shape[:-1], k.shape[-2])
            keep = kept(weights, rate, dropout.seeds[:, ATTENTION], q.device).flatten(0, -3)
        rows = (part.flatten(0, -3) for part in (q, k, v))
        return PlainAttention.apply(*rows, bias, keep, 1 / (1 - rate)).unflatten(0, q.shape[:-2])
    if dropout is not None and rate:
        return dropped_attention(q, k, v, mask, rate, dropout.seeds[:, ATTENTION])
    # The fused kernels take one batch dimension; with more PyTorch silently does the arithmetic in many operators.
    batch = q.shape[:-3]
    q, k, v = (part.flatten(0, -4) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).unflatten(0, batch)


def dropped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rate: float, seed_B: Tensor) -> Tensor:
    """Attention with dropout by the fused kernels, `[B, X, heads, Lq, d]`: a clip at a time, each from its own seed.

    The kernels draw from the device's generator, which is set for each clip and put back afterwards.
    """
    on_gpu = q.device.type == "cuda"
    made = []
    with torch.random.fork_rng([q.device] if on_gpu else []):
        for one_q, one_k, one_v, seed in zip(q, k, v, seed_B.tolist(), strict=True):
            (torch.cuda.manual_seed if on_gpu else torch.manual_seed)(seed)
            made.append(F.scaled_dot_product_attention(one_q, one_k, one_v, attn_mask=mask, dropout_p=rate))
    return torch.stack(made)


class PlainAttention(torch.autograd.Function):
    """Attention by plain products, keeping nothing but the probabilities (and what of them is dropped).

    The gradient is the one that PyTorch would derive; written out, the scale and the mask go into the products, and the
    scores are overwritten instead of copied. That is a tenth to a third less time (docs/performance.md).
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, keep: Tensor | None, share: float
    ) -> Tensor:
        """Attention of flat batches.

        Args:
            ctx: autograd's.
            q: `[X, Lq, d]`.
            k, v: `[X, Lk, d]`.
            bias: `[Lq, Lk]`, 0 or −∞.
            keep: boolean `[X, Lq, Lk]`, False where a weight is dropped; None for none.
            share: factor of those that are kept.

        Returns:
            `[X, Lq, d]`.
        """
        ctx.scale, ctx.share = q.shape[-1] ** -0.5, share
        start = q.new_zeros(1) if bias is None else bias
        scores = torch.baddbmm(start, q, k.transpose(1, 2), beta=0 if bias is None else 1, alpha=ctx.scale)
        probabilities = torch.softmax(scores, dim=-1, out=scores)
        ctx.save_for_backward(q, k, v, probabilities, keep)
        if keep is None:
            return probabilities @ v
        return (probabilities * keep @ v).mul_(share)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of `q`, `k` and `v`."""
        (gradient,) = gradients
        q, k, v, probabilities, keep = ctx.saved_tensors
        used = probabilities
        if keep is not None:
            gradient, used = gradient * ctx.share, probabilities * keep
        of_used = gradient @ v.transpose(1, 2)
        of_scores = torch._softmax_backward_data(
            of_used if keep is None else of_used.mul_(keep), probabilities, dim=-1, input_dtype=probabilities.dtype
        )
        zero = q.new_zeros(1)
        return (
            torch.baddbmm(zero, of_scores, k, beta=0, alpha=ctx.scale),
            torch.baddbmm(zero, of_scores.transpose(1, 2), q, beta=0, alpha=ctx.scale),
            used.transpose(1, 2) @ gradient,
            None,
            None,
            None,
        )


def fused_pays(queries: int) -> bool:
    """Whether the fused bfloat16 kernel of this CPU beats three plain products, forward (docs/performance.md).

    It is slow for the short sequences here, and its backward more so; with matrix units (AMX) it wins for more than one
    query. On other devices it always wins.
    """
    return queries > 1 and torch.cpu._is_amx_tile_supported()
