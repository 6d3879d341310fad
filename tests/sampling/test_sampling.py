"""How a frame is sampled: what a `Sampling` means for a model, and that a faster speed costs less."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.models.categorical import CategoricalHead
from magi_video.models.epsilon import EpsilonHead
from magi_video.models.flow import FlowHead
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import make_paradigm
from magi_video.paradigms.masking import unmasking_schedule
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import DEFAULTS, SPEEDS, Sampling, Speed

EPSILON, FLOW = EpsilonHead(2, 4, 8, 1), FlowHead(2, 4, 8, 1)
OWN = Sampling(mask_steps=8, denoise_steps=20)


def test_by_itself_a_model_is_sampled_as_the_paper_does() -> None:
    assert Sampling().resolve(EPSILON).given() == DEFAULTS.given() | {"sampler": "ancestral", "first_step": 990}
    assert Sampling().resolve(FLOW).given() == DEFAULTS.given() | {"sampler": "euler"}
    assert (DEFAULTS.mask_steps, DEFAULTS.denoise_steps, DEFAULTS.guidance_scale) == (64, 100, 1)


def test_what_is_asked_for_goes_before_the_models_own_and_that_before_the_default() -> None:
    own = Sampling(mask_steps=8, temperature=0.8, sampler="ddim")
    made = Sampling(mask_steps=3).resolve(EPSILON, own)
    assert (made.mask_steps, made.temperature, made.sampler, made.denoise_steps) == (3, 0.8, "ddim", 100)
    assert own.resolve(EPSILON).resolve(EPSILON) == own.resolve(EPSILON), "nothing is left open"
    fast = Sampling("fast", denoise_steps=3).resolve(EPSILON, OWN)
    assert (fast.mask_steps, fast.denoise_steps, fast.refresh) == (2, 3, 4)
    assert Sampling().resolve(EPSILON, Sampling("fast", mask_steps=8)).mask_steps == 2, "a model may have a speed"


def test_a_models_own_first_step_is_that_of_its_own_sampler() -> None:
    own = Sampling(mask_steps=8, denoise_steps=20, first_step=999)
    assert Sampling().resolve(EPSILON, own).first_step == 999
    assert Sampling(sampler="ancestral").resolve(EPSILON, own).first_step == 999
    assert Sampling(first_step=980).resolve(EPSILON, own).first_step == 980
    assert Sampling(sampler="ddim").resolve(EPSILON, own).first_step == 950
    few = Sampling(denoise_steps=50).resolve(EPSILON, Sampling(first_step=9))
    assert few.first_step == 49, "as low as so many steps allow"


@pytest.mark.parametrize("speed", SPEEDS)
def test_every_speed_takes_the_heads_default_sampler_or_the_one_asked_for(speed: Speed) -> None:
    made = [Sampling(speed).resolve(head, OWN) for head in (EPSILON, FLOW)]
    assert [(one.sampler, one.first_step) for one in made] == [("ancestral", 990), ("euler", None)]
    other = Sampling(speed, sampler="dpmsolver++").resolve(EPSILON, OWN)
    assert (other.sampler, other.first_step) == ("dpmsolver++", 970)


@pytest.mark.parametrize(("head", "asked", "message"), [
    (EPSILON, {"first_step": 5}, "20 denoise steps need a first step of at least 19, got 5"),
    (EPSILON, {"sampler": "euler"}, "unknown sampler 'euler'"),
    (FLOW, {"first_step": 990}, "a flow head has no first denoise step"),
    (FLOW, {"sampler": "midpoint", "denoise_steps": 7}, "a positive multiple of 2 for midpoint, got 7"),
])  # fmt: skip
def test_what_a_head_cannot_do_is_refused(head: EpsilonHead | FlowHead, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(MagiError, match=message):
        Sampling(**asked).resolve(head, OWN)


@pytest.mark.parametrize(("asked", "message"), [
    ({"speed": "turbo"}, "speed must be one of exact, balanced, fast, realtime, got 'turbo'"),
    ({"mask_steps": 0}, "mask_steps must lie in 1…16,384, got 0"),
    ({"mask_steps": True}, "mask_steps must be a whole number in 1…16,384, got True"),
    ({"first_step": 1000}, "first_step must lie in 0…999, got 1000"),
    ({"refresh": 0}, "refresh must be at least 1, got 0"),
    ({"temperature": float("nan")}, "temperature must lie in 0…10, got nan"),
    ({"guide": "text"}, "guide must be a list, got 'text'"),
    ({"guide": ["colour"]}, "guide.0 must be one of label, text, action, got 'colour'"),
    ({"steps": 3}, "unknown setting 'steps'; known are .*mask_steps"),
])  # fmt: skip
def test_wrong_values_are_refused_in_one_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(MagiError, match=f"^{message}"):
        Sampling.of(None, **asked)


def test_keywords_of_before_and_speeds_by_name() -> None:
    old: dict[str, Any] = {"setting": "fast", "num_mask_steps": 3, "num_denoise_steps": 5, "sampler": None}
    assert Sampling.of(**old) == Sampling("fast", 3, 5)
    assert Sampling.of("fast", guide=["action"]) == Sampling("fast", guide=("action",))
    assert Sampling.of(Sampling("fast", 3), mask_steps=4) == Sampling("fast", 4)


@pytest.mark.parametrize("speed", ["balanced", "fast", "realtime"])
@pytest.mark.parametrize(
    ("tokens", "mask_steps", "refresh"), [(64, 3, 4), (65, 3, 1), (64, 2, 4), (65, 2, 4), (65, None, None)]
)
def test_no_speed_reuses_work_over_many_steps_of_many_tokens(
    speed: Speed, tokens: int, mask_steps: int | None, refresh: int | None
) -> None:
    own = Sampling(mask_steps=16, denoise_steps=20)
    made = Sampling(speed, mask_steps=mask_steps).resolve(EPSILON, own, tokens)
    assert made.refresh == (refresh or {"realtime": 4}.get(speed, 1)), "2 mask steps at realtime, else 4"
    assert made.mask_steps == (mask_steps or round(16 * SPEEDS[speed].mask_share))
    assert Sampling(speed, refresh=2).resolve(EPSILON, own, 256).refresh == 2, "what is asked for is done"
    assert Sampling(speed).resolve(EPSILON, Sampling.of(own, refresh=3), 256).refresh >= 3, "or is the model's own"


@pytest.mark.parametrize(("mask_steps", "denoise_steps"), [(64, 100), (8, 20), (8, 10), (1, 1)])
def test_each_speed_is_at_most_as_much_work_as_the_one_before(mask_steps: int, denoise_steps: int) -> None:
    own = Sampling(mask_steps=mask_steps, denoise_steps=denoise_steps)
    made = [Sampling(speed).resolve(EPSILON, own) for speed in SPEEDS]
    costs = [(one.mask_steps, one.denoise_steps) for one in made]
    assert costs == sorted(costs, reverse=True) and costs[0] == (mask_steps, denoise_steps)
    assert all(sum(unmasking_schedule(256, mask)) == 256 for mask, _ in costs)


def test_the_temperature_falls_with_the_frame() -> None:
    falling = Sampling(temperature=1.0, last_temperature=0.9).resolve(EPSILON, OWN)
    found = [falling.at_frame(number).temperature for number in range(6)]
    assert found == pytest.approx([0.9 + 10.0 ** -(number + 1) for number in range(6)]), "VideoMAR's"
    constant = Sampling(temperature=0.7).resolve(EPSILON, OWN)
    assert constant.at_frame(5) is constant
    assert falling.at_frame(3).at_frame(9) == falling.at_frame(3), "it is that frame's"


def test_a_frame_is_generated_at_its_own_temperature(make_model: Callable[..., MagiVideoTransformer]) -> None:
    model, found = make_model(), []
    sample = model.diffusion_head.sample

    def watched(z: Tensor, noise: SampleNoise, **options: Any) -> Tensor:
        found.append((options["temperature"], options["denoise_steps"]))
        return sample(z, noise, **options)

    model.diffusion_head.sample = watched  # type: ignore[method-assign]
    asked = Sampling(mask_steps=4, denoise_steps=10, last_denoise_steps=1, temperature=1.0, last_temperature=0.5)
    rollout = Rollout(model, make_paradigm("complete"), SampleNoise.from_seeds([0]), asked, torch.ones(1).long(), 5)
    rollout.observe(torch.randn(1, model.num_tokens, model.token_dim))
    for _ in range(3):
        rollout.predict()
    assert [temperature for temperature, _ in found] == pytest.approx([1.0] * 4 + [0.55] * 4 + [0.505] * 4)
    assert [steps for _, steps in found] == [10, 7, 4, 1] * 3


def test_denoise_steps_fall_over_the_mask_steps() -> None:
    disa = Sampling(mask_steps=64, denoise_steps=50, last_denoise_steps=5).resolve(EPSILON)
    found = [disa.denoise_steps_at(step, 64) for step in range(64)]
    # DiSA's own words, over its list of steps 5, 6, …, 50.
    assert found == [list(range(5, 51))[int((63 - step) / 63 * 45)] for step in range(64)]
    assert disa.denoise_steps_at(0, 1) == 50
    assert Sampling().resolve(EPSILON, OWN).denoise_steps_at(7, 8) == 20
    fewer = Sampling("realtime").resolve(EPSILON, Sampling(mask_steps=8, denoise_steps=20, last_denoise_steps=12))
    assert (fewer.denoise_steps, fewer.last_denoise_steps) == (8, 8), "a model's own are for its own steps"
    with pytest.raises(MagiError, match="last_denoise_steps must be at most 20 denoise steps, got 21"):
        Sampling(last_denoise_steps=21).resolve(EPSILON, OWN)
    with pytest.raises(MagiError, match="a positive multiple of 2 for midpoint"):
        Sampling(sampler="midpoint", denoise_steps=8, last_denoise_steps=2).resolve(FLOW)
    with pytest.raises(MagiError, match="1 denoise step"):
        Sampling(last_denoise_steps=2).resolve(CategoricalHead(3, 4, 8))
    with pytest.raises(MagiError, match="no mask steps, so last_denoise_steps means nothing"):
        make_paradigm("diffusion").check_sampling(Sampling(last_denoise_steps=2))
