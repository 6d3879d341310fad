"""AdamW as in MAR, and the guard that keeps one bad step from spoiling a run."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from magi_video.files.checkpoints import whole
from magi_video.recipe import TrainConfig

BETAS = (0.9, 0.95)


EMBEDDED_VECTORS = ("mask_token", "unknown")
"""Names that embeddings kept as one vector end in. To MAR these are rows of a table too, and decay."""


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (0.9, 0.95). Weight decay as in MAR: not on biases, norms and the diffusion head (`util/misc.py`).

    MAR's embeddings of places, classes and the mask are tensors of several dimensions, and decay. So do ours, unless
    `decay_embeddings` is off: then matrices alone decay (and the places of words, as earlier versions had it).
    """
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # the codebook of a categorical head
            continue
        vector = parameter.ndim == 1 and not name.endswith(EMBEDDED_VECTORS)
        embedding = name.endswith(("_position", *EMBEDDED_VECTORS)) or id(parameter) in tables
        exempt = vector or name.startswith("diffusion_head.") or (embedding and not config.decay_embeddings)
        (free if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    # Fused: one pass over weights, gradients and averages, a quarter of the time on CPUs.
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True)


def build_average(parameters: Iterable[nn.Parameter], config: TrainConfig) -> EMAModel:
    """The averaged weights: decay n/(n + 9) in step n, `ema_decay` at most, or `ema_decay` throughout (MAR).

    The rise is diffusers' own; its first step copies the weights. `ema_warmup` off switches it off.
    """
    if config.ema_warmup:
        return EMAModel(parameters, decay=config.ema_decay, foreach=True)
    return EMAModel(parameters, config.ema_decay, min_decay=config.ema_decay, update_after_step=-1, foreach=True)


def scale_and_clip(parameters: Iterable[nn.Parameter], norm: float, scale: float, max_norm: float) -> None:
    """Multiply all gradients, sharded or not, by `scale`, and by less where their norm would exceed `max_norm`.

    Args:
        parameters: whose gradients.
        norm: of all gradients before, over all processes.
        scale: factor.
        max_norm: of the result.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, scale * min(1.0, max_norm / (norm * scale + 1e-6)))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, a scalar; of sharded ones over all processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return whole(torch.nn.utils.get_total_norm(gradients))


@dataclass
class SpikeGuard:
    """Refuses optimiser steps whose gradient is not finite or far above the usual.

    Attributes:
        factor: how many times the usual norm is too much.
        usual: running mean of the gradient norm.
        accepted, skipped, in_a_row: counts.
    """

    factor: float
    usual: float = 0.0
    accepted: int = 0
    skipped: int = 0
    in_a_row: int = field(default=0)

    def accepts(self, loss: float, norm: float) -> bool:
        """Whether to take the step."""
        settled = self.accepted >= 20  # the first steps' norms say little about the usual one
        if math.isfinite(loss) and math.isfinite(norm) and not (settled and norm > self.factor * self.usual):
            weight = 0.9 if settled else self.accepted / (self.accepted + 1)
            self.usual = weight * self.usual + (1 - weight) * norm
            self.accepted += 1
            self.in_a_row = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        return False

    def state(self) -> dict[str, Any]:
        """Counts as JSON values."""
        return {name: getattr(self, name) for name in ("usual", "accepted", "skipped", "in_a_row")}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        for name, value in state.items():
            setattr(self, name, value)
