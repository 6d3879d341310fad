"""AdamW as in MAR, its warm-up, the average of the weights, and the guard against a single bad step."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

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


def build_schedule(optimizer: torch.optim.Optimizer, warmup_steps: int) -> LambdaLR:
    """A learning rate that rises linearly from 0 over the first steps, and then stays."""
    return LambdaLR(optimizer, lambda step: step / warmup_steps if step < warmup_steps else 1.0)


def widest(device: torch.device | str) -> torch.dtype:
    """float64; float32 on Apple's GPUs, which have no wider numbers."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


class AveragedWeights:
    """The running mean of the weights, which becomes the model: decay n/(n + 9) after n steps, `decay` at most.

    Args:
        parameters: whose mean.
        decay: the most that is kept of the mean in a step, in [0, 1).
        ramp: False keeps `decay` in every step (MAR). With it the first step copies the weights.

    Attributes:
        shadow_params: the mean of each parameter.
        count: steps n that were taken, a scalar on the weights' device.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float, ramp: bool = True) -> None:
        self.shadow_params = [parameter.detach().clone() for parameter in parameters]
        self.most, self.ramp = decay, ramp
        device = self.shadow_params[0].device if self.shadow_params else "cpu"
        self.count = torch.zeros((), dtype=widest(device), device=device)

    @property
    def decay(self) -> Tensor:
        """Share of the mean that the step of number `count` keeps, a scalar."""
        if not self.ramp:
            return torch.full_like(self.count, self.most)
        ramp = self.count / (self.count + 9)
        return torch.where(self.count > 1, ramp, 0.0).clamp(max=self.most)

    @torch.no_grad()
    def step(self, parameters: Iterable[nn.Parameter], taken: Tensor | None = None) -> None:
        """Let the weights enter the mean.

        Args:
            parameters: the same ones, in the same order.
            taken: boolean scalar: whether the optimiser's step was taken; else the mean stays. Nothing waits for it.
        """
        self.count += 1 if taken is None else taken
        weight = 1 - self.decay if taken is None else (1 - self.decay) * taken
        moved = [(mean, one) for mean, one in zip(self.shadow_params, parameters, strict=True) if one.requires_grad]
        if moved:
            means, weights = zip(*moved, strict=True)
            steps = torch._foreach_sub(weights, means)
            torch._foreach_mul_(steps, weight.to(means[0].dtype))
            torch._foreach_add_(means, steps)


def build_average(parameters: Iterable[nn.Parameter], config: TrainConfig) -> AveragedWeights:
    """The averaged weights as a recipe has them (`ema_decay`, `ema_warmup`)."""
    return AveragedWeights(parameters, config.ema_decay, config.ema_warmup)


@torch.no_grad()
def scale_and_clip(parameters: Iterable[nn.Parameter], norm: Tensor, scale: Tensor | float, max_norm: float) -> None:
    """Multiply all gradients, sharded or not, by `scale`, and by less where their norm would exceed `max_norm`.

    Args:
        parameters: whose gradients.
        norm: of all gradients before, over all processes: a scalar, which nothing waits for.
        scale: factor.
        max_norm: of the result.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    factor = scale * (max_norm / (norm.to(widest(norm.device)) * scale + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, a scalar; of sharded ones over all processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return whole(torch.nn.utils.get_total_norm(gradients))


def step_if(optimizer: torch.optim.Optimizer, taken: Tensor) -> None:
    """Let a fused optimiser step if a boolean scalar on its device says so; on CPUs and CUDA's GPUs nothing waits for
    the answer.

    By the way of `torch.amp.GradScaler`: where `found_inf` is 1 the fused kernels change neither weights nor state.
    """
    if taken.device.type in ("cpu", "cuda"):
        optimizer.found_inf = 1 - taken.float()  # type: ignore[attr-defined]
        optimizer.step()
    elif taken:
        optimizer.step()


SETTLED = 20
"""Steps after which the running mean of the gradient norm tells what is usual: the first ones say little."""


class SpikeGuard:
    """Refuses optimiser steps whose gradient is not finite or far above the usual.

    It decides on the device: nothing waits for its answer.

    Args:
        factor: how many times the usual norm is too much.
        device: where losses and norms are.
    """

    names = ("usual", "accepted", "skipped", "in_a_row")
    """Running mean of the gradient norm, and counts."""

    def __init__(self, factor: float, device: torch.device | str = "cpu") -> None:
        self.factor = factor
        self.values = torch.zeros(len(self.names), dtype=widest(device), device=device)

    def accepts(self, loss: Tensor | float, norm: Tensor | float) -> Tensor:
        """Whether to take the step: a boolean scalar on the device."""
        usual, accepted, skipped, in_a_row = self.values.unbind()
        loss, norm = (torch.as_tensor(one, dtype=usual.dtype, device=usual.device) for one in (loss, norm))
        settled = accepted >= SETTLED
        taken = loss.isfinite() & norm.isfinite() & ~(settled & (norm > self.factor * usual))
        weight = torch.where(settled, 0.9, accepted / (accepted + 1))
        mean = weight * usual + (1 - weight) * norm
        self.values = torch.stack(
            [torch.where(taken, mean, usual), accepted + taken, skipped + ~taken, torch.where(taken, 0, in_a_row + 1)]
        )
        return taken

    def state(self) -> dict[str, Any]:
        """Mean and counts as JSON values; waits for the device."""
        usual, *counts = self.values.tolist()
        return dict(zip(self.names, (usual, *map(int, counts)), strict=True))

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.values = self.values.new_tensor([state[name] for name in self.names])
