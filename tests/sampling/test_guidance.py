"""Classifier-free guidance: what the head does with two halves, and that the halves of a rollout are what they say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.models.epsilon import EpsilonHead, GaussianChain, respaced_timesteps
from magi_video.models.flow import FlowHead
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import MASKED, OBSERVATION
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.sampling import Sampling
from tests.rollouts import start_rollout

HEAD = FlowHead(2, 4, 8, 1)
LABEL = {"noise_level": {"size": 6}, "label": {"size": 3}, "action": {"size": 2, "kind": "vector"}}


def roll(
    model: MagiVideoTransformer, seeds: list[int], label: int | None, settings: Sampling, **options: Any
) -> Tensor:
    """Five frames, the first given; the same action throughout."""
    rows = len(seeds)
    rollout = start_rollout(model, seeds, settings, 5, **options)
    conditions = {"action": torch.ones(rows, 2)}
    if label is not None:
        conditions["label"] = torch.full((rows,), label)
    rollout.observe(torch.randn(1, 16, 12, generator=torch.Generator().manual_seed(0)).expand(rows, -1, -1), conditions)
    return torch.stack([rollout.predict(conditions) for _ in range(4)], dim=1)


@pytest.fixture(params=["epsilon", "flow"])
def labelled(request: pytest.FixtureRequest, make_model: Callable[..., MagiVideoTransformer]) -> MagiVideoTransformer:
    return make_model(conditions=LABEL, head=request.param)


class Guess(torch.nn.Module):
    """A network that predicts its condition z, whatever the noisy token; variances as z's third number says."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.condition_embed = torch.nn.Identity()
        self.condition_embed.weight = torch.zeros(1)  # type: ignore[assignment]

    def forward(self, x: Tensor, time: Tensor, z: Tensor) -> Tensor:
        assert len(x) == len(z)
        return torch.cat([z[..., :2], z[..., 2:].expand(*z.shape[:2], 2)], -1)[..., : self.outputs]


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
def test_noise_is_predicted_as_free_plus_scale_times_the_difference(scale: float) -> None:
    head = EpsilonHead(2, 3, 8, 1)
    head.net = Guess(4)  # type: ignore[assignment]
    given, free = torch.tensor([[[0.4, -0.2, 0.5]]]), torch.tensor([[[0.1, 0.3, -0.9]]])
    out = head.denoiser(torch.zeros(1), torch.cat([given, free]), guidance=scale)(0, torch.randn(1, 1, 2))
    assert torch.allclose(out[..., :2], free[..., :2] + scale * (given - free)[..., :2])
    assert torch.equal(out[..., 2:], given[..., 2:].expand(1, 1, 2)), "variances are the first half's"

    one_step = head.sample(torch.cat([given, free]), SampleNoise.from_seeds([0]), 1, sampler="ddim", guidance=scale)
    chain, x = GaussianChain(respaced_timesteps(1, 950)), SampleNoise.from_seeds([0]).normal(1, 2)
    assert torch.allclose(one_step, chain.predict_x0(x, out[..., :2], 0), rtol=1e-4)


def test_velocity_is_guided_alike_and_both_halves_start_from_one_noise() -> None:
    head = FlowHead(2, 3, 8, 1)
    head.net = Guess(2)  # type: ignore[assignment]
    given, free = torch.tensor([[[0.4, -0.2, 0.0]]]), torch.tensor([[[0.1, 0.3, 0.0]]])
    made = head.sample(torch.cat([given, free]), SampleNoise.from_seeds([0]), 4, guidance=2.0)
    velocity = (free + 2 * (given - free))[..., :2]  # constant along the path
    assert torch.allclose(made, SampleNoise.from_seeds([0]).normal(1, 2) - velocity, atol=1e-5)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpmsolver++", "euler", "midpoint"])
def test_two_equal_halves_change_nothing(sampler: str) -> None:
    torch.manual_seed(1)
    kind = EpsilonHead if sampler in EpsilonHead.samplers else FlowHead
    head = kind(4, 8, 16, 2)
    torch.nn.init.normal_(head.net.token_out.weight, std=0.1)
    z = torch.randn(2, 3, 8)
    plain = head.sample(z, SampleNoise.from_seeds([1, 2]), 6, sampler=sampler)
    guided = head.sample(z.repeat(2, 1, 1), SampleNoise.from_seeds([1, 2]), 6, sampler=sampler, guidance=4.0)
    assert torch.allclose(plain, guided, atol=1e-4)


def test_scale_one_is_no_guidance_to_the_bit_and_costs_no_row(labelled: MagiVideoTransformer) -> None:
    rows: list[int] = []
    labelled.blocks[0].register_forward_hook(lambda _block, inputs, _out: rows.append(len(inputs[0])))
    plain = roll(labelled, [1, 2], 1, Sampling(None, 3, 4))
    same = roll(labelled, [1, 2], 1, Sampling(None, 3, 4, guidance_scale=1.0, guidance_schedule="constant"))
    assert torch.equal(plain, same) and set(rows) == {2}
    assert not torch.allclose(plain, roll(labelled, [1, 2], 1, Sampling(None, 3, 4, guidance_scale=3.0)), atol=1e-3)
    assert set(rows) == {2, 4}


def test_scale_zero_is_the_free_model(labelled: MagiVideoTransformer) -> None:
    # With learned variances the ancestral sampler takes them from the first half.
    ddim = {"sampler": "ddim"} if labelled.config.head == "epsilon" else {}
    free = roll(labelled, [1, 2], None, Sampling(None, 3, 4, **ddim))  # type: ignore[arg-type]
    nought = Sampling(None, 3, 4, guidance_scale=0.0, guidance_schedule="constant", **ddim)  # type: ignore[arg-type]
    assert torch.allclose(roll(labelled, [1, 2], 1, nought), free, atol=1e-4)


@pytest.mark.parametrize("kind", [OBSERVATION, MASKED])
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("sampler", [None, "second"])
def test_cached_and_uncached_agree_under_guidance(
    labelled: MagiVideoTransformer, kind: int, joined: bool, sampler: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magi_video.fast.past.JOINED_PLACES", 1000 if joined else 0)
    name = None if sampler is None else labelled.diffusion_head.samplers[1]
    settings = Sampling(None, 3, 4, name, guidance_scale=2.5)
    cached = roll(labelled, [1, 2], 2, settings, kind=kind)
    uncached = roll(labelled, [1, 2], 2, settings, kind=kind, use_cache=False)
    assert cached.std() > 0.1 and torch.allclose(cached, uncached, atol=1e-4, rtol=1e-4)


def test_reused_work_is_exact_under_guidance_where_places_do_not_see_each_other(labelled: MagiVideoTransformer) -> None:
    for block in labelled.blocks:
        torch.nn.init.zeros_(block.spatial.project.weight)  # type: ignore[union-attr, arg-type]
    exact, reused = (
        roll(labelled, [3, 4], 1, Sampling(None, 8, 4, refresh=n, guidance_scale=3, guide=("action",))) for n in (1, 3)
    )
    assert torch.allclose(reused, exact, atol=1e-5)


def test_a_guided_sample_depends_on_its_own_seed_alone(labelled: MagiVideoTransformer) -> None:
    settings = Sampling(None, 3, 4, guidance_scale=3.0)
    three, one = roll(labelled, [5, 6, 7], 1, settings), roll(labelled, [6], 1, settings)
    assert torch.allclose(three[1], one[0], atol=1e-4, rtol=1e-4)


def test_only_named_conditions_are_guided(labelled: MagiVideoTransformer) -> None:
    """Guiding what was not given leads away from nothing: the halves are equal."""
    plain = roll(labelled, [1], None, Sampling(None, 3, 4))
    assert torch.allclose(roll(labelled, [1], None, Sampling(None, 3, 4, guidance_scale=5.0)), plain, atol=1e-4)
    by_action = Sampling(None, 3, 4, guidance_scale=5.0, guide=("action",))
    assert not torch.allclose(roll(labelled, [1], None, by_action), plain, atol=1e-3)


def test_guidance_away_from_what_is_asked_for_changes_nothing(labelled: MagiVideoTransformer) -> None:
    settings = Sampling(None, 3, 4, guidance_scale=5.0)
    negative = {"label": torch.tensor([2])}
    assert torch.allclose(
        roll(labelled, [1], 2, settings, negative=negative), roll(labelled, [1], 2, Sampling(None, 3, 4)), atol=1e-4
    )


def test_what_is_done_to_a_guided_frame_is_done_to_both_halves(labelled: MagiVideoTransformer) -> None:
    def changed(use_cache: bool) -> Tensor:
        rollout = start_rollout(labelled, [0], Sampling(None, 3, 4, guidance_scale=3.0), 3, use_cache=use_cache)
        told = {"label": torch.tensor([1])}
        rollout.predict(told).fill_(1.0)
        return rollout.predict(told)

    observed = start_rollout(labelled, [0], Sampling(None, 3, 4, guidance_scale=3.0), 3)
    told = {"label": torch.tensor([1])}
    observed.predict(told)  # the same draws
    observed.past.cache.length, observed._pending, observed.begun = 0, [], 0  # type: ignore[union-attr]
    observed.observe(torch.ones(1, 16, 12), told)
    assert torch.allclose(changed(True), observed.predict(told), atol=1e-5)
    assert torch.allclose(changed(True), changed(False), atol=1e-4)


def test_the_schedule_runs_from_one_to_the_scale() -> None:
    linear = Sampling(guidance_scale=4.0).resolve(HEAD)
    assert linear.guidance(0.0) == 1 and linear.guidance(0.5) == 2.5 and linear.guidance(1.0) == 4
    assert Sampling(guidance_scale=4.0, guidance_schedule="constant").resolve(HEAD).guidance(0.1) == 4
    assert Sampling().resolve(HEAD).guidance(0.7) is None


@pytest.mark.parametrize("change", [
    {"guidance_scale": -0.1}, {"guidance_scale": 101.0}, {"guidance_scale": float("nan")}, {"guidance_schedule": "up"},
])  # fmt: skip
def test_impossible_guidance_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MagiError, match="guidance"):
        Sampling(**change)
