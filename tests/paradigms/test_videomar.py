"""VideoMAR's masks: one frame is learned, the ones before it are complete, the ones after it hidden."""

import math

import torch

from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.sequence import MASKED, OBSERVATION
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, CompleteTeacherForcing, NoiseInjection, VideoMAR

T, N = 5, 16


def masks(clips: int) -> torch.Tensor:
    clip = Clip(torch.zeros(clips, T, N, 1), torch.ones(clips, dtype=torch.long))
    return VideoMAR().draw_masks(clip, torch.Generator().manual_seed(0))


def test_one_frame_is_learned_the_ones_before_are_complete_and_the_ones_after_hidden() -> None:
    masked = masks(500)
    learned = VideoMAR().counted(masked)
    frame = learned.any(-1).float().argmax(1)
    assert torch.equal(learned.any(-1).sum(1), torch.ones(500, dtype=torch.long))
    counts = torch.bincount(frame, minlength=T)
    assert (counts - 100).abs().max() < 40, "every frame, the first one too"
    for one, f in zip(masked, frame, strict=True):
        assert not one[:f].any() and one[f + 1 :].all()
        assert one[f].sum() >= math.ceil(0.7 * N)


def test_observations_alone_are_noised(model: MagiVideoTransformer) -> None:
    clip = Clip(torch.randn(8, T, N, 3), torch.ones(8, dtype=torch.long))
    forcing = VideoMAR(exposure=NoiseInjection(5, 0.7))
    masked = forcing.draw_masks(clip, torch.Generator().manual_seed(1))
    sequence = forcing.sequence(forcing.show_past(model, clip, torch.Generator().manual_seed(2)), masked)
    observed = ~masked.any(-1)
    assert torch.equal(sequence.kind_S == OBSERVATION, observed) and torch.equal(sequence.kind_S == MASKED, ~observed)
    level = sequence.conditions[NOISE_LEVEL]
    moved = (sequence.tokens_BSND - clip.tokens_BTND).abs().amax((2, 3)) > 0
    assert torch.equal(moved, level > 0) and not level[~observed].any() and level.any()


def test_the_learned_frames_state_is_that_of_complete_teacher_forcing(model: MagiVideoTransformer, clip: Clip) -> None:
    """The same conditioning with T frames in place of 2T: z of frame f is the same to rounding."""
    silent, frames = NoiseInjection(levels=0), set()
    forcing = VideoMAR(exposure=silent)
    for seed in range(4):
        masked = forcing.draw_masks(clip, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            z = model(forcing.sequence(clip, masked))
            complete = model(CompleteTeacherForcing(exposure=silent).sequence(clip, masked))
        for b, f in enumerate(forcing.counted(masked).any(-1).float().argmax(1).tolist()):
            assert torch.allclose(z[b, f], complete[b, f], atol=1e-5)
            frames.add(f)
    assert len(frames) > 2
