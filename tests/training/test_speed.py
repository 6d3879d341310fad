"""What makes a training step fast leaves its loss and its gradient what they were."""

import math

import pytest
import torch
from torch import Tensor

from magi_video.models import EpsilonHead
from magi_video.models.diffusion import NUM_TRAIN_STEPS, discretized_nll, normal_kl


def epsilon_loss(head: EpsilonHead, target: Tensor, z: Tensor, repeats: int, generator: torch.Generator) -> Tensor:
    """MAR's loss, word for word: every draw embeds its own time."""
    chain = head.chain(NUM_TRAIN_STEPS, target.device)
    target, z = target.repeat(repeats, 1), z.repeat(repeats, 1)
    step = torch.randint(NUM_TRAIN_STEPS, target.shape[:1], generator=generator)
    eps = torch.randn(target.shape, generator=generator)
    at = step[:, None]
    noisy = chain.signal[at] * target + chain.sigma[at] * eps
    predicted, fraction = head.net(noisy, step, head.net.condition_embed(z)).chunk(2, dim=-1)
    frozen = predicted.detach()
    mean = chain.posterior_mean(noisy, chain.predict_x0(noisy, frozen, at), at)
    true_mean = chain.posterior_mean(noisy, target, at)
    log_variance = chain.log_variance(fraction, at)
    kl = normal_kl(true_mean, chain.log_variance_min[at], mean, log_variance)
    bound = torch.where(at == 0, discretized_nll(target, mean, log_variance), kl)
    return (predicted - eps).square().mean(-1) + bound.mean(-1) / math.log(2)


@pytest.mark.parametrize("tokens", [30, 600], ids=["fewer draws than steps", "more draws than steps"])
def test_the_epsilon_loss_embeds_each_step_once_and_is_the_same(tokens: int) -> None:
    head = EpsilonHead(token_dim=4, condition_dim=8, width=16, depth=2)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    target, z = torch.randn(tokens, 4), torch.randn(tokens, 8, requires_grad=True)
    parameters = [*head.parameters(), z]
    ours = head.loss(target, z, 2, torch.Generator().manual_seed(1))
    plain = epsilon_loss(head, target, z, 2, torch.Generator().manual_seed(1))
    assert torch.allclose(ours, plain, rtol=1e-5)
    for a, b in zip(*(torch.autograd.grad(loss.mean(), parameters) for loss in (ours, plain)), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
