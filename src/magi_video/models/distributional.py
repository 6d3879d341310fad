"""The few-step head: a pass draws a clean token from what it may be, where other heads predict its mean.

"Distributional Diffusion Models with Scoring Rules" (De Bortoli et al. 2025, arXiv 2502.02483). A denoiser that knows
the mean of x₀ alone needs many small steps. One that draws x₀ from p(x₀ | x_t, z) is right at any step: the drawn x₀
and q(x_s | x_t, x₀) give x_s, and a single step from pure noise is a generator. The network reads the noisy token and,
beside it, noise of its own, from which the draw comes. It learns by the energy score (Gneiting & Raftery 2007): for
independent draws x̂ and x̂′

    E ‖x̂ − x₀‖ − ½ E ‖x̂ − x̂′‖,

which is least where the draws have the distribution of x₀, and there alone. No adversary, and no trajectory of a
teacher: what an ancestral chain samples, which follows from no deterministic map, is learned as data are.

The chain is the epsilon head's cosine schedule; the network predicts v, so x̂₀ = √ᾱ x − √(1 − ᾱ) v is the noisy token
itself where there is no noise, and −v where there is nothing else.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import NUM_TRAIN_STEPS, check_first_step
from magi_video.models.epsilon import CosineHead, GaussianChain, noisiest_first
from magi_video.models.head import DenoiseSteps, DiffusionHead, Predict, register

DRAWS = 2
"""Of x₀ for each noisy token in training, from which its energy score is estimated without bias."""
NOISE_STD = 0.1
"""Of the weights, at first, that the drawn noise goes through in a network that was another head's."""


def evenly_spaced_times(num_steps: int) -> list[int]:
    """Times of a chain of K steps, ascending: 1000 · i / K − 1 for i = 1…K. Of few steps none is spent on time 0."""
    if not 1 <= num_steps <= NUM_TRAIN_STEPS:
        raise MagiError(f"denoise steps must lie in 1…{NUM_TRAIN_STEPS}, got {num_steps}")
    return [round(NUM_TRAIN_STEPS * (i + 1) / num_steps) - 1 for i in range(num_steps)]


@cache
def step_tables(num_steps: int) -> list[tuple[float, ...]]:
    """For each step, noisiest first: √ᾱ and √(1 − ᾱ) of its time; then of q(x_s | x_t, x₀) the factors of x₀ and of x_t
    and the standard deviation. The last step ends in x₀."""
    chain = GaussianChain(evenly_spaced_times(num_steps))
    std = torch.exp(0.5 * chain.log_variance_min)
    std[0] = 0
    return noisiest_first(chain.signal, chain.sigma, chain.mean_from_x0, chain.mean_from_x, std)


def energy_score(draws_RMD: Tensor, target_MD: Tensor) -> Tensor:
    """The energy score of R ≥ 2 independent draws `[R, …, D]` for a target `[…, D]`, without bias: `[…]`."""
    draws = len(draws_RMD)
    to_target = _distance(draws_RMD - target_MD).mean(dim=0)
    between = _distance(draws_RMD[:, None] - draws_RMD[None]).sum(dim=(0, 1)) / (draws * (draws - 1))
    return to_target - between / 2


def _distance(difference: Tensor) -> Tensor:
    """Euclidean; with a gradient at 0."""
    return (difference.square().sum(dim=-1) + 1e-12).sqrt()


@register
class DistributionalHead(CosineHead, DiffusionHead):
    """Draws of x₀ by a `DenoisingMLP` that reads a noisy token and noise beside it."""

    name = "distributional"
    inputs = 2
    outputs = 1
    samplers = ("ancestral",)

    @property
    @override
    def noise_dim(self) -> int:
        """Of the noise on the token, and of each of its draws."""
        return (1 + DRAWS) * self.token_dim

    @override
    def find_first_step(  # type: ignore[override]  # the others name a step; here there is none to name
        self, sampler: str, num_steps: int, first_step: int | None
    ) -> None:
        """None: a chain always begins in pure noise."""
        if first_step is not None:
            check_first_step(self.name, first_step)
        evenly_spaced_times(num_steps)

    @torch.no_grad()
    def begin_as(self, head: DiffusionHead) -> None:
        """Take over the weights of another head's network of the same size, as far as they mean the same."""
        own, given = self.net.state_dict(), head.net.state_dict()
        token_in = torch.empty_like(own["token_in.weight"])
        token_in[:, : self.token_dim] = given["token_in.weight"]
        nn.init.normal_(token_in[:, self.token_dim :], std=NOISE_STD)
        taken = {name: weight for name, weight in given.items() if not name.startswith("token_out.")}
        self.net.load_state_dict(own | taken | {"token_in.weight": token_in})

    @override
    def loss(self, target_MD: Tensor, z_MW: Tensor, uniform_RM: Tensor, eps_RMD: Tensor) -> Tensor:
        """The energy score of each draw of time and noise, `[R, M]`.

        Args:
            target_MD, z_MW, uniform_RM: as of `DenoisingHead.loss`.
            eps_RMD: of `noise_dim` numbers: the noise on the token, then that of each of its draws.
        """
        eps_RMD, *of_draws = eps_RMD.split(self.token_dim, dim=-1)
        noisy_RMD, step_RM = self.add_noise(target_MD, uniform_RM, eps_RMD)
        chain = self.chain(target_MD.device)
        signal, sigma = chain.signal[step_RM][..., None], chain.sigma[step_RM][..., None]
        time_RMW = self.net.time_embed(step_RM.flatten()).view(*step_RM.shape, -1)
        modulations = self.net.modulate(self.net.condition_embed(z_MW) + time_RMW)
        inputs = [torch.cat([noisy_RMD, xi_RMD], dim=-1) for xi_RMD in of_draws]
        v_nRMD = self.net.denoise(torch.stack(inputs), modulations)
        return energy_score(signal * noisy_RMD - sigma * v_nRMD, target_MD)

    @override
    def times(self, steps: DenoiseSteps, device: torch.device) -> Tensor:
        return torch.tensor(evenly_spaced_times(steps.count)[::-1], device=device)

    @override
    def solve(self, sampler: str, steps: DenoiseSteps, predict: Predict, normal: Callable[..., Tensor]) -> Tensor:
        """The temperature scales all that is drawn."""
        x, *others = (normal(2 * steps.count) * steps.temperature).unbind(1)
        for i, (signal, sigma, from_x0, from_x, std) in enumerate(step_tables(steps.count)):
            x0 = signal * x - sigma * predict(i, torch.cat([x, others[i]], dim=-1))
            if i == steps.count - 1:
                return x0
            x = from_x0 * x0 + from_x * x + std * others[steps.count + i]
        raise AssertionError("a chain has a last step")

    @override
    def predict(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: a noisy token alone does not say what is drawn.

        Raises:
            MagiError: always.
        """
        raise MagiError("a distributional head draws tokens, and predicts no noise: use sample")
