"""Layers as training on CPUs needs them, under bfloat16 autocast. Names and values of weights stay.

A linear layer's weight gradient is gᵀx, and oneDNN takes twice as long over a product whose first factor is transposed
as over the same product of a transposed copy: here the narrower of the two factors is copied. A norm reads float32
activations and has bfloat16 weights where those are gathered from shards, which PyTorch's own refuses on CPUs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class TrainingLinear(nn.Linear):
    """`nn.Linear` by `LinearProduct` under bfloat16 autocast; elsewhere as ever."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in_features]` → `[..., out_features]`."""
        low = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if not (low and torch.is_grad_enabled() and input.device.type == "cpu"):
            return super().forward(input)
        return LinearProduct.apply(input, self.weight, self.bias)


class TrainingLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` in the precision of its input, whatever the precision of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., width]` → the same shape and type."""
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def use_training_kernels(model: nn.Module, linears: bool = True) -> None:
    """Let the linear layers and norms of a model be these.

    Args:
        model: to be trained.
        linears: the linear layers too, which is a matter of speed alone (`kernel_choice`).
    """
    for module in model.modules():
        if type(module) is nn.Linear and linears:
            module.__class__ = TrainingLinear
        elif type(module) is nn.LayerNorm and module.elementwise_affine:
            module.__class__ = TrainingLayerNorm
