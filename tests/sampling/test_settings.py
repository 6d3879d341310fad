"""Speed settings: what they mean for a model, and that they cost less."""

import pytest

from magi_video.errors import MagiError
from magi_video.sampling import SETTINGS, SamplingSettings, unmasking_schedule


def test_exact_is_what_the_model_was_made_for() -> None:
    assert SamplingSettings.of("exact", 64, 100) == SamplingSettings(64, 100)


@pytest.mark.parametrize(("mask_steps", "denoise_steps"), [(64, 100), (8, 20), (8, 10), (1, 1)])
def test_each_setting_is_at_most_as_much_work_as_the_one_before(mask_steps: int, denoise_steps: int) -> None:
    costs = []
    for name in SETTINGS:
        settings = SamplingSettings.of(name, mask_steps, denoise_steps, temperature=0.9)
        assert settings.temperature == 0.9
        costs.append((settings.num_mask_steps, settings.num_denoise_steps))
    assert costs == sorted(costs, reverse=True) and costs[0] == (mask_steps, denoise_steps)
    assert all(sum(unmasking_schedule(256, mask)) == 256 for mask, _ in costs)


def test_an_unknown_setting_lists_the_names() -> None:
    with pytest.raises(MagiError, match="exact, balanced, fast, realtime"):
        SamplingSettings.of("turbo", 8, 10)
