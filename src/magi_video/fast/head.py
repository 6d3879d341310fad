"""The heads: what several denoising steps share is computed once; in training no shape depends on what was masked.

On a CPU the tokens that have a loss are picked out, and their number is padded. On a GPU to know their number the host
would have to wait in every forward; there the loss is computed for all tokens, and those that do not count are left
out of the sum. That is 1 / (share of tokens that are masked) times the head's work.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.fast.padding import padded
from magi_video.models.architecture import NUM_TRAIN_STEPS
from magi_video.models.categorical import CategoricalHead
from magi_video.models.distributional import DistributionalHead
from magi_video.models.epsilon import EpsilonHead
from magi_video.models.flow import FlowHead
from magi_video.models.head import DenoiseSteps, DenoisingMLP, DiffusionHead, Modulation, Predict

ROWS_AT_ONCE = 512
"""Rows for which the modulations of several denoising steps are computed together."""


def picks_tokens(device: torch.device) -> bool:
    """Whether a loss is computed for the tokens that count alone: on CPUs, which wait for nothing."""
    return device.type == "cpu"


def masked_sum(losses_L: Tensor, counted_L: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses `[…, L]` of the tokens that are counted, and these tokens' number."""
    return torch.where(counted_L, losses_L, 0.0).sum(), counted_L.sum().to(losses_L.dtype)


class FastDenoisingMLP(DenoisingMLP):
    """The same network, whose modulations can be computed for many steps together."""

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """As of `DenoisingMLP`; of more integer times than there are steps, each step is embedded once."""
        if time.is_floating_point() or time.numel() <= NUM_TRAIN_STEPS:
            return super().forward(x, time, condition)
        embedded = F.embedding(time, self.time_embed(torch.arange(NUM_TRAIN_STEPS, device=time.device)))
        return self.denoise(x, self.modulate(condition + embedded))

    def modulations(self, times: Tensor, z_BnW: Tensor) -> Iterator[list[Modulation]]:
        """`modulate` for every denoising step in turn, of all tokens in a row, `[B · n, …]`; times as of
        `DiffusionHead.denoiser`.

        More than half of the network's weights are here. A sampling step of its own reads them for a few tokens; many
        steps together read them once.
        """
        condition = self.condition_embed(z_BnW.to(self.condition_embed.weight.dtype))
        embedded = self.time_embed(times).view(len(times), 1, -1, condition.shape[-1])
        rows = condition.shape[:2].numel()
        for part in embedded.split(max(1, ROWS_AT_ONCE // max(1, rows))):
            of_steps = self.modulate((condition + part).flatten(0, -2))
            columns = [zip(*(one.split(rows) for one in modulation), strict=True) for modulation in of_steps]
            yield from (list(row) for row in zip(*columns, strict=True))


class FastHead(DiffusionHead):
    """A head over a `FastDenoisingMLP`; the objective comes from the class beside it."""

    net: FastDenoisingMLP

    def denoiser(self, times: Tensor, z_BnW: Tensor, guidance: float | None = None) -> Predict:
        """As of `DiffusionHead`; the steps must be asked for one after the other."""
        modulations, dtype = self.net.modulations(times, z_BnW), self.net.token_in.weight.dtype

        def network(x: Tensor, modulation: list[Modulation]) -> Tensor:
            in_a_row, rows = x.flatten(0, -2).to(dtype), len(modulation[0][0])
            if len(in_a_row) == rows:
                made = self.net.denoise(in_a_row, modulation)
            else:  # several draws for the same tokens, `z_BnW` `[1, n, W]`
                made = self.net.denoise(in_a_row.unflatten(0, (-1, rows)), modulation).flatten(0, 1)
            return made if x.ndim == 2 else made.unflatten(0, x.shape[:-1])

        def predict(step: int, x: Tensor) -> Tensor:
            modulation = next(modulations)
            return self.guide(lambda y: network(y, modulation), x, guidance)

        return predict

    def solve(self, sampler: str, steps: DenoiseSteps, predict: Predict, normal: Callable[..., Tensor]) -> Tensor:
        """As of `DiffusionHead`, of all tokens in a row, `[B · n, D]`: matrices are multiplied as they are."""
        shape = torch.Size()

        def normal_in_a_row(*count: int) -> Tensor:
            nonlocal shape
            draws = normal(*count)  # [B, draws, n, D], or without draws
            shape = draws.shape[:1] + draws.shape[-2:]
            return draws.movedim(-2, 1).flatten(0, 1)

        return super().solve(sampler, steps, predict, normal_in_a_row).view(shape)  # type: ignore[safe-super]

    def times(self, steps: DenoiseSteps, device: torch.device) -> Tensor:
        """As of `DiffusionHead`, made once: to copy them to a GPU the host would wait for it in every mask step."""
        if torch.compiler.is_compiling():
            return super().times(steps, device)  # type: ignore[safe-super]
        kept: dict[tuple[int, int | None, torch.device], Tensor] = self.__dict__.setdefault("_kept_times", {})
        key = (steps.count, steps.first, device)
        if key not in kept:
            with torch.inference_mode(False):
                kept[key] = super().times(steps, device)  # type: ignore[safe-super]
        return kept[key]

    def counted_loss(
        self, target_LD: Tensor, z_LW: Tensor, uniform_RL: Tensor, eps_RLD: Tensor, counted_L: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As of `DiffusionHead`, without a shape that the host would have to wait for."""
        if picks_tokens(target_LD.device):
            return super().counted_loss(target_LD, z_LW, uniform_RL, eps_RLD, counted_L)
        return masked_sum(self.loss(target_LD.float(), z_LW.float(), uniform_RL, eps_RLD), counted_L)

    def loss(self, target_MD: Tensor, z_MW: Tensor, uniform_RM: Tensor, eps_RMD: Tensor) -> Tensor:
        """As of `DiffusionHead`, computed for a padded number of tokens.

        The number of masked tokens differs from step to step. oneDNN keeps kernels and buffers for every shape that it
        meets, gigabytes in the end, and a compiler would compile for each.
        """
        count = len(target_MD)
        more = padded(count) - count
        if not more:
            return super().loss(target_MD, z_MW, uniform_RM, eps_RMD)  # type: ignore[safe-super]
        losses_RM = super().loss(  # type: ignore[safe-super]
            F.pad(target_MD, (0, 0, 0, more)),
            F.pad(z_MW, (0, 0, 0, more)),
            F.pad(uniform_RM, (0, more), value=0.5),
            F.pad(eps_RMD, (0, 0, 0, more)),
        )
        return losses_RM[:, :count]


class FastEpsilonHead(FastHead, EpsilonHead):
    """`EpsilonHead` over a `FastDenoisingMLP`."""


class FastFlowHead(FastHead, FlowHead):
    """`FlowHead` over a `FastDenoisingMLP`."""


class FastDistributionalHead(FastHead, DistributionalHead):
    """`DistributionalHead` over a `FastDenoisingMLP`."""


class FastCategoricalHead(CategoricalHead):
    """`CategoricalHead`, whose loss is computed for a padded number of tokens, or for all: see `FastHead`."""

    def counted_loss(self, target_LD: Tensor, z_LW: Tensor, counted_L: Tensor) -> tuple[Tensor, Tensor]:
        """As of `CategoricalHead`."""
        if picks_tokens(target_LD.device):
            return super().counted_loss(target_LD, z_LW, counted_L)
        return masked_sum(self.loss(target_LD.float(), z_LW.float()), counted_L)

    def loss(self, target_MD: Tensor, z_MW: Tensor) -> Tensor:
        """As of `CategoricalHead`."""
        count = len(target_MD)
        more = padded(count) - count
        return super().loss(F.pad(target_MD, (0, 0, 0, more)), F.pad(z_MW, (0, 0, 0, more)))[:count]


FAST: dict[type[nn.Module], type[nn.Module]] = {
    DenoisingMLP: FastDenoisingMLP,
    EpsilonHead: FastEpsilonHead,
    FlowHead: FastFlowHead,
    DistributionalHead: FastDistributionalHead,
    CategoricalHead: FastCategoricalHead,
}
