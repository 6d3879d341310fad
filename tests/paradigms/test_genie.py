"""Genie's masks: one rate a clip, the first frame shown and not learned."""

import pytest
import torch
from scipy import stats

from magi_video.errors import MagiError
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, Genie, NoiseInjection
from magi_video.presets import load_preset


def masks(clips: int, frames: int, tokens: int, **options: float) -> torch.Tensor:
    clip = Clip(torch.zeros(clips, frames, tokens, 1), torch.ones(clips, dtype=torch.long))
    return Genie(**options).draw_masks(clip, torch.Generator().manual_seed(0))


def test_a_clip_has_one_rate_from_a_half_to_one() -> None:
    masked = masks(400, 5, 1000)
    rates = masked[:, 1:].float().mean((1, 2))
    assert stats.kstest(rates.numpy(), stats.uniform(0.5, 0.5).cdf).pvalue > 0.01
    frames = masked[:, 1:].float().mean(2)
    spread = (frames - rates[:, None]).square().mean(1) / (rates * (1 - rates) / 1000)
    assert 0.5 < spread.nanmedian() < 1.5, "frames of a clip differ by Bernoulli draws alone"


def test_the_first_frame_is_shown_and_has_no_loss(model: MagiVideoTransformer, clip: Clip) -> None:
    forcing = Genie(exposure=NoiseInjection(levels=0))
    masked = forcing.draw_masks(clip, torch.Generator().manual_seed(4))
    assert not masked[:, 0].any() and masked[:, 1:].any()
    model.diffusion_head.loss = lambda target, z, uniform, eps: target.sum(-1).expand_as(uniform)  # type: ignore[method-assign, assignment]
    loss = forcing.loss(model, clip, torch.Generator().manual_seed(4))
    assert torch.allclose(loss, clip.tokens_BTND[masked].sum(-1).mean(), atol=1e-5)


def test_every_clip_has_something_to_learn() -> None:
    masked = masks(50, 2, 3, mask_rate_min=0.0)
    assert masked.any((1, 2)).all() and not masked[:, 0].any()


def test_a_rate_that_is_none_and_clips_of_one_frame_are_refused() -> None:
    with pytest.raises(MagiError, match="mask_rate_min must lie in 0…1, got"):
        Genie(mask_rate_min=1.5)
    with pytest.raises(MagiError, match="genie learns from clips of 2 frames or more, got clips of 1"):
        Genie().check_clip(1)


def test_the_first_frame_must_be_given() -> None:
    with pytest.raises(MagiError, match="never learned a first frame"):
        Genie().check_context(0, 4)
    Genie().check_context(1, 4)


def test_it_makes_frames_in_25_steps_unless_a_recipe_says_otherwise() -> None:
    assert load_preset("ucf101").own_sampling.mask_steps == 64
    assert load_preset("ucf101", forcing="genie").own_sampling.mask_steps == 25
