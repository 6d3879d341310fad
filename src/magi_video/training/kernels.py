"""Layers whose gradient PyTorch computes slowly or loosely on CPUs, computed better. Names and values of weights stay.

A linear layer's weight gradient is gᵀx, and oneDNN takes twice as long over a product whose first factor is transposed
as over the same product of a transposed copy: here the narrower of the two factors is copied. PyTorch sums the
gradients of a LayerNorm's weight and bias in bfloat16 when it reads bfloat16 under autocast: over a few thousand rows
the sums lose about a tenth of the gradient. Here they are summed in float32, as on GPUs.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.models.linear import Linear
from magi_video.probes import KERNEL_GAIN, gain_of, one_thread


class LinearProduct(torch.autograd.Function):
    """x wᵀ + b in autocast's precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`x` `[..., in]`, float32 `weight` `[out, in]` and `bias` `[out]` → bfloat16 `[..., out]`."""
        x, weight_low = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        ctx.save_for_backward(x, weight_low)
        return F.linear(x, weight_low, bias.to(torch.bfloat16))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of `x`, `weight` and `bias`."""
        x, weight = ctx.saved_tensors
        g_RO, x_RI = gradients[0].flatten(0, -2), x.flatten(0, -2)
        if weight.shape[0] <= weight.shape[1]:
            of_weight = g_RO.t().contiguous() @ x_RI
        else:
            of_weight = (x_RI.t().contiguous() @ g_RO).t()
        of_weight = of_weight.to(torch.float32, memory_format=torch.contiguous_format)
        return (g_RO @ weight).view(x.shape), of_weight, g_RO.sum(0).float()


class LowPrecisionNorm(torch.autograd.Function):
    """LayerNorm of bfloat16 activations with float32 weights, the gradients of which are summed in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """`x` `[..., width]` → the same shape and type."""
        y, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Of `x`, `weight` and `bias`."""
        x, mean, rstd, weight, bias = ctx.saved_tensors
        (gradient,) = gradients
        of_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, weight.shape, mean, rstd, weight, bias, [True, False, False]
        )
        # `sum` keeps bfloat16 sums in float32 until the end; the norm's own kernel does not.
        normed, _, _ = torch.native_layer_norm(x, weight.shape, None, None, ctx.eps)
        of_weight = normed.mul_(gradient).flatten(0, -2).sum(0)
        return of_x, of_weight.float(), gradient.flatten(0, -2).sum(0).float(), None


class TrainingLinear(Linear):
    """`Linear` by `LinearProduct` under bfloat16 autocast; elsewhere as ever."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in_features]` → `[..., out_features]`."""
        low = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if not (low and torch.is_grad_enabled() and input.device.type == "cpu"):
            return super().forward(input)
        return LinearProduct.apply(input, self.weight, self.bias)


class TrainingLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` by `LowPrecisionNorm` for bfloat16 activations; elsewhere as ever."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., width]` → the same shape."""
        if input.dtype != torch.bfloat16 or not torch.is_grad_enabled() or input.device.type != "cpu":
            return super().forward(input)
        return LowPrecisionNorm.apply(input, self.weight, self.bias, self.eps)


def use_training_kernels(model: nn.Module, linears: bool = True) -> None:
    """Let the linear layers and norms of a model compute their gradients by these kernels, on CPUs, under autocast.

    Args:
        model: to be trained.
        linears: the linear layers too, which is a matter of speed alone (`linear_product_pays`).
    """
    for module in model.modules():
        if type(module) is Linear and linears:
            module.__class__ = TrainingLinear
        elif type(module) is nn.LayerNorm and module.elementwise_affine:
            module.__class__ = TrainingLayerNorm


@cache
def linear_product_pays() -> bool:
    """Whether `LinearProduct` is faster on this CPU than PyTorch's own linear layer under autocast, both ways."""
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(512, 256, generator=generator), torch.randn(512, generator=generator)
    x = torch.randn(512, 256, generator=generator).to(torch.bfloat16).requires_grad_()
    for parameter in (weight, bias):
        parameter.requires_grad_()

    def step(product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            y = product(x, weight, bias)
        torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))

    with one_thread(), torch.enable_grad():
        return gain_of(lambda: step(F.linear), lambda: step(LinearProduct.apply)) >= KERNEL_GAIN
