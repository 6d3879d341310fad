"""Raster order: what a token depends on, the caches of both builds, and what must not pass for a raster model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from magi_video.fast.speed import begin_past, restore
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import MASKED, FrameSequence, causal_mask
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, CompleteTeacherForcing, NoiseInjection, Raster
from magi_video.sampling.raster import raster_mask, shift, starts
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling

T, N, D = 5, 16, 12
CLEAN = NoiseInjection(levels=0)
BUILDS = ["factorised", "flat"]
SETTINGS = Sampling(denoise_steps=4)


def make_clip(tokens_BTND: Tensor) -> Clip:
    return Clip(tokens_BTND, torch.ones(len(tokens_BTND), dtype=torch.long))


def reached(model: MagiVideoTransformer, sequence_of: Callable[[Tensor], FrameSequence], outputs: int) -> Tensor:
    """`[T, N, T, N]`: by gradient in float64, which tokens of a clip (columns) the outputs depend on."""
    model = restore(model).double()
    tokens = torch.randn(1, T, N, D, dtype=torch.float64, requires_grad=True)
    z = model(sequence_of(tokens))[:, -outputs:]
    found, weight_W = torch.zeros(T, N, T, N, dtype=torch.bool), torch.randn(z.shape[-1], dtype=torch.float64)
    for t in range(T):
        for i in range(N):
            (gradient,) = torch.autograd.grad(z[0, t, i] @ weight_W, tokens, retain_graph=True)
            found[t, i] = gradient[0].abs().amax(-1) > 0
    return found


def exactly() -> Tensor:
    """All of the frames before, and the tokens before it in its own: written out, not taken from the code."""
    expected = torch.zeros(T, N, T, N, dtype=torch.bool)
    for t in range(T):
        for i in range(N):
            expected[t, i, :t] = True
            expected[t, i, t, :i] = True
    return expected


@pytest.mark.parametrize("attention", BUILDS)
def test_a_token_depends_on_the_frames_before_and_the_tokens_before_and_on_nothing_else(
    attention: str, model: MagiVideoTransformer
) -> None:
    raster = Raster(exposure=CLEAN, attention=attention)
    everything = torch.ones(1, T, N, dtype=torch.bool)
    found = reached(model, lambda tokens: raster.sequence(make_clip(tokens), everything), T)
    assert torch.equal(found, exactly())
    assert torch.equal(raster.visible(everything[0]), exactly())


def test_causal_in_time_and_in_space_with_one_sequence_is_not_raster_order(model: MagiVideoTransformer) -> None:
    """The build that looks natural: a token sees, of the past, the tokens before its own place alone."""

    def crippled(tokens: Tensor) -> FrameSequence:
        one = Raster(exposure=CLEAN).sequence(make_clip(tokens), torch.ones(1, T, N, dtype=torch.bool))
        conditions = {name: value[:, T:] for name, value in one.conditions.items()}
        return FrameSequence(
            shift(tokens, False), starts(tokens.shape, False, tokens.device), torch.full((T,), MASKED),
            torch.arange(T), one.interval_B, conditions, causal_mask(T), raster_mask(N).expand(T, -1, -1),
        )  # fmt: skip

    found = reached(model, crippled, T)
    assert not torch.equal(found, exactly())
    assert not found[3, 0].any(), "its first token sees nothing of the past"
    assert found[3, 9, 2].tolist() == [j < 9 for j in range(N)]


@pytest.mark.parametrize("attention", BUILDS)
def test_conditions_reach_their_own_frame_and_later_ones_alone(
    attention: str, model: MagiVideoTransformer, clip: Clip
) -> None:
    raster, everything = Raster(exposure=CLEAN, attention=attention), torch.ones(2, T, N, dtype=torch.bool)
    with torch.no_grad():
        before = model(raster.sequence(clip, everything))
        actions = clip.conditions["action"].clone()
        actions[:, 2] += 1
        changed = Clip(clip.tokens_BTND, clip.interval_B, {"action": actions})
        moved = (model(raster.sequence(changed, everything)) - before).abs().amax((0, 3)) > 1e-6
    assert torch.equal(moved, (torch.arange(T) >= 2)[:, None].expand(T, N))


def test_with_one_token_a_frame_it_is_complete_teacher_forcing(make_model: Callable[..., MagiVideoTransformer]) -> None:
    model = make_model(latent_height=2, latent_width=2)
    clip, masked = make_clip(torch.randn(2, T, 1, D)), torch.ones(2, T, 1, dtype=torch.bool)
    raster, complete = Raster(exposure=CLEAN), CompleteTeacherForcing(exposure=CLEAN)
    with torch.no_grad():
        z_raster, z_complete = (model(one.sequence(clip, masked)) for one in (raster, complete))
        assert torch.allclose(z_raster, z_complete, atol=1e-6)
        given = torch.randn(2, 1, D)
        made = []
        for one in (raster, complete):
            noise = SampleNoise.from_seeds([1, 2])
            one_step = Sampling(mask_steps=1, denoise_steps=4)
            rollout = Rollout(model, one, noise, one_step, torch.ones(2, dtype=torch.long), 4)
            rollout.observe(given)
            made.append(torch.stack([rollout.predict() for _ in range(3)]))
    # The order of one token is still drawn from each sample's generator by masked generation.
    assert made[0].shape == made[1].shape
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    for one in seeds:
        torch.randperm(1, generator=one)
    assert torch.allclose(z_raster[:, 1], z_complete[:, 1], atol=1e-6)


@pytest.mark.parametrize("temporal_position", ["interpolate", "rope"])
@pytest.mark.parametrize("attention", BUILDS)
def test_one_place_a_pass_gives_what_training_computes_in_parallel(
    attention: str, temporal_position: str, make_model: Callable[..., MagiVideoTransformer], clip: Clip
) -> None:
    model, raster = make_model(temporal_position=temporal_position), Raster(exposure=CLEAN, attention=attention)
    with torch.no_grad():
        z = model(raster.sequence(clip, torch.ones(2, T, N, dtype=torch.bool)))
        for past in (
            raster.make_past(model, 2, T), raster.make_recomputed_past(model), begin_past(raster, model, 2, T, SETTINGS)
        ):  # fmt: skip
            for t in range(T):
                frame = FrameSequence(
                    clip.tokens_BTND[:, t : t + 1].clone(), torch.zeros(2, 1, N, dtype=torch.bool),
                    torch.tensor([MASKED]), torch.tensor([float(t)]), clip.interval_B,
                    {"action": clip.conditions["action"][:, t : t + 1], "noise_level": torch.zeros(2, 1).long()},
                )  # fmt: skip
                if t > 1:  # the first two are given, and never read place by place
                    for i in range(N):
                        read = past.read(frame, torch.full((2, 1), i))
                        assert torch.allclose(read[:, 0], z[:, t, i], atol=1e-5), (type(past).__name__, t, i)
                frame.kind_S = torch.tensor([raster.cached_kind])
                past.append(frame)


@pytest.mark.parametrize("temporal_position", ["interpolate", "rope"])
@pytest.mark.parametrize("attention", BUILDS)
def test_a_frame_that_is_changed_afterwards_is_read_again(
    attention: str, temporal_position: str, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    """As a callback of the pipeline may; and a stream slides over more frames than training had."""
    model, raster = make_model(temporal_position=temporal_position), Raster(attention=attention)
    frames = None if temporal_position == "rope" else 8
    made = []
    for past in (raster.make_past(model, 1, frames), raster.make_recomputed_past(model)):
        noise = SampleNoise.from_seeds([3])
        rollout = Rollout(model, raster, noise, SETTINGS, torch.ones(1, dtype=torch.long), frames, past=past)
        steps = []
        for t in range(8):
            tokens = rollout.predict()
            steps.append(tokens.clone())
            if t == 2:
                tokens[:, 3] = 1.0
        made.append(torch.stack(steps))
    assert torch.allclose(made[0], made[1], atol=1e-4)
