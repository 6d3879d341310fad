"""The diffusion heads against diffusers' scheduler, closed forms, and a distribution they must learn."""

import copy
import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.head import FastDenoisingMLP
from magi_video.models.epsilon import (
    EpsilonHead,
    GaussianChain,
    cosine_alphas_cumprod,
    discretized_nll,
    normal_kl,
    respaced_timesteps,
)
from magi_video.models.flow import FlowHead
from magi_video.models.random import SampleNoise
from tests.arithmetic import assert_near, emulate


def diffusers_scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", clip_sample=False)


def test_schedule_is_diffusers_cosine() -> None:
    ours = torch.from_numpy(cosine_alphas_cumprod()).float()
    assert torch.allclose(ours, diffusers_scheduler().alphas_cumprod, atol=1e-6)


@pytest.mark.parametrize("num_steps", [1000, 100, 25, 7, 2])
def test_ancestral_step_is_diffusers_step(num_steps: int) -> None:
    timesteps = respaced_timesteps(num_steps, 999 if num_steps == 1000 else 990)
    assert timesteps[0] == 0 and timesteps[-1] == (999 if num_steps == 1000 else 990)
    assert len(set(timesteps)) == num_steps
    scheduler = diffusers_scheduler()
    scheduler.set_timesteps(timesteps=timesteps[::-1])
    chain = GaussianChain(timesteps)
    x, eps, fraction = torch.randn(3, 4, 8).unbind(0)
    for step in {num_steps - 1, num_steps // 2, 1} - {0}:
        expected_noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
        stepped = scheduler.step(
            torch.cat([eps, fraction], dim=1), timesteps[step], x, generator=torch.Generator().manual_seed(9)
        ).prev_sample
        mean = chain.posterior_mean(x, chain.predict_x0(x, eps, step), step)
        ours = mean + torch.exp(0.5 * chain.log_variance(fraction, step)) * expected_noise
        assert torch.allclose(ours, stepped, rtol=2e-4, atol=2e-4 * stepped.abs().max())


def test_ddim_is_diffusers_ddim() -> None:
    head = EpsilonHead(token_dim=4, condition_dim=4, width=16, depth=1)
    for parameter in head.net.token_out.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    z = torch.randn(1, 5, 4)
    with torch.no_grad():
        made = head.sample(z, SampleNoise.from_seeds([0]), 34, sampler="ddim", first_step=990)
        x = SampleNoise.from_seeds([0]).normal(5, 4)
        condition = head.net.condition_embed(z)
        scheduler.set_timesteps(34)
        scheduler.timesteps = torch.tensor(respaced_timesteps(34, 990)[::-1])  # 990, 960, …, 0: diffusers' stride is 29
        scheduler.num_inference_steps = 1000 // 30
        for time in scheduler.timesteps:
            x = scheduler.step(head.net(x, time, condition)[..., :4], time, x).prev_sample
    assert torch.allclose(made, x, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("num_steps", [1, 2, 8, 25])
def test_dpm_solver_is_diffusers_solver(num_steps: int) -> None:
    head = wild_head()
    scheduler = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", solver_order=2)
    scheduler.set_timesteps(timesteps=respaced_timesteps(num_steps, 970)[::-1])
    z = torch.randn(1, 5, 4)
    with torch.no_grad():
        made = head.sample(z, SampleNoise.from_seeds([0]), num_steps, sampler="dpmsolver++")
        x = SampleNoise.from_seeds([0]).normal(5, 4)
        for time in scheduler.timesteps:
            x = scheduler.step(head.net(x, time, head.net.condition_embed(z))[..., :4], time, x).prev_sample
    assert torch.allclose(made, x, atol=2e-3, rtol=2e-3)


def wild_head() -> EpsilonHead:
    """A head whose modulations, at first zero, do something."""
    head = EpsilonHead(token_dim=4, condition_dim=4, width=16, depth=2)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return head


def mar_timesteps(num_steps: int) -> list[int]:
    """MAR's `space_timesteps(1000, str(num_steps))`, written down anew: a stride that is added up and rounded."""
    stride, position, steps = 999 / (num_steps - 1), 0.0, set()
    for _ in range(num_steps):
        steps.add(round(position))
        position += stride
    return sorted(steps)


@pytest.mark.parametrize("num_steps", [2, 3, 10, 25, 64, 100, 250, 1000])
def test_a_chain_from_999_is_mars_own(num_steps: int) -> None:
    assert respaced_timesteps(num_steps, 999) == mar_timesteps(num_steps)


@pytest.mark.parametrize(("sampler", "own"), [("ancestral", 990), ("ddim", 950), ("dpmsolver++", 970)])
def test_every_sampler_begins_at_its_own_step_or_at_the_one_asked_for(sampler: str, own: int) -> None:
    head, z = wild_head(), torch.randn(1, 5, 4)

    def made(num_steps: int = 8, first_step: int | None = None) -> Tensor:
        noise = SampleNoise.from_seeds([0])
        with torch.no_grad():
            return head.sample(z, noise, num_steps, sampler=sampler, first_step=first_step)

    assert torch.equal(made(), made(first_step=own))
    assert not torch.allclose(made(), made(first_step=999), atol=1e-3)
    # More steps than lie below the sampler's own: no step twice.
    assert head.find_first_step(sampler, own + 1, None) == own
    assert head.find_first_step(sampler, own + 5, None) == own + 4
    assert respaced_timesteps(1000, head.find_first_step(sampler, 1000, None)) == list(range(1000))


@pytest.mark.parametrize(("num_steps", "first_step", "message"), [
    (8, 1000, "must lie in 0…999, got 1000"), (8, -1, "must lie in 0…999, got -1"),
    (8, 6, "8 denoise steps need a first step of at least 7, got 6"), (1001, 999, "must lie in 1…1000, got 1001"),
])  # fmt: skip
def test_first_steps_that_make_no_chain_are_refused(num_steps: int, first_step: int, message: str) -> None:
    head = EpsilonHead(2, 4, 8, 1)
    with pytest.raises(MagiError, match=message):
        head.sample(torch.zeros(1, 1, 4), SampleNoise.from_seeds([0]), num_steps, first_step=first_step)


def test_the_flow_head_has_no_first_step() -> None:
    with pytest.raises(MagiError, match="a flow head has no first denoise step to choose, got 990"):
        FlowHead(2, 4, 8, 1).sample(torch.zeros(1, 1, 4), SampleNoise.from_seeds([0]), 8, first_step=990)


@pytest.mark.parametrize("rows", [1, 7, 100_000])
def test_modulations_computed_together_are_those_of_each_step(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magi_video.fast.head.ROWS_AT_ONCE", rows)
    net = wild_head().net
    net.__class__ = FastDenoisingMLP
    assert isinstance(net, FastDenoisingMLP)
    z, x, times = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.tensor([990, 500, 20, 0])
    with torch.no_grad():
        in_a_row = [net.denoise(x.flatten(0, 1), modulations) for modulations in net.modulations(times, z)]
        together = [one.unflatten(0, x.shape[:2]) for one in in_a_row]
        apart = [net(x, time, net.condition_embed(z)) for time in times]
    assert len(together) == 4
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("sampler", EpsilonHead.samplers)
def test_a_bfloat16_head_samples_nearly_the_same(sampler: str) -> None:
    head, z = wild_head(), torch.randn(2, 6, 4)
    with torch.no_grad():
        exact = head.sample(z, SampleNoise.from_seeds([0, 1]), 20, sampler=sampler)
        rough = head.bfloat16().sample(z, SampleNoise.from_seeds([0, 1]), 20, sampler=sampler)
    assert rough.dtype == torch.float32, "tokens and noise stay float32"
    emulated = copy.deepcopy(head).float()
    emulated.net.forward = emulate(emulated.net.forward)  # type: ignore[method-assign]
    emulated.net.condition_embed.forward = emulate(emulated.net.condition_embed.forward)  # type: ignore[method-assign]
    with torch.no_grad():
        made = emulated.sample(z, SampleNoise.from_seeds([0, 1]), 20, sampler=sampler)
    assert_near(rough, made, exact)


def test_kl_closed_form() -> None:
    zero = torch.zeros(1)
    assert normal_kl(zero, zero, zero, zero).item() == 0
    first = torch.distributions.Normal(0.3, math.exp(0.25))
    second = torch.distributions.Normal(-0.2, math.exp(-0.4))
    ours = normal_kl(torch.tensor(0.3), torch.tensor(0.5), torch.tensor(-0.2), torch.tensor(-0.8))
    assert ours.item() == pytest.approx(torch.distributions.kl_divergence(first, second).item(), rel=1e-5)


def test_discretized_nll_integrates_to_one() -> None:
    bins = torch.linspace(-1, 1, 256)
    mean, log_variance = torch.tensor(0.2), torch.tensor(-2.0)
    probability = torch.exp(-discretized_nll(bins, mean, log_variance)).sum()
    assert probability.item() == pytest.approx(1, abs=2e-3)


def test_variance_lies_between_its_bounds() -> None:
    chain = GaussianChain(respaced_timesteps(100, 990))
    step = torch.arange(1, 100)
    low, high = chain.log_variance(-torch.ones(99), step), chain.log_variance(torch.ones(99), step)
    assert torch.allclose(low, chain.log_variance_min[1:]) and torch.allclose(high, chain.log_variance_max[1:])
    assert (low <= high + 1e-6).all()


def test_untrained_epsilon_head_has_unit_mse_and_the_bound_trains_variance_alone() -> None:
    head = EpsilonHead(token_dim=8, condition_dim=16, width=32, depth=2)
    head.net.reset_parameters()
    target, z = torch.randn(4000, 8), torch.randn(4000, 16)
    uniform, eps = torch.rand(1, 4000), torch.randn(1, 4000, 8)
    losses = head.loss(target, z, uniform, eps)
    assert losses.shape == (1, 4000) and losses.isfinite().all()
    # Zero output: ε̂ = 0, so the MSE part is 1 on average; the bound adds something positive.
    assert 0.95 < losses.mean() < 3
    # With the mean frozen, the ε half of the output learns from the MSE alone: its gradient is 2(ε̂ − ε)/D/M.
    captured: list[Tensor] = []
    head.net.token_out.register_forward_hook(lambda _module, _inputs, out: (out.retain_grad(), captured.append(out))[0])
    head.loss(target, z, uniform, eps).mean().backward()
    assert captured[0].grad is not None
    assert torch.allclose(captured[0].grad[:, :8], 2 * (0 - eps[0]) / 8 / 4000, atol=1e-9)


def test_repeats_draw_independently() -> None:
    head = EpsilonHead(8, 16, 32, 2)
    losses = head.loss(torch.randn(3, 8), torch.randn(3, 16), torch.rand(4, 3), torch.randn(4, 3, 8))
    assert losses.shape == (4, 3) and len(set(losses.flatten().tolist())) == 12


def train_head(head: EpsilonHead | FlowHead, steps: int = 700) -> None:
    """Teach a head the distribution x ~ N(±2 by the condition's sign, 0.3²)."""
    head.net.reset_parameters()
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        sign = torch.randint(2, (256, 1), generator=generator) * 2.0 - 1
        target = 2 * sign + 0.3 * torch.randn(256, 2, generator=generator)
        uniform, eps = torch.rand(1, 256, generator=generator), torch.randn(1, 256, 2, generator=generator)
        loss = head.loss(target, sign.expand(-1, 4), uniform, eps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("kind", [EpsilonHead, FlowHead])
def test_heads_learn_a_conditional_distribution_and_sample_it_in_any_number_of_steps(
    kind: type[EpsilonHead] | type[FlowHead],
) -> None:
    head = kind(token_dim=2, condition_dim=4, width=64, depth=2)
    train_head(head)
    z = torch.ones(1, 1000, 4)
    z[:, 500:] = -1
    for sampler in head.samplers:
        for num_steps in (50, 100):
            noise = SampleNoise.from_seeds([0])
            with torch.no_grad():
                made = head.sample(z, noise, num_steps, sampler=sampler)[0]
            for part, mean in ((made[:500], 2.0), (made[500:], -2.0)):
                assert part.mean().item() == pytest.approx(mean, abs=0.2), (sampler, num_steps)
                # The ancestral sampler has about 0.31; the others carry the error of so short a training on.
                assert 0.15 < part.std(dim=0).mean() < (0.45 if sampler == "ancestral" else 0.8), (sampler, num_steps)


def test_temperature_zero_is_deterministic_and_narrower() -> None:
    head = EpsilonHead(2, 4, 64, 2)
    train_head(head, steps=200)
    z = torch.ones(1, 500, 4)
    with torch.no_grad():
        cold, warm = (head.sample(z, SampleNoise.from_seeds([0]), 50, temperature=t) for t in (0.5, 1.0))
    assert cold.std() < warm.std()


@pytest.mark.parametrize(("head", "sampler", "steps"), [
    (EpsilonHead, "euler", 10), (FlowHead, "ddim", 10), (EpsilonHead, None, 0), (EpsilonHead, "ddim", 1001),
    (FlowHead, "midpoint", 3), (FlowHead, None, 0),
])  # fmt: skip
def test_wrong_samplers_and_steps_are_refused(
    head: type[EpsilonHead] | type[FlowHead], sampler: str | None, steps: int
) -> None:
    with pytest.raises(MagiError):
        head(2, 4, 8, 1).sample(torch.zeros(1, 1, 4), SampleNoise.from_seeds([0]), steps, sampler=sampler)
