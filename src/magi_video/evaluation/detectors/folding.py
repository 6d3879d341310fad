"""Batch normalisation of a trained network, made part of the convolution before it."""

from torch import Tensor


def fold_normalisation(
    weight: Tensor, mean_O: Tensor, variance_O: Tensor, beta_O: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Weight [O, I, …] and bias [O] of the convolution that gives (W x − mean) / √(variance + eps) + beta."""
    scale_O = (variance_O.double().flatten() + eps).rsqrt()
    folded = weight.double() * scale_O.view(-1, *(1,) * (weight.ndim - 1))
    bias_O = beta_O.double().flatten() - mean_O.double().flatten() * scale_O
    return folded.float(), bias_O.float()
