"""Generation by models trained under a cure: with a canvas, and with noise in the past."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.exposure.noisy_past import check_noisy_past
from magi_video.fast.graph_engine import not_covered
from magi_video.fast.job import Job
from magi_video.fast.speed import begin_past
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Paradigm, make_paradigm
from magi_video.sampling.past import Past
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling

Make = Callable[..., MagiVideoTransformer]
N, D = 16, 12
STEPS = Sampling(mask_steps=3, denoise_steps=4)


def roll(
    paradigm: Paradigm, model: MagiVideoTransformer, sampling: Sampling, past: Past | None = None, given: int = 1
) -> Tensor:
    """Three frames after some given ones, `[B, 3, N, D]`."""
    noise = SampleNoise.from_seeds([1, 2])
    rollout = Rollout(model, paradigm, noise, sampling, torch.ones(2, dtype=torch.long), given + 3, past=past)
    start = torch.randn(2, given, N, D, generator=torch.Generator().manual_seed(9))
    for t in range(given):
        rollout.observe(start[:, t].clone())
    return torch.stack([rollout.predict() for _ in range(3)], dim=1)


def pasts(paradigm: Paradigm, model: MagiVideoTransformer, sampling: Sampling, frames: int) -> list[Past]:
    rows = 4 if sampling.complete().guided else 2
    return [
        paradigm.make_past(model, rows, frames),
        paradigm.make_recomputed_past(model),
        begin_past(paradigm, model, 2, frames, sampling.complete()),
    ]


@pytest.mark.parametrize("forcing", ["complete", "videomar", "window"])
@pytest.mark.parametrize("guided", [False, True])
def test_a_canvas_is_the_same_over_every_past_and_costs_one_pass_a_frame(
    forcing: str, guided: bool, make_model: Make
) -> None:
    model, paradigm = make_model(canvas=True), make_paradigm(forcing)
    given = paradigm.given_frames
    sampling = Sampling.of(STEPS, **({"guidance_scale": 2.0, "guide": ("action",)} if guided else {}))
    painted: list[int] = []
    assert model.canvas_out is not None
    model.canvas_out.register_forward_hook(lambda module, given, made: painted.append(len(made)))
    frames = [roll(paradigm, model, sampling, past, given) for past in pasts(paradigm, model, sampling, given + 3)]
    assert painted == [4 if guided else 2] * 9, "once for each frame, for both halves of guidance"
    for other in frames[1:]:
        assert torch.allclose(frames[0], other, atol=1e-4)
    for weight in model.canvas_out.parameters():
        torch.nn.init.zeros_(weight)
    assert not torch.allclose(roll(paradigm, model, sampling, None, given), frames[0], atol=1e-2)


def test_graphs_are_not_for_a_model_that_paints(make_model: Make) -> None:
    sampling = STEPS.resolve(make_model().diffusion_head)
    assert not_covered(Job(make_paradigm("complete"), make_model(), None, sampling)) is None
    assert "canvas" in str(not_covered(Job(make_paradigm("complete"), make_model(canvas=True), None, sampling)))


@pytest.mark.parametrize("forcing", ["complete", "masked", "window"])
def test_the_past_has_a_level_and_noise(forcing: str, make_model: Make) -> None:
    model, paradigm = make_model(), make_paradigm(forcing)
    given = paradigm.given_frames
    plain = roll(paradigm, model, STEPS, given=given)
    silent = Sampling.of(STEPS, past_level=0, past_noise=0.0)
    assert torch.equal(plain, roll(paradigm, model, silent, given=given)), "0 is no change, to the bit"
    told, noised = Sampling.of(STEPS, past_level=3), Sampling.of(STEPS, past_level=3, past_noise=0.42)
    made = [roll(paradigm, model, one, given=given) for one in (told, noised)]
    assert not torch.allclose(made[0], plain, atol=1e-3) and not torch.allclose(made[0], made[1], atol=1e-3)
    for sampling, frames in ((told, made[0]), (noised, made[1])):
        for past in pasts(paradigm, model, sampling, given + 3):
            assert torch.allclose(roll(paradigm, model, sampling, past, given), frames, atol=1e-4)


def test_noise_is_in_the_past_and_never_in_the_frames_that_are_given_back(model: MagiVideoTransformer) -> None:
    class Watched:
        """Remembers what enters the past."""

        def __init__(self, past: Past) -> None:
            self.past, self.frames = past, list[FrameSequence]()

        def append(self, frame: FrameSequence) -> None:
            self.frames.append(frame)
            self.past.append(frame)

        def __getattr__(self, name: str) -> object:
            return getattr(self.past, name)

    paradigm, past = make_paradigm("complete"), Watched(make_paradigm("complete").make_past(model, 2, 4))
    frames = roll(paradigm, model, Sampling.of(STEPS, past_level=2, past_noise=0.5), past)  # type: ignore[arg-type]
    entered = torch.cat([one.tokens_BSND for one in past.frames], dim=1)[:, 1:]  # but the given one
    difference = entered - frames[:, :2]
    assert difference.std() == pytest.approx(0.5, rel=0.1) and difference.mean().abs() < 0.1
    assert all((one.conditions["noise_level"] == 2).all() for one in past.frames)


def test_levels_that_a_model_or_a_paradigm_does_not_know_are_refused(make_model: Make) -> None:
    with pytest.raises(MagiError, match=r"past_level must lie in 0…5, .* got 6"):
        check_noisy_past(make_model(), make_paradigm("complete"), Sampling(past_level=6))
    with pytest.raises(MagiError, match=r"past_noise needs a past_level, 1…5"):
        check_noisy_past(make_model(), make_paradigm("complete"), Sampling(past_noise=0.1))
    for forcing in PARADIGMS:
        paradigm, model = make_paradigm(forcing), make_model(forcing=forcing)
        for asked in (Sampling(past_level=1), Sampling(past_level=0, past_noise=0.1)):
            if paradigm.past == "noisy":
                with pytest.raises(MagiError, match=f"{forcing} takes no noise in the past"):
                    check_noisy_past(model, paradigm, asked)
            else:
                check_noisy_past(model, paradigm, asked)
        check_noisy_past(model, paradigm, Sampling())
    with pytest.raises(MagiError, match="raster takes no noise"):
        check_noisy_past(make_model(), make_paradigm("raster", {"attention": "flat"}), Sampling(past_level=1))
