"""The rectified-flow head: the same network, x_t = (1 − t) x + t ε, target ε − x, straight paths and few steps."""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import check_first_step
from magi_video.models.head import DenoiseSteps, DiffusionHead, Predict, register

TIME_SCALE = 1000.0  # the network's time embedding is made for 0…1000


@register
class FlowHead(DiffusionHead):
    """Velocity prediction with logit-normal times (as in Stable Diffusion 3)."""

    name = "flow"
    outputs = 1
    samplers = ("euler", "midpoint")

    @override
    def add_noise(self, clean: Tensor, uniform: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Logit-normal times."""
        time = torch.special.ndtri(uniform).sigmoid()
        return torch.lerp(clean, eps, time[..., None]), time * TIME_SCALE

    @override
    def loss(self, target_MD: Tensor, z_MW: Tensor, uniform_RM: Tensor, eps_RMD: Tensor) -> Tensor:
        repeats = len(uniform_RM)
        condition = self.net.condition_embed(z_MW).repeat(repeats, 1)
        target_MD, eps = target_MD.repeat(repeats, 1), eps_RMD.flatten(0, 1)
        noisy, time = self.add_noise(target_MD, uniform_RM.flatten(), eps)
        velocity = self.net(noisy, time, condition)
        return (velocity - (eps - target_MD)).square().view_as(eps_RMD).mean(dim=-1)

    @override
    def find_first_step(self, sampler: str, num_steps: int, first_step: int | None) -> None:
        """Always t = 1; `midpoint` spends two evaluations on a step."""
        if first_step is not None:
            check_first_step("flow", first_step)
        evaluations = 2 if sampler == "midpoint" else 1
        if num_steps < 1 or num_steps % evaluations:
            raise MagiError(
                f"denoise steps must be a positive multiple of {evaluations} for {sampler}, got {num_steps}"
            )

    @override
    def times(self, steps: DenoiseSteps, device: torch.device) -> Tensor:
        """A step's beginning, with "midpoint" its middle too."""
        return torch.linspace(1, 0, steps.count + 1, device=device)[:-1] * TIME_SCALE

    @override
    def solve(self, sampler: str, steps: DenoiseSteps, predict: Predict, normal: Callable[..., Tensor]) -> Tensor:
        midpoint = sampler == "midpoint"
        x = normal() * steps.temperature
        stride = -1 / steps.count
        for step in range(0, steps.count, 2 if midpoint else 1):
            ahead = x + stride * predict(step, x)
            x = x + 2 * stride * predict(step + 1, ahead) if midpoint else ahead
        return x
