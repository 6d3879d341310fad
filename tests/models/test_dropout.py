"""What training drops follows from seeds, a clip at a time; nothing else drops anything."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.attention import PlainAttention, attention, dropped_attention
from magi_video.models.dropout import ATTENTION, PROJECTION, Dropout, DropoutRates, kept
from magi_video.models.sequence import causal_mask
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip, Paradigm

Make = Callable[..., MagiVideoTransformer]
RATES = DropoutRates(attention=0.1, projection=0.2, mlp=0.3)
CPU = torch.device("cpu")


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def of(clip: Clip, first: int, last: int) -> Clip:
    """Some of the clips."""
    conditions = {name: value[first:last] for name, value in clip.conditions.items()}
    return Clip(clip.tokens_BTND[first:last], clip.interval_B[first:last], conditions)


@pytest.fixture(params=["complete", "masked"])
def forcing(request: pytest.FixtureRequest) -> Paradigm:
    return PARADIGMS[request.param](dropout=RATES)


def test_a_mask_follows_from_its_clips_seed_and_keeps_its_share() -> None:
    seeds = torch.tensor([7, 8, 7])
    mask = kept((3, 50, 400), 0.3, seeds, CPU)
    assert mask.dtype == torch.bool and torch.equal(mask[0], mask[2]) and not torch.equal(mask[0], mask[1])
    assert torch.equal(mask[1:2], kept((1, 50, 400), 0.3, seeds[1:2], CPU)), "whatever clips are beside it"
    spread = math.sqrt(0.3 * 0.7 / mask[0].numel())
    assert all(abs(float(one.float().mean()) - 0.7) < 4 * spread for one in mask[:2])


def test_what_is_kept_is_scaled_so_that_the_mean_stays() -> None:
    dropout = Dropout((0.1, 0.25, 0.0, 0.0), torch.arange(8).reshape(2, 4))
    x = torch.rand(2, 100, 50) + 0.5
    y = dropout.drop(x, PROJECTION)
    assert torch.allclose(y[y != 0], (x / 0.75)[y != 0]) and 0.2 < float((y == 0).float().mean()) < 0.3
    assert dropout.drop(x, 2) is x, "a rate of 0 draws nothing"
    with pytest.raises(MagiError, match="attention must be below 1"):
        DropoutRates(attention=1.0)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_drops_weights_and_its_gradient_is_that_of_the_formula(masked: bool) -> None:
    q, k, v = (torch.randn(2, 3, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = causal_mask(5) if masked else None
    seeds = torch.tensor([[3, 0, 0, 0], [4, 0, 0, 0]])
    ours = attention(q, k, v, mask, Dropout((0.4, 0, 0, 0), seeds))
    scores = q @ k.transpose(-1, -2) / 2
    weights = torch.softmax(scores if mask is None else scores.masked_fill(~mask, -torch.inf), dim=-1)
    wanted = weights * kept(weights.shape, 0.4, seeds[:, ATTENTION], CPU) / 0.6 @ v
    assert torch.allclose(ours, wanted, rtol=1e-12)
    asked = torch.randn_like(wanted)
    for a, b in zip(*(torch.autograd.grad(out, (q, k, v), asked) for out in (ours, wanted)), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
    assert PlainAttention.apply(*(x.detach().flatten(0, -3) for x in (q, k, v)), None, None, 1.0) is not None


def test_the_fused_kernels_drop_by_the_clips_seeds_too() -> None:
    q, k, v = torch.randn(3, 2, 3, 2, 5, 4).unbind(0)
    before = torch.random.get_rng_state()
    both = dropped_attention(q, k, v, causal_mask(5), 0.4, torch.tensor([3, 4]))
    assert torch.equal(torch.random.get_rng_state(), before), "the device's generator is left as it was"
    assert torch.equal(both[1:], dropped_attention(q[1:], k[1:], v[1:], causal_mask(5), 0.4, torch.tensor([4])))
    seeds = torch.arange(400)
    many = dropped_attention(*(x[:1].expand(400, -1, -1, -1, -1) for x in (q, k, v)), None, 0.4, seeds)
    assert torch.allclose(many.mean(0), attention(q[:1], k[:1], v[:1])[0], atol=0.25), "the mean stays"


def test_a_clips_loss_does_not_depend_on_the_clips_beside_it(make_model: Make, clip: Clip, forcing: Paradigm) -> None:
    model = make_model().train()
    together, tokens = forcing.total_loss(model, clip, generators(5, 6))
    parts = [forcing.total_loss(model, of(clip, n, n + 1), generators(5 + n)) for n in range(2)]
    assert len(clip.tokens_BTND) == 2 and float(tokens) == sum(float(count) for _, count in parts)
    assert torch.allclose(together, parts[0][0] + parts[1][0], rtol=1e-5)


def test_nothing_is_dropped_outside_training(make_model: Make, clip: Clip, forcing: Paradigm) -> None:
    model, plain = make_model(), type(forcing)()
    in_evaluation = forcing.loss(model.eval(), clip, generators(5, 6))
    assert torch.equal(in_evaluation, plain.loss(model.eval(), clip, generators(5, 6)))
    assert torch.equal(in_evaluation, plain.loss(model.train(), clip, generators(5, 6))), "rates of 0 change nothing"
    assert not torch.allclose(in_evaluation, forcing.loss(model.train(), clip, generators(5, 6)), rtol=1e-3)


@pytest.mark.parametrize("rates", [DropoutRates(0.2), DropoutRates(projection=0.2), DropoutRates(mlp=0.2)])
def test_each_rate_is_live_and_each_draw_another(make_model: Make, clip: Clip, rates: DropoutRates) -> None:
    model = make_model().train()
    losses = {
        float(PARADIGMS["complete"](dropout=DropoutRates(**vars(rates) | {})).loss(model, clip, generators(*seeds)))
        for seeds in ((5, 6), (5, 6), (5, 7))
    }
    assert len(losses) == 2
    assert float(PARADIGMS["complete"]().loss(model, clip, generators(5, 6))) not in losses


@pytest.mark.parametrize("autocast", [False, True])
def test_checkpointing_computes_the_same_masks_again(
    make_model: Make, clip: Clip, forcing: Paradigm, autocast: bool
) -> None:
    model = make_model().train()

    def gradients() -> list[Tensor]:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = forcing.loss(model, clip, generators(5, 6))
        loss.backward()
        return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    plain = gradients()
    model.enable_gradient_checkpointing()
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))
