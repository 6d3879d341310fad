"""The ε-prediction head with learned variance: MAR's `DiffLoss`, after "Improved Denoising Diffusion" (Nichol 2021).

1000 training steps on the cosine schedule. The network predicts the noise and, for each number, where the step's
log-variance lies between its two bounds. Sampling takes any number of steps of the same chain: ancestral (default),
DDIM or DPM-Solver++. The coefficients of a step are numbers known beforehand; between two passes of a small network
over a few tokens a scheduler object would take most of the time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import NUM_TRAIN_STEPS, check_first_step
from magi_video.models.head import DenoiseSteps, DenoisingHead, DiffusionHead, Predict, register

HALF_BIN = 1 / 255
"""Half the width of the bins of the likelihood at step 0: pixels of 256 levels in [−1, 1], as in MAR."""


def cosine_alphas_cumprod() -> np.ndarray:
    """ᾱ of the cosine schedule, float64 `[1000]`: ᾱ(t) ∝ cos²((t + 0.008)/1.008 · π/2), every β ≤ 0.999."""
    ends = np.cos((np.arange(NUM_TRAIN_STEPS + 1) / NUM_TRAIN_STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - ends[1:] / ends[:-1], 0.999))


@dataclass(frozen=True)
class Sampler:
    """A way along the chain.

    Attributes:
        order: of the solver for the deterministic ones (1 is DDIM); None for the ancestral chain.
        first_step: training step, 0…999, at which a respaced chain begins if nothing else is asked for. On the cosine
            schedule the last few steps have next to no signal (√ᾱ = 5·10⁻⁵ at 999), so x̂₀ there is the network's error
            times 20,000, and a long stride carries that error on. The ancestral chain's noise makes up for what is left
            of it at 990 (√ᾱ = 0.014); a deterministic sampler has nothing to make up for it and begins where the signal
            is larger (0.05 at 970, 0.08 at 950), although what it begins from is still pure noise.
    """

    order: int | None
    first_step: int


SAMPLERS = {"ancestral": Sampler(None, 990), "ddim": Sampler(1, 950), "dpmsolver++": Sampler(2, 970)}
"""By name, the default first; where the first steps come from: docs/performance.md."""


def respaced_timesteps(num_steps: int, first_step: int) -> list[int]:
    """`num_steps` of the 1000 training steps, ascending from 0 to `first_step`, as evenly spread as rounding allows.

    With `first_step` 999 they are MAR's own. One step is `first_step` alone.
    """
    if not 1 <= num_steps <= NUM_TRAIN_STEPS:
        raise MagiError(f"denoise steps must lie in 1…{NUM_TRAIN_STEPS}, got {num_steps}")
    check_first_step("epsilon", first_step)
    if first_step < num_steps - 1:
        raise MagiError(f"{num_steps} denoise steps need a first step of at least {num_steps - 1}, got {first_step}")
    if num_steps == 1:
        return [first_step]
    return [round(i * first_step / (num_steps - 1)) for i in range(num_steps)]


class GaussianChain:
    """Coefficients of q(x_{t−1} | x_t, x_0) for a subset of the training steps, as float32 tensors `[num_steps]`."""

    def __init__(self, timesteps: list[int]) -> None:
        alpha_bar = cosine_alphas_cumprod()[timesteps]
        alpha_bar_prev = np.concatenate([[1.0], alpha_bar[:-1]])
        beta = 1 - alpha_bar / alpha_bar_prev
        variance = beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
        # The last step's posterior variance is 0; its log borrows the neighbour's, as in the reference.
        floor = variance[1] if len(variance) > 1 else beta[0]
        self.timesteps = torch.tensor(timesteps)
        self.signal = self._float(np.sqrt(alpha_bar))
        self.sigma = self._float(np.sqrt(1 - alpha_bar))
        self.x0_from_x = self._float(np.sqrt(1 / alpha_bar))
        self.x0_from_eps = self._float(np.sqrt(1 / alpha_bar - 1))
        self.mean_from_x0 = self._float(beta * np.sqrt(alpha_bar_prev) / (1 - alpha_bar))
        self.mean_from_x = self._float((1 - alpha_bar_prev) * np.sqrt(1 - beta) / (1 - alpha_bar))
        self.log_variance_min = self._float(np.log(np.append(floor, variance[1:])))
        self.log_variance_max = self._float(np.log(beta))

    @staticmethod
    def _float(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values)).float()

    def to(self, device: torch.device) -> "GaussianChain":
        """The same chain with its tables on `device`."""
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))
        return self

    def posterior_mean(self, x: Tensor, x0: Tensor, step: Tensor | int) -> Tensor:
        """Mean of q(x_{t−1} | x_t, x_0)."""
        return self.mean_from_x0[step] * x0 + self.mean_from_x[step] * x

    def predict_x0(self, x: Tensor, eps: Tensor, step: Tensor | int) -> Tensor:
        """Clean token from the noisy one and its noise."""
        return self.x0_from_x[step] * x - self.x0_from_eps[step] * eps

    def log_variance(self, fraction: Tensor, step: Tensor | int) -> Tensor:
        """Learned log-variance: the network's output in [−1, 1] between the two bounds."""
        weight = (fraction + 1) / 2
        return weight * self.log_variance_max[step] + (1 - weight) * self.log_variance_min[step]


@cache
def ancestral_tables(num_steps: int, first_step: int) -> list[tuple[float, ...]]:
    """For each step, noisiest first: factors of x and −ε in the posterior's mean, bounds of its log-variance."""
    chain = GaussianChain(respaced_timesteps(num_steps, first_step))
    from_x = chain.mean_from_x0 * chain.x0_from_x + chain.mean_from_x
    from_eps = chain.mean_from_x0 * chain.x0_from_eps
    return noisiest_first(from_x, from_eps, chain.log_variance_min, chain.log_variance_max)


@cache
def solver_tables(num_steps: int, first_step: int, order: int) -> list[tuple[float, ...]]:
    """DPM-Solver++(2M) of order 1 (which is DDIM) or 2, in its data form (Lu 2022, algorithm 2), noisiest step first.

    Returns:
        For each step the factors of x and −ε in x̂₀; then, for the next x, the factors of x, of this x̂₀ and of the one
        before. The last step goes to σ = 0 and the first has no step before: both are of order 1.
    """
    chain = GaussianChain(respaced_timesteps(num_steps, first_step))
    to_x0 = noisiest_first(chain.x0_from_x, chain.x0_from_eps)
    signal, sigma = zip(*noisiest_first(chain.signal, chain.sigma), strict=True)
    log_snr = [math.log(a / s) for a, s in zip(signal, sigma, strict=True)]
    to_next = []
    for i in range(num_steps - 1):
        h = log_snr[i + 1] - log_snr[i]
        take = signal[i + 1] * -math.expm1(-h)
        extrapolate = 0.0 if order == 1 or i == 0 else take * h / (log_snr[i] - log_snr[i - 1]) / 2
        to_next.append((sigma[i + 1] / sigma[i], take + extrapolate, -extrapolate))
    return [one + other for one, other in zip(to_x0, [*to_next, (0.0, 1.0, 0.0)], strict=True)]


def noisiest_first(*tables: Tensor) -> list[tuple[float, ...]]:
    """Tables over ascending timesteps as rows of numbers for a sampling loop."""
    return list(zip(*(table.flip(0).tolist() for table in tables), strict=True))


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N₁ ‖ N₂) in nats, element by element."""
    return 0.5 * (
        log_variance2
        - log_variance1
        - 1
        + torch.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    )


def discretized_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """−log probability (nats) of the bin x ± `HALF_BIN` under a normal; the outer bins reach to infinity."""
    centered = x - mean
    scale = torch.exp(-0.5 * log_variance)

    def cdf(value: Tensor) -> Tensor:
        # MAR's tanh approximation of the normal distribution function.
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))

    upper, lower = cdf(scale * (centered + HALF_BIN)), cdf(scale * (centered - HALF_BIN))
    probability = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return -probability.clamp(min=1e-12).log()


@cache
def training_chain(device: torch.device) -> GaussianChain:
    """Tables of all training steps on `device`, made once."""
    return GaussianChain(list(range(NUM_TRAIN_STEPS))).to(device)


class CosineHead(DenoisingHead):
    """Times 0…999 of the cosine schedule."""

    default_first_step: ClassVar[dict[str, int]]
    """Sampler → training step, 0…999, at which it begins if nothing else is asked for."""

    def chain(self, device: torch.device) -> GaussianChain:
        """Tables of all training steps on `device`."""
        return training_chain(device)

    @override
    def add_noise(self, clean: Tensor, uniform: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform over the training steps."""
        chain, step = self.chain(clean.device), (uniform * NUM_TRAIN_STEPS).long()
        return chain.signal[step][..., None] * clean + chain.sigma[step][..., None] * eps, step

    @override
    def find_first_step(self, sampler: str, num_steps: int, first_step: int | None) -> int:
        """More steps than lie below the sampler's own begin higher."""
        if first_step is None:
            first_step = max(self.default_first_step[sampler], num_steps - 1)
        return respaced_timesteps(num_steps, first_step)[-1]


@register
class EpsilonHead(CosineHead, DiffusionHead):
    """MSE on ε plus the variational bound that trains the variance alone (the mean is frozen in it)."""

    name = "epsilon"
    outputs = 2
    samplers = tuple(SAMPLERS)
    default_first_step: ClassVar[dict[str, int]] = {name: one.first_step for name, one in SAMPLERS.items()}

    @override
    def loss(self, target_MD: Tensor, z_MW: Tensor, uniform_RM: Tensor, eps_RMD: Tensor) -> Tensor:
        """Nats of the bound are counted in bits, with weight 1 (MAR)."""
        chain, repeats = self.chain(target_MD.device), len(uniform_RM)
        condition = self.net.condition_embed(z_MW).repeat(repeats, 1)
        target_MD, eps = target_MD.repeat(repeats, 1), eps_RMD.flatten(0, 1)
        noisy, step = self.add_noise(target_MD, uniform_RM.flatten(), eps)
        at = step[:, None]
        eps_hat, fraction = self.net(noisy, step, condition).chunk(2, dim=-1)
        mse = (eps_hat - eps).square().view_as(eps_RMD).mean(dim=-1)

        true_mean = chain.posterior_mean(noisy, target_MD, at)
        mean = chain.posterior_mean(noisy, chain.predict_x0(noisy, eps_hat.detach(), at), at)
        log_variance = chain.log_variance(fraction, at)
        kl = normal_kl(true_mean, chain.log_variance_min[at], mean, log_variance)
        bound = torch.where(at == 0, discretized_nll(target_MD, mean, log_variance), kl)
        return mse + bound.view_as(eps_RMD).mean(dim=-1) / math.log(2)

    @override
    def times(self, steps: DenoiseSteps, device: torch.device) -> Tensor:
        return torch.tensor(respaced_timesteps(steps.count, steps.from_step)[::-1], device=device)

    @override
    def solve(self, sampler: str, steps: DenoiseSteps, predict: Predict, normal: Callable[..., Tensor]) -> Tensor:
        """Deterministic samplers use the temperature on the starting noise alone."""
        order = SAMPLERS[sampler].order
        if order is None:
            tables = ancestral_tables(steps.count, steps.from_step)
            return ancestral(predict, tables, normal(steps.count), steps.temperature)
        tables = solver_tables(steps.count, steps.from_step, order)
        return multistep(lambda i, x: predict(i, x)[..., : self.token_dim], tables, normal() * steps.temperature)


def ancestral(
    predict: Callable[[int, Tensor], Tensor], tables: list[tuple[float, ...]], noise: Tensor, temperature: float
) -> Tensor:
    """Ancestral sampling with learned variance (Nichol & Dhariwal 2021, eq. 15); the last step takes the mean.

    Args:
        predict: ε and the variance's fraction, joined in the last dimension, of a step's number and tokens x.
        tables: `ancestral_tables`, S steps.
        noise: standard normal, S draws along the second dimension: `[B, S, n, D]`, or `[B·n, S, D]` of tokens in a row.
        temperature: of all draws but the first, from which x begins.
    """
    x, *draws = noise.unbind(1)
    for i, (from_x, from_eps, low, high) in enumerate(tables):
        eps, fraction = predict(i, x).split(x.shape[-1], dim=-1)
        x = from_x * x - from_eps * eps
        if i < len(draws):
            log_deviation = (low + high) / 4 + (high - low) / 4 * fraction
            x = x + torch.exp(log_deviation) * draws[i] * temperature
    return x


def multistep(predict_eps: Callable[[int, Tensor], Tensor], tables: list[tuple[float, ...]], x: Tensor) -> Tensor:
    """DPM-Solver++(2M) in data form (Lu et al. 2022, algorithm 2); of order 1 it is DDIM (Song et al. 2020, η = 0)."""
    x0_before = torch.zeros_like(x)
    for i, (x0_from_x, x0_from_eps, keep, take, extrapolate) in enumerate(tables):
        x0 = x0_from_x * x - x0_from_eps * predict_eps(i, x)
        x = keep * x + take * x0
        if extrapolate:
            x = x + extrapolate * x0_before
        x0_before = x0
    return x
