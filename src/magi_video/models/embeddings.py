"""Fixed sinusoidal embeddings of time, space and diffusion steps, and the rotary embedding of the temporal layers."""

import math

import torch
from torch import Tensor, nn

from magi_video.models.architecture import TIME_FREQUENCIES

MAX_PERIOD = 10_000.0
"""Longest wavelength over 2π (Vaswani et al. 2017)."""


def sinusoidal_1d(positions: Tensor, width: int) -> Tensor:
    """Transformer sinusoids of real-valued positions.

    Args:
        positions: any shape `[...]`; need not be integers (interpolated frame positions, diffusion times).
        width: even size of the embedding.

    Returns:
        `[..., width]` float32, sines first, then cosines.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, device=positions.device) / half)
    angles = positions.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sinusoidal_2d(rows: int, columns: int, width: int) -> Tensor:
    """Sinusoids of a grid of `rows` × `columns` places: half of the width tells the row, half the column.

    Returns:
        `[rows · columns, width]` float32 in raster order; `width` must be a multiple of 4.
    """
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = [sinusoidal_1d(axis.flatten(), width // 2) for axis in (row, column)]
    return torch.cat(halves, dim=-1)


class TimestepEmbedding(nn.Module):
    """Diffusion time → vector: 256 sinusoids, then Linear–SiLU–Linear (MAR, `diffloss.py`)."""

    frequencies = TIME_FREQUENCIES

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """`time` `[...]` on the scale 0…1000 → `[..., width]`."""
        return self.mlp(sinusoidal_1d(time, self.frequencies).to(next(self.parameters()).dtype))


def rotary_angles(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines that rotate queries and keys of frames at `positions` `[S]`; `[S, head_dim]` float32.

    Angles are formed in float64: an unbounded stream counts its frames without end, and float32 would lose the phase.
    """
    frequencies = MAX_PERIOD ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim)
    angles = positions.double()[:, None] * frequencies
    cos, sin = angles.cos().float(), angles.sin().float()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Apply rotary angles to `x` `[..., d]`, with which they broadcast (RoFormer, eq. 34, half-split layout)."""
    first, second = x.chunk(2, dim=-1)
    swapped = torch.cat([second, first], dim=-1)
    return torch.addcmul(x * cos.to(x.dtype), swapped, signed_sin.to(x.dtype))
