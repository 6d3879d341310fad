"""Mask ratios and noise injection: the stated distributions, switched off when asked."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats

from magi_video.fast.padding import padded
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.sequence import MASKED, OBSERVATION
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip, CompleteTeacherForcing, MaskRatio, NoiseInjection


def test_mask_ratio_is_a_truncated_normal_and_drawn_for_every_frame() -> None:
    tokens = 1000
    hidden = MaskRatio(0.7, 0.25).draw(40, 100, tokens, torch.Generator().manual_seed(0), "cpu")
    ratios = hidden.float().mean(-1)
    assert ratios.min() >= 0.7 and ratios.max() <= 1.0
    assert ratios.std(dim=1).min() > 0.03, "one ratio for a whole clip would not vary along it"
    expected = stats.truncnorm((0.7 - 1) / 0.25, 0, loc=1, scale=0.25)
    assert stats.kstest(ratios.flatten().numpy() - 0.5 / tokens, expected.cdf).statistic < 0.03


def test_hidden_count_is_rounded_up_and_places_are_uniform() -> None:
    hidden = MaskRatio(1.0).draw(2, 3, 7, None, "cpu")
    assert hidden.all(), "ratio 1 hides everything"
    hidden = MaskRatio(0.7).draw(500, 4, 16, torch.Generator().manual_seed(1), "cpu")
    assert hidden.sum(-1).min() >= math.ceil(16 * 0.7)
    share = hidden.float().mean((0, 1))
    assert (share - share.mean()).abs().max() < 0.03


def test_noise_levels_are_uniform_and_scaled() -> None:
    tokens = torch.zeros(200, 16, 4, 8)
    noisy, level = NoiseInjection(5, 0.7).inject(tokens, torch.Generator().manual_seed(0))
    assert torch.bincount(level.flatten(), minlength=6).min() > 400
    for one in range(6):
        assert noisy[level == one].std().item() == pytest.approx(0.7 * one / 5, rel=0.03, abs=1e-6)


def test_noise_switched_off_changes_nothing(clip: Clip) -> None:
    noisy, level = NoiseInjection(levels=0).inject(clip.tokens_BTND, None)
    assert torch.equal(noisy, clip.tokens_BTND) and not level.any()


def test_ctf_noises_observations_alone_and_reports_the_level(model: MagiVideoTransformer, clip: Clip) -> None:
    hidden = MaskRatio().draw(2, 5, 16, torch.Generator().manual_seed(0), "cpu")
    forcing = CompleteTeacherForcing()
    sequence = forcing.sequence(forcing.show_past(model, clip, torch.Generator().manual_seed(0)), hidden)
    level = sequence.conditions[NOISE_LEVEL]
    difference = (sequence.tokens_BSND[:, :5] - clip.tokens_BTND).abs().amax((2, 3))
    assert torch.equal(difference > 0, level[:, :5] > 0)
    assert torch.equal(sequence.tokens_BSND[:, 5:], clip.tokens_BTND) and not level[:, 5:].any()
    assert sequence.kind_S.tolist() == [OBSERVATION] * 5 + [MASKED] * 5
    assert sequence.position_S.tolist() == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize("name", PARADIGMS)
def test_loss_is_reproducible_and_reaches_every_parameter(
    name: str, make_model: Callable[..., MagiVideoTransformer], clip: Clip
) -> None:
    model, forcing = make_model(forcing=name), PARADIGMS[name]()
    first = forcing.loss(model, clip, torch.Generator().manual_seed(7))
    assert torch.equal(first, forcing.loss(model, clip, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, forcing.loss(model, clip, torch.Generator().manual_seed(6)))
    first.backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    unused = {"mask_token"} if forcing.past == "noisy" else set()  # frames that are noised have no mask token
    assert without - {"condition_tokens.embed.action.unknown"} == unused, "an unknown token learns only when dropped"


def test_target_is_the_clean_token_whatever_noise_does(model: MagiVideoTransformer, clip: Clip) -> None:
    """Trap: a target read after masking or noise. The loss must follow the clip's own tokens."""
    seen = []
    head = model.diffusion_head
    original = head.loss
    head.loss = lambda target, z, *rest: (seen.append(target.clone()), original(target, z, *rest))[1]  # type: ignore[method-assign, assignment]
    CompleteTeacherForcing(MaskRatio(1.0), NoiseInjection(5, 50.0)).loss(model, clip, torch.Generator().manual_seed(0))
    assert torch.equal(seen[0], clip.tokens_BTND.flatten(0, 2))


def test_loss_is_the_mean_over_hidden_tokens_alone(model: MagiVideoTransformer, clip: Clip) -> None:
    """Visible tokens must not enter it."""
    model.diffusion_head.loss = lambda target, z, uniform, eps: target.sum(-1).expand_as(uniform)  # type: ignore[method-assign, assignment]
    forcing = CompleteTeacherForcing(exposure=NoiseInjection(levels=0))
    loss = forcing.loss(model, clip, torch.Generator().manual_seed(4))
    hidden = MaskRatio().draw(2, 5, 16, torch.Generator().manual_seed(4), "cpu")
    assert torch.allclose(loss, clip.tokens_BTND[hidden].sum(-1).mean(), atol=1e-5)


def test_dropped_conditions_are_unknown(model: MagiVideoTransformer) -> None:
    model.condition_tokens.specs["action"] = type(model.condition_tokens.specs["action"])(3, "vector", 0.5)
    values = {"action": torch.ones(400, 5, 3), "noise_level": torch.ones(400, 5, dtype=torch.long)}
    dropped = model.condition_tokens.drop(values, torch.Generator().manual_seed(0))
    missing = dropped["action"].isnan()
    assert 0.4 < missing.float().mean() < 0.6
    assert torch.equal(missing.any((1, 2)), missing.all((1, 2))), "whole clips"
    assert torch.equal(dropped["noise_level"], values["noise_level"]), "the noise level is never dropped"


def test_the_head_sees_few_numbers_of_tokens_and_never_many_more_than_there_are() -> None:
    sizes = [padded(count) for count in range(1, 5000)]
    assert all(count <= size <= count * 17 / 16 for count, size in enumerate(sizes, 1))
    assert len({size for size in sizes if 1024 < size <= 2048}) == 16
