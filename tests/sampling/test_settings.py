"""Speed settings: what they mean for a model, and that they cost less."""

from typing import Any

import pytest

from magi_video.errors import MagiError
from magi_video.models.epsilon import EpsilonHead
from magi_video.models.flow import FlowHead
from magi_video.paradigms.masking import unmasking_schedule
from magi_video.sampling import SETTINGS, SamplingSettings

EPSILON, FLOW = EpsilonHead(2, 4, 8, 1), FlowHead(2, 4, 8, 1)


def test_exact_is_what_the_model_was_made_for() -> None:
    paper = SamplingSettings(64, 100, "ancestral", first_step=990)
    assert SamplingSettings.of("exact", EPSILON, 64, 100) == paper
    assert SamplingSettings.of("exact", FLOW, 64, 100) == SamplingSettings(64, 100, "euler")


def test_a_models_own_first_step_is_that_of_its_default_sampler() -> None:
    def first_step(**asked: object) -> int | None:
        return SamplingSettings.of("exact", EPSILON, 8, 20, 999, **asked).first_step  # type: ignore[arg-type]

    assert first_step() == first_step(sampler="ancestral") == 999
    assert first_step(first_step=980) == 980
    assert first_step(sampler="ddim") == 950
    few = SamplingSettings.of("exact", EPSILON, 8, 20, 9, num_denoise_steps=50)
    assert few.first_step == 49, "as low as so many steps allow"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_takes_the_heads_default_sampler_or_the_one_asked_for(name: str) -> None:
    made = [SamplingSettings.of(name, head, 8, 20) for head in (EPSILON, FLOW)]
    assert [(one.sampler, one.first_step) for one in made] == [("ancestral", 990), ("euler", None)]
    other = SamplingSettings.of(name, EPSILON, 8, 20, sampler="dpmsolver++")
    assert (other.sampler, other.first_step) == ("dpmsolver++", 970)


@pytest.mark.parametrize(("head", "asked", "message"), [
    (EPSILON, {"first_step": 1000}, "first denoise step must lie in 0…999, got 1000"),
    (EPSILON, {"first_step": 5}, "20 denoise steps need a first step of at least 19, got 5"),
    (EPSILON, {"sampler": "euler"}, "unknown sampler 'euler'"),
    (FLOW, {"first_step": 990}, "a flow head has no first denoise step"),
    (FLOW, {"sampler": "midpoint", "num_denoise_steps": 7}, "a positive multiple of 2 for midpoint, got 7"),
])  # fmt: skip
def test_what_a_head_cannot_do_is_refused_with_the_settings(
    head: EpsilonHead | FlowHead, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(MagiError, match=message):
        SamplingSettings.of("exact", head, 8, 20, **asked)


@pytest.mark.parametrize(("mask_steps", "denoise_steps"), [(64, 100), (8, 20), (8, 10), (1, 1)])
def test_each_setting_is_at_most_as_much_work_as_the_one_before(mask_steps: int, denoise_steps: int) -> None:
    costs = []
    for name in SETTINGS:
        settings = SamplingSettings.of(name, EPSILON, mask_steps, denoise_steps, temperature=0.9)
        assert settings.temperature == 0.9
        costs.append((settings.num_mask_steps, settings.num_denoise_steps))
    assert costs == sorted(costs, reverse=True) and costs[0] == (mask_steps, denoise_steps)
    assert all(sum(unmasking_schedule(256, mask)) == 256 for mask, _ in costs)


def test_an_unknown_setting_lists_the_names() -> None:
    with pytest.raises(MagiError, match="exact, balanced, fast, realtime"):
        SamplingSettings.of("turbo", EPSILON, 8, 10)
