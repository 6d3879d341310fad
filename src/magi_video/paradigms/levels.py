"""Noise levels of Diffusion Forcing (Chen et al. 2024): those of each head, schedules over frames, weights by level."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.epsilon import EpsilonHead, cosine_alphas_cumprod
from magi_video.models.flow import TIME_SCALE, FlowHead
from magi_video.models.head import DenoisingHead, TokenHead
from magi_video.models.velocity import VelocityHead

Weights = Literal["none", "min-snr", "fused"]


def schedule_matrix(schedule: str, steps: int, frames: int, uncertainty: float = 1.0) -> Tensor:
    """The levels 0 (clean) … `steps` (pure noise) of some frames as they are made, integers `[rows, frames]`.

    Row m + 1 follows row m by one pass. "pyramid": clip(S + ⌊t u⌋ − m, 0, S) for frame t, in S + ⌊(F − 1) u⌋ + 1 rows;
    "autoregressive": the pyramid with u = S, each frame finished before the next is begun; "full-sequence": all frames
    at once. The authors' "trapezoid" is not offered: its index slips at the first frame.

    Args:
        schedule: one of `sampling.Schedule`.
        steps: S.
        frames: F.
        uncertainty: u of the pyramid, levels by which a frame stays behind the one before it.
    """
    if schedule == "full-sequence":
        uncertainty = 0.0
    elif schedule == "autoregressive":
        uncertainty = float(steps)
    behind_F = (torch.arange(frames, dtype=torch.float64) * uncertainty).floor().long()
    row_M1 = torch.arange(steps + int(behind_F[-1]) + 1)[:, None]
    return (steps + behind_F - row_M1).clamp(0, steps)


def velocity_weights(snr_BT: Tensor, weights: str, clip: float = 5.0, decay: float = 0.96) -> Tensor:
    """Weight `[B, T]` of the squared error of v by signal-to-noise ratio, as in the authors' code (`diffusion.py`).

    "min-snr": min(SNR, clip)/(SNR + 1) (Hang et al. 2023). "fused": what the frames before a frame say of it counts as
    signal of its own. With s = min(SNR, clip)/clip, c_1 = s_1, c_t = decay · c_{t−1} + (1 − decay) · s_t:
    F_t = 1 − (1 − decay · c_{t−1})(1 − s_t) with c_0 = 0, G_t the same with SNR/clip in the place of the last s_t, and
    the weight is clip · F/(clip · G + 1). "none": 1.

    Args:
        snr_BT: ᾱ/(1 − ᾱ) of every frame's level.
        weights: one of `Weights`.
        clip, decay: see above.
    """
    if weights == "none":
        return torch.ones_like(snr_BT)
    clipped_BT = snr_BT.clamp(max=clip)
    if weights == "min-snr":
        return clipped_BT / (snr_BT + 1)
    own_BT = clipped_BT / clip
    past_B, past_BT = own_BT[:, 0], torch.zeros_like(own_BT)
    for t in range(1, own_BT.shape[1]):
        past_BT[:, t] = past_B
        past_B = decay * past_B + (1 - decay) * own_BT[:, t]
    fused_BT = 1 - (1 - decay * past_BT) * (1 - own_BT)
    unclipped_BT = 1 - (1 - decay * past_BT) * (1 - snr_BT / clip)
    return clip * fused_BT / (clip * unclipped_BT + 1)


class Levels(ABC):
    """The noise levels of a head as times, and one step between two of them: frames may be of different levels.

    Args:
        head: whose output a step follows from.
    """

    samplers: ClassVar[tuple[str, ...]]
    """Samplers whose steps follow from one output alone."""

    def __init__(self, head: DenoisingHead) -> None:
        self.head = head

    def find_sampler(self, name: str | None) -> str:
        """The sampler of that name, or the head's default.

        Raises:
            MagiError: there is no such sampler, or its steps need more than one output.
        """
        sampler = self.head.find_sampler(name)
        if sampler not in self.samplers:
            raise MagiError(f"frames of different noise levels take the sampler {' or '.join(self.samplers)}")
        return sampler

    @abstractmethod
    def times(self, num_steps: int, first_step: int | None) -> Tensor:
        """Times `[num_steps + 1]`, on the CPU: of a clean token, then of ever noisier ones up to the first step's.

        Arguments and errors as of `TokenHead.find_first_step`.
        """

    @abstractmethod
    def signal(self, time: float) -> float:
        """The factor of the clean token in a noisy one of that time."""

    @abstractmethod
    def step(self, x: Tensor, output: Tensor, now: Tensor, then: Tensor, sampler: str, noise: Tensor | None) -> Tensor:
        """Noisy tokens `x` `[B, S, n, D]` one step on.

        Args:
            x: of time `now`.
            output: of the head's `predict` for them.
            now, then: times `[S]` on the CPU, both of `times`.
            sampler: of `samplers`.
            noise: like `x`, for a sampler that draws in every step.
        """


class EpsilonLevels(Levels):
    """−1, a clean token's, and 0…999 of the cosine schedule."""

    samplers: ClassVar[tuple[str, ...]] = ("ancestral", "ddim")

    @override
    def times(self, num_steps: int, first_step: int | None) -> Tensor:
        """Evenly from −1 to the first step, rounded down (Diffusion Forcing)."""
        first_step = self.head.find_first_step(self.head.find_sampler(None), num_steps, first_step)
        assert first_step is not None
        return torch.linspace(-1, first_step, num_steps + 1, dtype=torch.float64).floor().long()

    @override
    def signal(self, time: float) -> float:
        """√ᾱ."""
        return float(alpha_bar(torch.tensor(int(time))).sqrt())

    @override
    def step(self, x: Tensor, output: Tensor, now: Tensor, then: Tensor, sampler: str, noise: Tensor | None) -> Tensor:
        eps, fraction = output.chunk(2, dim=-1)
        before, after = alpha_bar(now), alpha_bar(then)
        x0 = _of_frames(before.rsqrt(), x) * x - _of_frames((1 / before - 1).sqrt(), x) * eps
        if sampler == "ddim":
            return ddim_step(x0, eps, then)
        beta = 1 - before / after
        mean = (
            _of_frames(beta * after.sqrt() / (1 - before), x) * x0
            + _of_frames((1 - after) * (1 - beta).sqrt() / (1 - before), x) * x
        )
        low = (beta * (1 - after) / (1 - before)).clamp(min=1e-20).log()
        high, weight = beta.log(), (fraction + 1) / 2
        log_variance = weight * _of_frames(high, x) + (1 - weight) * _of_frames(low, x)
        assert noise is not None
        return mean + _of_frames((then >= 0).double(), x) * torch.exp(0.5 * log_variance) * noise


class VelocityLevels(EpsilonLevels):
    """The same levels; v = √ᾱ ε − √(1 − ᾱ) x₀."""

    samplers = ("ddim",)

    @override
    def step(self, x: Tensor, output: Tensor, now: Tensor, then: Tensor, sampler: str, noise: Tensor | None) -> Tensor:
        signal = _of_frames(alpha_bar(now).sqrt(), x)
        sigma = torch.sqrt(1 - signal.square())
        return ddim_step(signal * x - sigma * output, sigma * x + signal * output, then)


class FlowLevels(Levels):
    """0…1000, along a straight line."""

    samplers = ("euler",)

    @override
    def times(self, num_steps: int, first_step: int | None) -> Tensor:
        """Evenly from 0 to 1000."""
        self.head.find_first_step(self.samplers[0], num_steps, first_step)
        return torch.linspace(0, TIME_SCALE, num_steps + 1)

    @override
    def signal(self, time: float) -> float:
        """1 − t."""
        return 1 - time / TIME_SCALE

    @override
    def step(self, x: Tensor, output: Tensor, now: Tensor, then: Tensor, sampler: str, noise: Tensor | None) -> Tensor:
        return x + _of_frames((then - now) / TIME_SCALE, x) * output


LEVELS: dict[type[DenoisingHead], type[Levels]] = {
    EpsilonHead: EpsilonLevels,
    FlowHead: FlowLevels,
    VelocityHead: VelocityLevels,
}


def levels_of(head: TokenHead) -> Levels:
    """The noise levels of a head; a `MagiError` for one that does not denoise."""
    for kind, levels in LEVELS.items():
        if isinstance(head, kind):
            return levels(head)
    raise MagiError(f"Diffusion Forcing denoises what the transformer reads: it takes no {head.name} head")


def alpha_bar(time: Tensor) -> Tensor:
    """ᾱ of times −1…999 on the CPU, float64; 1 at −1."""
    table = torch.from_numpy(np.append(cosine_alphas_cumprod(), 1.0))
    return table[time.long()]  # −1 is the last


def ddim_step(x0: Tensor, eps: Tensor, then: Tensor) -> Tensor:
    """Tokens `[B, S, n, D]` at times `then` `[S]` by DDIM, η = 0 (Song et al. 2020, eq. 12)."""
    after = alpha_bar(then)
    return _of_frames(after.sqrt(), x0) * x0 + _of_frames((1 - after).sqrt(), x0) * eps


def _of_frames(value_S: Tensor, like: Tensor) -> Tensor:
    return value_S[:, None, None].to(like)
