"""Diffusion Forcing: independent levels, one noise for transformer and head, schedules, what enters the past."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.speed import begin_past
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.epsilon import CosineHead
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, DiffusionForcing, DiffusionForcingVelocity
from magi_video.paradigms.levels import alpha_bar
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling

T, N, D = 5, 16, 12
Make = Callable[..., MagiVideoTransformer]
ROWS = [("diffusion", "epsilon", "ancestral"), ("diffusion", "epsilon", "ddim"), ("diffusion", "flow", "euler"),
        ("diffusion-v", "velocity", "ddim")]  # fmt: skip
CLASSES = {"diffusion": DiffusionForcing, "diffusion-v": DiffusionForcingVelocity}


def seen_by(model: MagiVideoTransformer) -> list[FrameSequence]:
    """The sequences that a model reads from now on."""
    sequences: list[FrameSequence] = []
    forward = model.forward

    def watched(sequence: FrameSequence, *rest: Any) -> Tensor:
        sequences.append(sequence)
        return forward(sequence, *rest)

    model.forward = watched  # type: ignore[method-assign]
    return sequences


def clips(batch: int, frames: int = T) -> Clip:
    return Clip(torch.randn(batch, frames, N, D), torch.ones(batch, dtype=torch.long))


def test_levels_of_two_frames_are_independent_and_uniform(make_model: Make) -> None:
    model = make_model(forcing="diffusion", depth=1, head_depth=1, latent_height=2, latent_width=2)
    read = seen_by(model)
    with torch.no_grad():
        clip = Clip(torch.randn(4000, 2, 1, D), torch.ones(4000, dtype=torch.long))
        DiffusionForcing().total_loss(model, clip, torch.Generator().manual_seed(0))
    level_BT = read[0].conditions[NOISE_LEVEL]
    assert level_BT.min() >= 0 and level_BT.max() <= 999
    bins = torch.zeros(10, 10).index_put_(tuple((level_BT // 100).long().T), torch.ones(4000), accumulate=True)
    assert stats.chi2_contingency(bins.numpy()).pvalue > 0.01
    assert stats.chisquare(bins.flatten().numpy()).pvalue > 0.01


@pytest.mark.parametrize("head", ["epsilon", "flow"])
def test_the_head_denoises_the_very_tokens_that_the_transformer_reads(make_model: Make, head: str) -> None:
    """Trap: z of one noise and the head's loss of another."""
    model, given = make_model(forcing="diffusion", head=head), []
    net = model.diffusion_head.net
    net.register_forward_hook(lambda _, inputs, __: given.append(inputs))
    read = seen_by(model)
    DiffusionForcing().loss(model, clips(2), torch.Generator().manual_seed(1))
    noisy, time, _ = given[0]
    assert torch.equal(noisy, read[0].tokens_BSND.flatten(0, 2))
    assert torch.equal(time, read[0].conditions[NOISE_LEVEL][..., None].expand(2, T, N).flatten())
    assert not read[0].masked_BSN.any()


@pytest.mark.parametrize("name", CLASSES)
def test_with_a_clean_past_the_loss_is_that_of_ordinary_next_frame_diffusion(
    make_model: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All levels 0 but the last frame's: a denoiser of one frame, given clean ones."""
    model, forcing = (
        make_model(forcing=name),
        CLASSES[name](**({"weights_by": "none"} if name == "diffusion-v" else {})),
    )
    head, clip = model.diffusion_head, clips(2)
    assert isinstance(head, CosineHead)
    uniform = torch.zeros(2, T)
    uniform[:, -1] = torch.tensor([0.3705, 0.8205])
    eps = torch.randn(2, T, N, D)
    draws = iter([uniform, eps])
    monkeypatch.setattr("magi_video.paradigms.diffusion.draw", lambda *_, **__: next(draws))
    total, count = forcing.total_loss(model, clip)
    assert int(count) == 2 * T * N
    # The same by hand: clean frames (of level 0) behind one noised to 370 and 820.
    level = torch.tensor([370, 820])
    ordinary = clip.tokens_BTND * head.chain(eps.device).signal[0] + eps * head.chain(eps.device).sigma[0]
    signal, sigma = alpha_bar(level).sqrt().float(), (1 - alpha_bar(level)).sqrt().float()
    ordinary[:, -1] = signal[:, None, None] * clip.tokens_BTND[:, -1] + sigma[:, None, None] * eps[:, -1]
    times = torch.zeros(2, T, dtype=torch.long)
    times[:, -1] = level
    z = model(forcing.sequence(clip, ordinary, times))
    at = uniform[..., None].expand(2, T, N)
    by_token = head.loss(clip.tokens_BTND.flatten(0, 2), z.flatten(0, 2), at.reshape(1, -1), eps.flatten(0, 2)[None])
    assert torch.allclose(total, by_token.sum(), rtol=1e-5)


def test_the_velocitys_loss_by_hand(make_model: Make) -> None:
    model, forcing, clip = make_model(forcing="diffusion-v"), DiffusionForcingVelocity(weights_by="none"), clips(1)
    read, outputs = seen_by(model), []
    model.diffusion_head.velocity.register_forward_hook(lambda _, __, output: outputs.append(output))
    loss = forcing.loss(model, clip, torch.Generator().manual_seed(2))
    signal = alpha_bar(read[0].conditions[NOISE_LEVEL]).sqrt()[..., None, None]
    sigma = (1 - signal.square()).sqrt()
    eps = (read[0].tokens_BSND - signal * clip.tokens_BTND) / sigma
    v = signal * eps - sigma * clip.tokens_BTND
    assert float(loss.detach()) == pytest.approx(float((outputs[0].view_as(v) - v).detach().square().mean()), rel=1e-3)


def roll(
    paradigm: DiffusionForcing,
    model: MagiVideoTransformer,
    sampling: Sampling,
    cached: bool | None,
    frames: int,
) -> Tensor:
    past = None
    if cached is not None:
        past = begin_past(paradigm, model, 2, frames, sampling, cached)
    interval = torch.ones(2, dtype=torch.long)
    rollout = Rollout(model, paradigm, SampleNoise.from_seeds([1, 2]), sampling, interval, frames, past=past)
    rollout.observe(torch.randn(2, N, D, generator=torch.Generator().manual_seed(0)))
    made = []
    while rollout.begun < frames:
        made.append(rollout.predict_frames([{}] * rollout.step_frames))
    return torch.cat(made, dim=1)


@pytest.mark.parametrize(("name", "head", "sampler"), ROWS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": "pyramid"},
        {"schedule": "pyramid", "uncertainty": 0.4, "horizon": 3},
        {"schedule": "full-sequence"},
    ],
)
@pytest.mark.parametrize("temporal_position", ["interpolate", "rope"])
def test_cached_recomputed_and_fast_pasts_agree_under_every_schedule(
    make_model: Make, name: str, head: str, sampler: str, options: dict[str, Any], temporal_position: str
) -> None:
    model = make_model(forcing=name, head=head, temporal_position=temporal_position)
    sampling = Sampling(denoise_steps=6, sampler=sampler)
    paradigm = CLASSES[name](**options)
    frames = 8  # more than the 5 trained: "rope" slides
    plain, recomputed, fast = (roll(paradigm, model, sampling, cached, frames) for cached in (None, False, True))
    assert plain.shape == (2, frames - 1, N, D) and plain.isfinite().all()
    assert torch.allclose(plain, recomputed, atol=1e-4) and torch.allclose(plain, fast, atol=1e-4)


def test_a_window_read_again_gives_z_to_1e_5(make_model: Make) -> None:
    """One denoise step over the cache against the whole window in one pass, as the authors read it."""
    model, paradigm = make_model(forcing="diffusion-v"), DiffusionForcingVelocity()
    sampling, outputs = Sampling(denoise_steps=4), []
    predict = model.diffusion_head.predict
    model.diffusion_head.predict = lambda x, t, z, g=None: (outputs.append(z), predict(x, t, z, g))[1]  # type: ignore[method-assign]
    for cached in (None, False):
        roll(paradigm, model, sampling, cached, 4)
    half = len(outputs) // 2
    assert half == 3 * 4, "S passes a frame"
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outputs[:half], outputs[half:], strict=True))


def test_frames_made_together_are_the_authors_window_of_mixed_levels(make_model: Make) -> None:
    """The pyramid over the cache is a loop over whole windows, frames of the past told and scaled as clean ones."""
    model, paradigm = make_model(forcing="diffusion-v", num_frames=8), DiffusionForcingVelocity(schedule="pyramid")
    sampling = Sampling(denoise_steps=5)
    made = roll(paradigm, model, sampling, None, 4)
    head, given = model.diffusion_head, torch.randn(2, N, D, generator=torch.Generator().manual_seed(0))
    levels = torch.linspace(-1, 999, 6).long()
    x = torch.cat([given[:, None], SampleNoise.from_seeds([1, 2]).normal(3, N, D)], dim=1)
    for m in range(5 + 2):
        index = torch.tensor([0, *(min(max(5 + t - m, 0), 5) for t in range(3))])
        after = torch.tensor([0, *(min(max(5 + t - m - 1, 0), 5) for t in range(3))])
        now, then = levels[index], levels[after]
        told = torch.where(now < 0, 14, now)
        scaled = torch.where((now < 0)[:, None, None], alpha_bar(torch.tensor(14)).sqrt().float() * x, x)
        with torch.no_grad():
            v = head.velocity(
                model(paradigm.sequence(Clip(x, torch.ones(2, dtype=torch.long)), scaled, told.repeat(2, 1)))
            )
        signal = alpha_bar(told).sqrt()[:, None, None].float()
        x0, eps = signal * scaled - (1 - signal**2).sqrt() * v, (1 - signal**2).sqrt() * scaled + signal * v
        moved = (
            alpha_bar(then).sqrt()[:, None, None].float() * x0
            + (1 - alpha_bar(then)).sqrt()[:, None, None].float() * eps
        )
        x = torch.where((now == then)[:, None, None], x, moved)
    assert torch.allclose(made, x[:, 1:], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "head"), [("diffusion", "epsilon"), ("diffusion", "flow"), ("diffusion-v", "velocity")]
)
def test_finished_frames_enter_the_past_scaled_and_not_noised(make_model: Make, name: str, head: str) -> None:
    model = make_model(forcing=name, head=head)
    read, paradigm = seen_by(model), CLASSES[name]()
    given = torch.randn(1, N, D)
    rollout = Rollout(
        model, paradigm, SampleNoise.from_seeds([0]), Sampling(denoise_steps=2), torch.ones(1, dtype=torch.long), 4
    )
    rollout.observe(given)
    first = rollout.predict()
    rollout.predict()
    factor = 1 - 0.014 if head == "flow" else float(alpha_bar(torch.tensor(14)).sqrt())
    assert factor < 0.9999
    for entered, clean in ((read[0], given), (read[3], first)):  # a given frame, 2 steps, the frame that they made
        assert torch.allclose(entered.tokens_BSND[:, 0], factor * clean, atol=1e-6)
        assert entered.conditions[NOISE_LEVEL].tolist() == [[14.0]]
    assert not torch.allclose(first, given, atol=0.1)


def test_frames_that_are_not_begun_are_not_read(make_model: Make) -> None:
    model, paradigm = make_model(forcing="diffusion"), DiffusionForcing(schedule="pyramid", uncertainty=2.0)
    read = seen_by(model)
    roll(paradigm, model, Sampling(denoise_steps=4), None, 4)
    assert [sequence.tokens_BSND.shape[1] for sequence in read] == [1, 1, 1, 2, 2, 3, 3, 3, 3]


def test_a_sampling_chooses_uncertainty_and_horizon(make_model: Make) -> None:
    model, sampling = make_model(forcing="diffusion"), Sampling(denoise_steps=4)
    asked = Sampling(schedule="pyramid", uncertainty=2.0, horizon=2)
    own = DiffusionForcing()
    own.check_sampling(asked)
    recorded = DiffusionForcing(schedule="pyramid", uncertainty=2.0, horizon=2)
    assert torch.equal(roll(own.sampled(asked), model, sampling, None, 4), roll(recorded, model, sampling, None, 4))
    assert (own.schedule, own.uncertainty, own.horizon) == ("autoregressive", 1.0, 0)
    DiffusionForcing(schedule="pyramid").check_sampling(Sampling(uncertainty=2.0))


def test_guidance_leads_away_from_what_is_known_without_the_condition(make_model: Make) -> None:
    model = make_model(forcing="diffusion", conditions={"label": {"size": 3, "drop": 0.1}})
    made = {}
    for scale in (1.0, 3.0):
        sampling = Sampling(denoise_steps=4, guidance_scale=scale)
        rollout = Rollout(
            model, DiffusionForcing(), SampleNoise.from_seeds([5]), sampling, torch.ones(1, dtype=torch.long), 3
        )
        rollout.observe(torch.zeros(1, N, D), {"label": torch.tensor([1])})
        made[scale] = rollout.predict({"label": torch.tensor([1])})
    assert made[3.0].isfinite().all() and not torch.allclose(made[1.0], made[3.0], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"schedule": "trapezoid"}, "must be one of autoregressive, pyramid, full-sequence"),
     ({"context_level": 1000}, "context_level must lie in 0…999"), ({"horizon": -1}, "horizon must lie in"),
     ({"snr_decay": 0.5}, "has no option 'snr_decay'")],
)  # fmt: skip
def test_what_it_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MagiError, match=message):
        DiffusionForcing(**options)


def test_what_it_cannot_do_is_refused(make_model: Make) -> None:
    with pytest.raises(MagiError, match="say how many, or give a horizon"):
        DiffusionForcing(schedule="pyramid").check_context(1, None)
    DiffusionForcing(schedule="pyramid", horizon=3).check_context(1, None)
    with pytest.raises(MagiError, match="take the sampler ancestral or ddim"):
        roll(
            DiffusionForcing(),
            make_model(forcing="diffusion"),
            Sampling(denoise_steps=2, sampler="dpmsolver++"),
            None,
            2,
        )
    for asked in (Sampling(uncertainty=2.0), Sampling(schedule="full-sequence", uncertainty=2.0)):
        with pytest.raises(MagiError, match="uncertainty is of the schedule 'pyramid'"):
            DiffusionForcing().check_sampling(asked)
    with pytest.raises(MagiError, match="'autoregressive' makes one at a time"):
        DiffusionForcing().check_sampling(Sampling(horizon=2))
    with pytest.raises(MagiError, match="this model takes none"):
        DiffusionForcing().check_model(make_model())
    with pytest.raises(MagiError, match="diffusion-v needs a head velocity; this model's is epsilon"):
        DiffusionForcingVelocity().check_model(make_model(forcing="diffusion"))
