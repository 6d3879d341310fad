"""A window of fixed length: what it is made of, and what it refuses."""

from collections.abc import Callable

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import MASKED, OBSERVATION
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, NoiseInjection, Window
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling

SETTINGS = Sampling(mask_steps=3, denoise_steps=4)


def test_every_window_of_a_clip_is_drawn_alike_with_its_own_conditions() -> None:
    tokens = torch.arange(7.0)[None, :, None, None].expand(400, 7, 2, 3)
    clip = Clip(tokens, torch.ones(400, dtype=torch.long), {"action": tokens[:, :, 0]})
    drawn = Window(context=2).draw_window(clip, torch.Generator().manual_seed(0))
    assert drawn.tokens_BTND.shape == (400, 3, 2, 3)
    assert torch.equal(drawn.tokens_BTND[:, :, 0], drawn.conditions["action"])
    assert torch.equal(drawn.tokens_BTND[:, :, 0, 0].diff(dim=1), torch.ones(400, 2)), "frames one after the other"
    counts = torch.bincount(drawn.tokens_BTND[:, 0, 0, 0].long(), minlength=5)
    assert len(counts) == 5 and counts.min() > 50


def test_context_has_one_noise_level_and_the_new_frame_none(model: MagiVideoTransformer, clip: Clip) -> None:
    window = Window(context=4)
    masked = window.draw_masks(clip, torch.Generator().manual_seed(0))
    assert not masked[:, :4].any() and masked[:, 4].float().mean() > 0.6
    sequence = window.sequence(window.show_past(model, clip, torch.Generator().manual_seed(5)), masked)
    level = sequence.conditions["noise_level"]
    assert (level[:, :4] == level[:, :1]).all() and not level[:, 4].any() and level[:, 0].max() > 0
    assert torch.equal(sequence.tokens_BSND[:, 4], clip.tokens_BTND[:, 4])
    assert sequence.kind_S.tolist() == [OBSERVATION] * 4 + [MASKED]


def roll(model: MagiVideoTransformer, context: int, given: torch.Tensor, frames: int) -> torch.Tensor:
    noise = SampleNoise.from_seeds(list(range(given.shape[1])))
    rollout = Rollout(model, Window(context=context), noise, SETTINGS, torch.ones(given.shape[1]).long(), 12)
    for tokens in given:
        rollout.observe(tokens)
    return torch.stack([rollout.predict() for _ in range(frames)])


def test_what_is_before_the_window_is_never_read(model: MagiVideoTransformer) -> None:
    given = torch.randn(4, 1, 16, 12)
    changed = given.clone()
    changed[0] += 3
    assert torch.equal(roll(model, 3, given, 2), roll(model, 3, changed, 2))
    assert not torch.allclose(roll(model, 4, given, 1), roll(model, 4, changed, 1))


def test_the_window_stands_still_in_time(model: MagiVideoTransformer) -> None:
    """The same frames in the window make the same frame, however long the video is already."""
    given = torch.randn(3, 1, 16, 12)
    assert torch.equal(roll(model, 3, given, 1), roll(model, 3, torch.cat([torch.randn(5, 1, 16, 12), given]), 1))


def test_too_few_frames_are_refused_and_it_is_said_why(model: MagiVideoTransformer, clip: Clip) -> None:
    for given in (0, 2):
        with pytest.raises(MagiError, match=rf"from the 3 before it.*give 3 or more, got {given}"):
            Window(context=3).check_context(given, None)
    Window(context=3).check_context(3, None)
    with pytest.raises(MagiError, match=r"clips of 6 frames or more, got clips of 5: give --forcing-options context 4"):
        Window(context=5).loss(model, clip)


def test_loss_is_of_the_new_frame_alone(make_model: Callable[..., MagiVideoTransformer], clip: Clip) -> None:
    model = make_model()
    model.diffusion_head.loss = lambda target, z, uniform, eps: target.sum(-1).expand_as(uniform)  # type: ignore[method-assign, assignment]
    window = Window(exposure=NoiseInjection(5, 50.0), context=4)
    loss, tokens = window.total_loss(model, clip, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    masked = window.draw_masks(window.draw_window(clip, generator), generator)[:, -1]
    assert tokens == masked.sum()
    assert torch.allclose(loss, clip.tokens_BTND[:, -1][masked].sum(), atol=1e-4)
