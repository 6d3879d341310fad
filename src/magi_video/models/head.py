"""The diffusion head: a small MLP that denoises one token at a time, given the transformer's output z for that token.

Every head has the same network (MAR's `SimpleMLPAdaLN`) and the same two methods: `loss` for training and `sample` for
any number of denoising steps. `models/diffusion.py` and `models/flow.py` are the two objectives.
"""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.models.embeddings import TimestepEmbedding


class NormalNoise(Protocol):
    """A source of standard normal noise for B samples, each with its own generator."""

    def normal(self, *shape: int) -> Tensor:
        """Float32 noise `[B, *shape]`."""
        ...


class ResidualBlock(nn.Module):
    """LayerNorm, shift and scale, Linear–SiLU–Linear, gate, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Both `[..., width]`."""
        shift, scale, gate = self.modulation(F.silu(condition)).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class DenoisingMLP(nn.Module):
    """(noisy token, time, z) → prediction: 3 AdaLN residual blocks of width 1024 in the paper's model."""

    def __init__(self, token_dim: int, out_dim: int, condition_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.token_in = nn.Linear(token_dim, width)
        self.time_embed = TimestepEmbedding(width)
        self.condition_embed = nn.Linear(condition_dim, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation_out = nn.Linear(width, 2 * width)
        self.token_out = nn.Linear(width, out_dim)

    def reset_parameters(self) -> None:
        """Xavier; N(0, 0.02) in the time MLP; zero for every AdaLN and the last linear layer (MAR)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.time_embed.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for block in self.blocks:
            nn.init.zeros_(block.modulation.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(self.modulation_out.weight)
        nn.init.zeros_(self.token_out.weight)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Predict from noisy tokens.

        Args:
            x: noisy tokens `[..., D]`.
            time: diffusion time on the scale 0…1000, `[...]` or a scalar for all tokens.
            condition: `condition_embed(z)`, `[..., width]`: constant while one token is denoised, so embedded once.
        """
        condition = condition + self.time_embed(time)
        x = self.token_in(x)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation_out(F.silu(condition)).chunk(2, dim=-1)
        return self.token_out(self.norm_out(x) * (1 + scale) + shift)


class DiffusionHead(nn.Module, ABC):
    """What the trainer and the sampler know of a head. Runs in float32 whatever the transformer runs in."""

    samplers: tuple[str, ...]
    """Names that `sample` accepts, the default first."""

    def __init__(self, token_dim: int, out_dim: int, condition_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.token_dim = token_dim
        self.net = DenoisingMLP(token_dim, out_dim, condition_dim, width, depth)

    @abstractmethod
    def loss(
        self, target_MD: Tensor, z_MW: Tensor, repeats: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Loss of every draw `[repeats · M]`, float32.

        Args:
            target_MD: clean tokens, unit variance.
            z_MW: the transformer's outputs for them.
            repeats: independent draws of time and noise for each token (MAR's `diffusion_batch_mul`).
            generator: source of the draws, on the tokens' device.
        """

    @abstractmethod
    def sample(
        self, z_BnW: Tensor, noise: NormalNoise, num_steps: int, *, sampler: str | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Denoise tokens from pure noise.

        Args:
            z_BnW: the transformer's outputs for n tokens of each of B samples.
            noise: one generator a sample.
            num_steps: network evaluations, 1…1000.
            sampler: one of `samplers`.
            temperature: scales the noise; 1 samples the model's distribution, less is safer and duller.

        Returns:
            Clean tokens `[B, n, D]`, float32.
        """
