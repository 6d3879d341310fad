"""The head: from the transformer's output z for a token to the token, with its loss and its sampling.

`TokenHead` is what the paradigms know of it. The paper's is a `DiffusionHead`: a small MLP (MAR's `SimpleMLPAdaLN`)
that denoises one token at a time; `models/epsilon.py` and `models/flow.py` are its two objectives. `DenoisingHead` is
what Diffusion Forcing needs of it, and of the linear head of `models/velocity.py`. For discrete tokens there is the
linear head of `models/categorical.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import Architecture
from magi_video.models.embeddings import TimestepEmbedding
from magi_video.models.random import Generators, draw
from magi_video.registry import Registry


class Noise(Protocol):
    """A source of random numbers for B samples, each with its own generator."""

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers `[B, *shape]`, float32."""
        ...

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), `[B, *shape]`, float32."""
        ...


Modulation = tuple[Tensor, ...]
"""Shift, scale (1 added) and, for a residual block, gate: each `[..., width]`."""


class ResidualBlock(nn.Module):
    """LayerNorm, shift and scale, Linear–SiLU–Linear, gate, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """`x` `[..., width]`."""
        shift, scale, gate = modulation
        return torch.addcmul(x, gate, self.mlp(torch.addcmul(shift, self.norm(x), scale)))


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
            condition: `condition_embed(z)`, `[..., width]`.
        """
        return self.denoise(x, self.modulate(condition + self.time_embed(time)))

    def modulate(self, condition: Tensor) -> list[Modulation]:
        """What time and z do to every residual block, and last to the output: all that does not depend on x."""
        condition = F.silu(condition)
        modulations = []
        for block in self.blocks:
            shift, scale, gate = block.modulation(condition).chunk(3, dim=-1)  # type: ignore[operator]
            modulations.append((shift, 1 + scale, gate))
        shift, scale = self.modulation_out(condition).chunk(2, dim=-1)
        return [*modulations, (shift, 1 + scale)]

    def denoise(self, x: Tensor, modulations: list[Modulation]) -> Tensor:
        """`forward`, with the modulations given."""
        x = self.token_in(x)
        *of_blocks, (shift, scale) = modulations
        for block, modulation in zip(self.blocks, of_blocks, strict=True):
            x = block(x, modulation)
        return self.token_out(torch.addcmul(shift, self.norm_out(x), scale))


Predict = Callable[[int, Tensor], Tensor]
"""The network as a sampler sees it: output for noisy tokens, `[B, n, D]` or `[B·n, D]`, at the time of that number."""


@dataclass(frozen=True)
class DenoiseSteps:
    """How tokens are denoised.

    Attributes:
        count: network evaluations.
        first: training step at which they begin; None where a head has none.
        temperature: scales the noise.
    """

    count: int
    first: int | None
    temperature: float

    @property
    def from_step(self) -> int:
        """`first`, of a head that has training steps."""
        assert self.first is not None
        return self.first


class TokenHead(nn.Module, ABC):
    """What the paradigms, the trainer and the sampler know of a head.

    Training runs it in float32 whatever the transformer runs in; in sampling, tokens and noise are float32 and the
    network has the precision of its weights.
    """

    name: ClassVar[str]
    """In configs."""
    outputs: ClassVar[int | None]
    """Numbers that it predicts for one of a token; None: one for each code."""
    samplers: ClassVar[tuple[str, ...]]
    """Names that `find_sampler` accepts, the default first."""
    options: ClassVar[tuple[str, ...]]
    """Names of the sampling settings that `sample` takes."""

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.token_dim = token_dim

    @classmethod
    @abstractmethod
    def of(cls, architecture: Architecture) -> Self:
        """The head of a model."""

    def find_sampler(self, name: str | None) -> str:
        """The sampler of that name, or the default; a `MagiError` lists the names."""
        if name is not None and name not in self.samplers:
            raise MagiError(f"unknown sampler {name!r}: this head has {', '.join(self.samplers)}")
        return name or self.samplers[0]

    @abstractmethod
    def find_first_step(self, sampler: str, num_steps: int, first_step: int | None) -> int | None:
        """The training step at which a chain of so many steps begins: the one asked for, or the sampler's own (None).

        Args:
            sampler: one of `samplers`.
            num_steps: network evaluations.
            first_step: 0…999, or None.

        Returns:
            The step; None for a head that has no such steps.

        Raises:
            MagiError: `sample` cannot take so many steps, or steps from there.
        """

    def find_denoise_steps(self, asked: int | None, usual: int) -> int:
        """How many denoising steps: as asked for, else the usual number; always 1 for a head that does not denoise.

        Raises:
            MagiError: the head does not denoise, and several steps are asked for.
        """
        return usual if asked is None else asked

    @abstractmethod
    def reset_parameters(self) -> None:
        """Give the weights their first values."""

    @abstractmethod
    def total_loss(
        self, target_BKD: Tensor, z_BKW: Tensor, counted_BK: Tensor, repeats: int, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        """Loss over some tokens, summed, and their number: float32 scalars. Runs outside of autocast.

        Args:
            target_BKD: clean tokens, unit variance.
            z_BKW: the transformer's outputs for them.
            counted_BK: True for the tokens that have a loss.
            repeats: random draws for each of them, over which its loss is averaged; for heads that draw.
            generator: source of the draws. They are made for every token: a token's do not depend on how many count.
        """

    @abstractmethod
    def sample(self, z_BnW: Tensor, noise: Noise, *args: Any, **options: Any) -> Tensor:
        """Tokens `[B, n, D]`, float32, for n tokens of each of B samples.

        Args:
            z_BnW: the transformer's outputs; with guidance `[2B, n, W]`, first what follows from the conditions, then
                what comes without them.
            noise: one generator a sample.
            args: see the subclass.
            options: `guidance`, the scale of classifier-free guidance (None for none), and those that the head lists.
        """


class DenoisingHead(TokenHead):
    """A head that predicts from noisy tokens. Times lie on the scale 0…1000; those of a batch broadcast with tokens."""

    @abstractmethod
    def add_noise(self, clean: Tensor, uniform: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy tokens `[…, D]` and their times `[…]`.

        Args:
            clean: tokens of unit variance, `[…, D]`.
            uniform: numbers in [0, 1) `[…]`, from which come the times.
            eps: standard normal noise, `[…, D]`.
        """

    @abstractmethod
    def predict(self, x_BnD: Tensor, time: Tensor, z_BnW: Tensor, guidance: float | None = None) -> Tensor:
        """The head's float32 output for noisy tokens of a time, or of times `[n]`; z and guidance as of `sample`."""

    @abstractmethod
    def loss(self, target_MD: Tensor, z_MW: Tensor, uniform_RM: Tensor, eps_RMD: Tensor) -> Tensor:
        """Loss of every draw `[R, M]`, float32: R draws for each token (MAR's `diffusion_batch_mul`).

        Args:
            target_MD: clean tokens, unit variance.
            z_MW: the transformer's outputs for them.
            uniform_RM, eps_RMD: the draws, as of `add_noise`.
        """

    def guide(self, network: Callable[[Tensor], Tensor], x: Tensor, guidance: float | None) -> Tensor:
        """The output of `network` for `x`, in float32, under guidance if there is any: see `DiffusionHead.denoiser`."""
        if guidance is None:
            return network(x).float()
        cond, uncond = network(torch.cat([x, x])).float().chunk(2)
        guided = torch.lerp(uncond[..., : self.token_dim], cond[..., : self.token_dim], guidance)
        return torch.cat([guided, cond[..., self.token_dim :]], dim=-1)


class DiffusionHead(DenoisingHead):
    """A small MLP that denoises one token at a time from pure noise, given z."""

    options = ("denoise_steps", "sampler", "first_step", "temperature")

    inputs: ClassVar[int] = 1
    """Numbers that the network reads for one of a token."""
    outputs: ClassVar[int]

    def __init__(self, token_dim: int, condition_dim: int, width: int, depth: int) -> None:
        super().__init__(token_dim)
        self.net = DenoisingMLP(self.inputs * token_dim, self.outputs * token_dim, condition_dim, width, depth)

    @classmethod
    @override
    def of(cls, architecture: Architecture) -> Self:
        return cls(architecture.token_dim, architecture.width, architecture.head_width, architecture.head_depth)

    @property
    def noise_dim(self) -> int:
        """Normal numbers that a draw of the loss takes for a token: those of the noise on it."""
        return self.token_dim

    @override
    def reset_parameters(self) -> None:
        self.net.reset_parameters()

    @override
    def predict(self, x_BnD: Tensor, time: Tensor, z_BnW: Tensor, guidance: float | None = None) -> Tensor:
        return self.denoiser(time[None], z_BnW, guidance)(0, x_BnD)

    def denoiser(self, times: Tensor, z_BnW: Tensor, guidance: float | None = None) -> Predict:
        """The network for given tokens: `predict(i, x)` is its float32 output for `x` `[B, n, D]` at time i.

        With guidance `z_BnW` has twice the rows of `x`, and what is predicted (noise or velocity) is
        uncond + guidance · (cond − uncond); variances are those of the first half (MAR).

        Args:
            times: `[steps]` on the scale 0…1000, in the order in which they will be asked for; `[steps, n]` where
                tokens differ.
            z_BnW: the transformer's outputs for the tokens.
            guidance: scale of classifier-free guidance; None for none.
        """
        net = self.net
        condition = net.condition_embed(z_BnW.to(net.condition_embed.weight.dtype))

        def predict(step: int, x: Tensor) -> Tensor:
            return self.guide(lambda y: net(y.to(condition.dtype), times[step], condition), x, guidance)

        return predict

    @override
    def total_loss(
        self, target_BKD: Tensor, z_BKW: Tensor, counted_BK: Tensor, repeats: int, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        """A token's draws are times and noise (paper, section 4; MAR)."""
        batch, tokens, _ = target_BKD.shape
        uniform_BRK = draw(torch.rand, (batch, repeats, tokens), generator, target_BKD.device)
        eps_BRKD = draw(torch.randn, (batch, repeats, tokens, self.noise_dim), generator, target_BKD.device)
        total, count = self.counted_loss(
            target_BKD.flatten(0, 1),
            z_BKW.flatten(0, 1),
            uniform_BRK.transpose(0, 1).flatten(1, 2),
            eps_BRKD.transpose(0, 1).flatten(1, 2),
            counted_BK.flatten(),
        )
        return total / repeats, count

    def counted_loss(
        self, target_LD: Tensor, z_LW: Tensor, uniform_RL: Tensor, eps_RLD: Tensor, counted_L: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`loss` over the tokens that are counted (boolean), summed over tokens and draws, and the tokens' number."""
        counted_M = counted_L.nonzero()[:, 0]
        losses_RM = self.loss(
            target_LD[counted_M].float(), z_LW[counted_M].float(), uniform_RL[:, counted_M], eps_RLD[:, counted_M]
        )
        return losses_RM.sum(), losses_RM.new_tensor(float(len(counted_M)))

    @override
    def sample(
        self,
        z_BnW: Tensor,
        noise: Noise,
        denoise_steps: int,
        *,
        sampler: str | None = None,
        first_step: int | None = None,
        temperature: float = 1.0,
        guidance: float | None = None,
    ) -> Tensor:
        """Denoise tokens from pure noise.

        Args:
            z_BnW: the transformer's outputs for n tokens of each of B samples; with guidance `[2B, n, W]`, first what
                follows from the conditions, then what comes without them.
            noise: one generator a sample.
            denoise_steps: network evaluations, 1…1000.
            sampler: one of `samplers`; None for the default.
            first_step: see `find_first_step`.
            temperature: scales the noise; 1 samples the model's distribution, less is safer and duller.
            guidance: classifier-free guidance's scale (`denoiser`); both halves see the same noise. None for none.

        Returns:
            Clean tokens `[B, n, D]`, float32.
        """
        sampler = self.find_sampler(sampler)
        steps = DenoiseSteps(denoise_steps, self.find_first_step(sampler, denoise_steps, first_step), temperature)
        predict = self.denoiser(self.times(steps, z_BnW.device), z_BnW, guidance)
        return self.solve(sampler, steps, predict, lambda *count: noise.normal(*count, z_BnW.shape[1], self.token_dim))

    @abstractmethod
    def times(self, steps: DenoiseSteps, device: torch.device) -> Tensor:
        """Times `[steps]` on the scale 0…1000, in the order in which a sampler asks the network."""

    @abstractmethod
    def solve(self, sampler: str, steps: DenoiseSteps, predict: Predict, normal: Callable[..., Tensor]) -> Tensor:
        """From noise to clean tokens `[B, n, D]`, float32; or `[B·n, D]`, where `normal` gives tokens in a row.

        Args:
            sampler: one of `samplers`.
            steps: for which `find_first_step` has found the beginning.
            predict: of `denoiser`, for `times`.
            normal: standard normal noise `[B, n, D]`, or with a number of draws `[B, draws, n, D]`; of tokens in a row
                `[B·n, D]` or `[B·n, draws, D]`.
        """


HEADS: Registry[TokenHead] = Registry("models", "head")
"""Every head by name; each is one file of this folder."""
register = HEADS.register
