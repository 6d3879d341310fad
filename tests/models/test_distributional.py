"""The few-step head: its score, its chain, and a distribution of two modes in one step."""

import math

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.speed import speed_up
from magi_video.models.distributional import (
    DRAWS,
    DistributionalHead,
    energy_score,
    evenly_spaced_times,
    step_tables,
)
from magi_video.models.epsilon import EpsilonHead, cosine_alphas_cumprod
from magi_video.models.random import SampleNoise


def wild_head(depth: int = 2) -> DistributionalHead:
    """A head whose modulations, at first zero, do something."""
    head = DistributionalHead(token_dim=3, condition_dim=4, width=16, depth=depth)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return head


@pytest.mark.parametrize("draws", [2, 5])
def test_the_energy_score_is_that_of_two_normals(draws: int) -> None:
    def mean_score(shift: float, scale: float) -> float:
        made = shift + scale * torch.randn(draws, 40_000, 1)
        return energy_score(made, torch.randn(40_000, 1)).mean().item()

    # E|x − y| of x − y ~ N(0, s²) is s √(2/π); for the same distribution half of it is left.
    assert mean_score(0, 1) == pytest.approx(math.sqrt(2) * math.sqrt(2 / math.pi) / 2, abs=0.015)
    narrow = math.sqrt(1 + 0.25) * math.sqrt(2 / math.pi) - 0.5 * math.sqrt(2) * math.sqrt(2 / math.pi) / 2
    assert mean_score(0, 0.5) == pytest.approx(narrow, abs=0.015)
    assert mean_score(0, 1) < min(mean_score(0, 0.5), mean_score(0, 2), mean_score(0.5, 1), mean_score(0, 0))


@pytest.mark.parametrize("num_steps", [1, 2, 4, 1000])
def test_the_chain_begins_in_noise_and_spends_no_step_on_time_0(num_steps: int) -> None:
    times = evenly_spaced_times(num_steps)
    assert (
        times[-1] == 999 and len(set(times)) == num_steps and times[0] == pytest.approx(1000 / num_steps - 1, abs=0.5)
    )
    assert len(step_tables(num_steps)) == num_steps
    signal, _, from_x0, from_x, std = step_tables(num_steps)[-1]
    assert (from_x0, from_x, std) == (1, 0, 0), "the last step ends in the token that it drew"
    assert signal == pytest.approx(math.sqrt(cosine_alphas_cumprod()[times[0]]), rel=1e-5)


def test_a_network_that_knows_the_token_is_left_at_each_time_with_as_much_noise_as_belongs_to_it() -> None:
    head, token = wild_head(), torch.tensor([2.0, -1.0, 0.5])
    seen: list[Tensor] = []

    def knowing(times: Tensor, _z: Tensor, _guidance: float | None) -> object:
        alpha_bar = torch.from_numpy(cosine_alphas_cumprod()).float()[times]

        def predict(step: int, x_and_noise: Tensor) -> Tensor:
            x = x_and_noise[..., :3]
            seen.append(x)
            return (alpha_bar[step].sqrt() * x - token) / (1 - alpha_bar[step]).sqrt()  # v that gives the token

        return predict

    head.denoiser = knowing  # type: ignore[method-assign, assignment]
    made = head.sample(torch.zeros(1, 20_000, 4), SampleNoise.from_seeds([0]), 4)
    assert torch.allclose(made, token.expand_as(made), atol=1e-3)
    for time, x in zip(evenly_spaced_times(4)[::-1], seen, strict=True):
        alpha_bar = cosine_alphas_cumprod()[time]
        assert torch.allclose(x.mean(dim=(0, 1)), math.sqrt(alpha_bar) * token, atol=0.04)
        assert x.std(dim=1).mean().item() == pytest.approx(math.sqrt(1 - alpha_bar), abs=0.02)


def two_modes(share: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens of two numbers near (2, 2), or else near (−2, −2): how often the first is said by `share`, `[M, 1]`."""
    sign = torch.where(torch.rand(share.shape, generator=generator) < share, 1.0, -1.0)
    return 2 * sign + 0.3 * torch.randn(len(share), 2, generator=generator)


@pytest.fixture(scope="module")
def taught() -> DistributionalHead:
    """A head that has learned `two_modes`."""
    torch.manual_seed(0)
    head = speed_up(DistributionalHead(token_dim=2, condition_dim=4, width=64, depth=2))
    head.reset_parameters()
    steps, generator = 900, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for _ in range(steps):
        share = torch.rand(256, 1, generator=generator)
        uniform = torch.rand(1, 256, generator=generator)
        eps = torch.randn(1, 256, head.noise_dim, generator=generator)
        loss = head.loss(two_modes(share, generator), share.expand(-1, 4), uniform, eps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


@pytest.mark.parametrize(("num_steps", "between", "off"), [(1, 0.12, 0.4), (2, 0.04, 0.2), (4, 0.02, 0.15)])
def test_one_step_draws_both_modes_as_often_as_they_are_and_more_steps_draw_them_better(
    taught: DistributionalHead, num_steps: int, between: float, off: float
) -> None:
    share = torch.tensor([0.2, 0.8]).repeat_interleave(2000)
    with torch.no_grad():
        made = taught.sample(share[None, :, None].expand(-1, -1, 4), SampleNoise.from_seeds([0]), num_steps)[0]
    for part, expected in zip(made.split(2000), (0.2, 0.8), strict=True):
        first = part.mean(dim=1) > 0
        assert first.float().mean().item() == pytest.approx(expected, abs=0.1)
        assert (part.mean(dim=1).abs() < 1).float().mean().item() < between, "a mean of the modes is no token"
        assert part[first].mean().item() == pytest.approx(2, abs=off)
        assert part[~first].mean().item() == pytest.approx(-2, abs=off)


def test_at_temperature_zero_nothing_is_drawn(taught: DistributionalHead) -> None:
    z = torch.full((1, 1000, 4), 0.5)
    with torch.no_grad():
        cold, warm = (taught.sample(z, SampleNoise.from_seeds([0]), 2, temperature=t)[0] for t in (0.0, 1.0))
    assert cold.std(dim=0).max() < 1e-5 and warm.std(dim=0).min() > 1


def test_the_fast_head_gives_the_plain_ones_loss_and_tokens() -> None:
    head, z = wild_head(), torch.randn(2, 5, 4)
    target, uniform = torch.randn(7, 3), torch.rand(2, 7)
    eps = torch.randn(2, 7, head.noise_dim)
    assert head.noise_dim == (1 + DRAWS) * 3

    def both() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return (
                head.loss(target, z.flatten(0, 1)[:7], uniform, eps),
                head.sample(z, SampleNoise.from_seeds([0]), 3, guidance=1.5),
            )

    plain = both()
    speed_up(head)
    assert type(head).__name__ == "FastDistributionalHead"
    for one, other in zip(plain, both(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_it_begins_with_another_heads_weights() -> None:
    head, given = wild_head(), EpsilonHead(token_dim=3, condition_dim=4, width=16, depth=2)
    for parameter in given.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    before = head.net.token_out.weight.clone()
    head.begin_as(given)
    assert torch.equal(head.net.token_in.weight[:, :3], given.net.token_in.weight)
    assert torch.equal(head.net.blocks[1].modulation.weight, given.net.blocks[1].modulation.weight)
    assert torch.equal(head.net.token_out.weight, before), "what the outputs mean differs"


@pytest.mark.parametrize(("options", "message"), [
    ({"first_step": 990}, "a distributional head has no first denoise step to choose, got 990"),
    ({"sampler": "ddim"}, "unknown sampler 'ddim': this head has ancestral"),
    ({"denoise_steps": 0}, "denoise steps must lie in 1…1000, got 0"),
])  # fmt: skip
def test_what_it_cannot_do_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(MagiError, match=message):
        wild_head().sample(torch.zeros(1, 1, 4), SampleNoise.from_seeds([0]), **{"denoise_steps": 2, **options})  # type: ignore[arg-type]
    with pytest.raises(MagiError, match="use sample"):
        wild_head().predict(torch.zeros(1, 1, 3), torch.tensor(5), torch.zeros(1, 1, 4))
