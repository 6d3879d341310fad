"""What sees what, by perturbation and by gradient: the heart of the paper."""

import pytest
import torch

from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import (
    Clip,
    CompleteTeacherForcing,
    MaskedFrames,
    MaskedTeacherForcing,
    MaskRatio,
    NoiseInjection,
)
from magi_video.paradigms.complete import complete_mask

T = 5
CLEAN = NoiseInjection(levels=0)


def hidden(clip: Clip) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return MaskRatio().draw(2, T, 16, generator, "cpu")


def outputs(
    forcing: MaskedFrames, model: MagiVideoTransformer, clip: Clip, hidden_BTN: torch.Tensor, conditions: bool = True
) -> torch.Tensor:
    training = forcing.sequence(clip, hidden_BTN)
    return model(training)


def changed_frames(before: torch.Tensor, after: torch.Tensor) -> list[bool]:
    return [(before[:, t] - after[:, t]).abs().max().item() > 1e-5 for t in range(T)]


@pytest.mark.parametrize("t", range(T))
def test_ctf_masked_frame_sees_only_complete_frames_before_it(model: MagiVideoTransformer, clip: Clip, t: int) -> None:
    forcing = CompleteTeacherForcing(exposure=CLEAN)
    hidden_BTN = hidden(clip)
    training = forcing.sequence(clip, hidden_BTN)
    before = model(training)
    # Change the complete frame o_t alone: m_1…m_t must stay, m_{t+1}…m_T must change.
    training.tokens_BSND = training.tokens_BSND.clone()
    training.tokens_BSND[:, t] += 1.0
    after = model(training)
    assert changed_frames(before, after) == [s > t for s in range(T)]


@pytest.mark.parametrize("t", range(T))
def test_ctf_masked_frames_do_not_see_each_other(model: MagiVideoTransformer, clip: Clip, t: int) -> None:
    forcing = CompleteTeacherForcing(exposure=CLEAN)
    training = forcing.sequence(clip, hidden(clip))
    before = model(training)
    training.tokens_BSND = training.tokens_BSND.clone()
    training.tokens_BSND[:, T + t] += 1.0  # m_t: its visible tokens change
    visible = (~training.masked_BSN[:, T + t]).any()
    after = model(training)
    assert changed_frames(before, after) == [s == t and bool(visible) for s in range(T)]


def test_ctf_observations_see_no_masked_frame_and_no_future(model: MagiVideoTransformer, clip: Clip) -> None:
    mask = complete_mask(T)
    assert not mask[:T, T:].any(), "observations never see masked frames"
    assert torch.equal(mask[:T, :T], torch.ones(T, T).tril().bool())
    assert torch.equal(mask[T:, :T], torch.ones(T, T).tril(-1).bool()), "m_t sees o_1…o_{t−1}, not o_t"
    assert torch.equal(mask[T:, T:], torch.eye(T).bool())
    assert mask.any(dim=1).all(), "no row may be empty: softmax over nothing is NaN"


@pytest.mark.parametrize("t", range(T))
def test_ctf_gradient_reaches_the_past_alone(model: MagiVideoTransformer, clip: Clip, t: int) -> None:
    training = CompleteTeacherForcing(exposure=CLEAN).sequence(clip, hidden(clip))
    tokens = training.tokens_BSND.clone().requires_grad_()
    training.tokens_BSND = tokens
    model(training)[:, t].square().sum().backward()
    assert tokens.grad is not None
    reached = [(tokens.grad[:, s].abs().max() > 0).item() for s in range(2 * T)]
    assert reached[:T] == [s < t for s in range(T)]
    assert not any(reached[T + s] for s in range(T) if s != t)


@pytest.mark.parametrize("t", range(T))
def test_mtf_sees_visible_tokens_of_the_past_and_itself(model: MagiVideoTransformer, clip: Clip, t: int) -> None:
    forcing = MaskedTeacherForcing(exposure=CLEAN)
    hidden_BTN = hidden(clip)
    hidden_BTN[:, :, 0] = False  # one visible token a frame, so that every frame has something to say
    before = outputs(forcing, model, clip, hidden_BTN)
    visible = clip.tokens_BTND.clone()
    visible[:, t] += (~hidden_BTN[:, t, :, None]).float()
    after = outputs(forcing, model, Clip(visible, clip.interval_B, clip.conditions), hidden_BTN)
    assert changed_frames(before, after) == [s >= t for s in range(T)]


@pytest.mark.parametrize("forcing", [CompleteTeacherForcing(exposure=CLEAN), MaskedTeacherForcing(exposure=CLEAN)])
def test_masked_tokens_are_never_read(forcing: MaskedFrames, model: MagiVideoTransformer, clip: Clip) -> None:
    training = forcing.sequence(clip, hidden(clip))
    before = model(training)
    training.tokens_BSND = training.tokens_BSND.masked_fill(training.masked_BSN[..., None], 1e6)
    assert torch.equal(before, model(training))


@pytest.mark.parametrize("forcing", [CompleteTeacherForcing(), MaskedTeacherForcing()])
def test_building_a_sequence_leaves_the_clip_alone(
    forcing: MaskedFrames, model: MagiVideoTransformer, clip: Clip
) -> None:
    tokens, actions = clip.tokens_BTND.clone(), clip.conditions["action"].clone()
    forcing.sequence(forcing.show_past(model, clip, torch.Generator().manual_seed(0)), hidden(clip))
    assert torch.equal(tokens, clip.tokens_BTND) and torch.equal(actions, clip.conditions["action"])
    assert set(clip.conditions) == {"action"}
