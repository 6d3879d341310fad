"""All frames of a clip together: the mask, windows one after another, starts with and without frames."""

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, Joint
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling

T, N, D = 5, 16, 12
SETTINGS = Sampling(mask_steps=4, denoise_steps=4)


def test_one_cosine_ratio_over_all_later_tokens() -> None:
    clip = Clip(torch.zeros(4000, 4, 25, 1), torch.ones(4000, dtype=torch.long))
    masked = Joint(given=2, unconditional=0.0).draw_masks(clip, torch.Generator().manual_seed(0))
    assert not masked[:, :2].any() and masked.any((1, 2)).all()
    counts, most = masked.sum((1, 2)), 2 * 25
    found = torch.bincount(counts, minlength=most + 1).cumsum(0) / len(counts)
    up_to = torch.arange(1, most + 2, dtype=torch.float64) / most
    expected = 1 - 2 / torch.pi * up_to.clamp(max=1).acos()  # P(floor(M · cos(π/2 · u)) ≤ count)
    assert (found - expected)[1:].abs().max() < 0.03
    frames = masked[:, 2:].float().mean(2)
    assert (frames[:, 0] - frames[:, 1]).abs().mean() > 0.03, "places are drawn over both frames, not in each"


def test_a_share_of_the_clips_begins_with_no_frame() -> None:
    clip = Clip(torch.zeros(2000, 3, 16, 1), torch.ones(2000, dtype=torch.long))
    masked = Joint(given=1, unconditional=0.25).draw_masks(clip, torch.Generator().manual_seed(0))
    # With nothing given, the first frame keeps all of its 16 tokens only by chance.
    assert 0.18 < masked[:, 0].any(-1).float().mean() < 0.26


def rollout(model: MagiVideoTransformer, joint: Joint, seed: int, total: int | None) -> Rollout:
    return Rollout(model, joint, SampleNoise.from_seeds([seed]), SETTINGS, torch.ones(1, dtype=torch.long), total)


def test_steps_are_windows_of_which_the_last_frames_begin_the_next(model: MagiVideoTransformer) -> None:
    joint = Joint(given=2)
    made = rollout(model, joint, 0, 12)
    assert made.step_frames == T, "nothing is given"
    made.observe(torch.randn(1, N, D))
    made.observe(torch.randn(1, N, D))
    steps = []
    while made.begun < 12:
        steps.append(made.step_frames)
        made.predict_frames([{}] * steps[-1])
    assert steps == [3, 3, 3, 1]


def test_a_frame_depends_on_given_frames_and_not_on_how_many_are_asked_for(model: MagiVideoTransformer) -> None:
    joint, given = Joint(given=1), torch.randn(1, N, D)
    whole = rollout(model, joint, 1, T)
    whole.observe(given)
    four = whole.predict_frames([{}] * 4)
    part = rollout(model, joint, 1, 3)
    part.observe(given)
    assert torch.allclose(part.predict_frames([{}] * 2), four[:, :2], atol=1e-5), "a window is always read whole"
    other = rollout(model, joint, 1, T)
    other.observe(given + 1)
    assert not torch.allclose(other.predict_frames([{}] * 4)[:, 3], four[:, 3], atol=1e-2)
    assert four.std() > 0.1 and not whole._pending[0].masked_BSN.any()


def test_an_earlier_frame_depends_on_later_visible_tokens(model: MagiVideoTransformer) -> None:
    """Which no causal row may; it is what the paradigm is."""
    joint, tokens = Joint(), torch.randn(1, T, N, D)
    masked = torch.zeros(1, T, N, dtype=torch.bool)
    masked[:, 1:, ::2] = True

    def z(of: torch.Tensor) -> torch.Tensor:
        clip = Clip(of, torch.ones(1, dtype=torch.long))
        return model(joint.sequence(clip, masked))

    changed = tokens.clone()
    changed[:, 4, 1] += 1
    assert (z(changed) - z(tokens))[:, 1].abs().max() > 1e-3


def test_starts_that_were_never_learned_are_refused() -> None:
    for joint, given, message in (
        (Joint(given=3), 2, "goes on from 3 frames"), (Joint(unconditional=0), 0, "never began a clip by itself"),
    ):  # fmt: skip
        with pytest.raises(MagiError, match=message):
            joint.check_context(given, None)
    Joint(given=3).check_context(0, None)
    Joint(given=3).check_context(7, None)
    with pytest.raises(MagiError, match=r"clips of 4 frames or more, got clips of 3: give --forcing-options given 2"):
        Joint(given=3).check_clip(3)
