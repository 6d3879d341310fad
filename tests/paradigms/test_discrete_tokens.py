"""Discrete tokens: every paradigm of masked frames with the categorical head, in either order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.speed import begin_past
from magi_video.models.categorical import CategoricalHead
from magi_video.models.head import TokenHead
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip, MaskedFrames, MaskRatio, NoiseInjection, Paradigm
from magi_video.paradigms.confidence import ConfidenceOrder
from magi_video.paradigms.masked_frames import MaskStep, RandomOrder
from magi_video.paradigms.masking import unmasking_schedule
from magi_video.sampling.past import CachedPast, Past, pick
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import SPEEDS, Sampling

N, V = 16, 20
MASKED = [name for name, paradigm in PARADIGMS.items() if issubclass(paradigm, MaskedFrames)]


@pytest.fixture
def model(make_model: Callable[..., MagiVideoTransformer]) -> MagiVideoTransformer:
    made = make_model(head="categorical")
    torch.nn.init.normal_(made.diffusion_head.logits.weight, std=0.5)  # draws that depend on z
    return made


@pytest.fixture(params=MASKED)
def paradigm(request: pytest.FixtureRequest) -> Paradigm:
    return PARADIGMS[request.param](MaskRatio(), NoiseInjection(levels=0))


def draw_tokens(model: MagiVideoTransformer, *shape: int) -> Tensor:
    return model.diffusion_head.look_up(torch.randint(V, shape)).detach()


def codes_of(model: MagiVideoTransformer, tokens: Tensor) -> Tensor:
    return model.diffusion_head.find_codes(tokens.flatten(0, -2)).view(tokens.shape[:-1])


def roll(paradigm: Paradigm, model: MagiVideoTransformer, past: Past, settings: Sampling, given: Tensor) -> Tensor:
    seeds = list(range(len(given)))
    noise = SampleNoise.from_seeds(seeds)
    rollout = Rollout(model, paradigm, noise, settings, torch.ones(len(seeds), dtype=torch.long), 4, past=past)
    rollout.observe(given)
    return torch.stack([rollout.predict() for _ in range(3)], dim=1)


@pytest.mark.parametrize("options", [
    {}, {"temperature": 2.0, "top_k": 5}, {"order": "confidence"}, {"order": "confidence", "guidance_scale": 1.5},
])  # fmt: skip
def test_cached_recomputed_and_fast_pasts_give_the_same_codes(
    paradigm: Paradigm, model: MagiVideoTransformer, options: dict[str, Any]
) -> None:
    settings = Sampling(mask_steps=5, **options).resolve(model.diffusion_head)
    given = draw_tokens(model, 2, N)
    batch = 4 if settings.guided else 2
    pasts = [
        paradigm.make_past(model, batch, 4),
        paradigm.make_recomputed_past(model),
        begin_past(paradigm, model, 2, 4, settings),
    ]
    frames = [roll(paradigm, model, past, settings, given) for past in pasts]
    for made in frames:
        assert torch.equal(model.diffusion_head.look_up(codes_of(model, made)), made), "every token is a code"
    assert len(codes_of(model, frames[0]).unique()) > 4
    assert torch.equal(frames[0], frames[1]) and torch.equal(frames[0], frames[2])


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_steps_that_reuse_each_others_work_see_all_tokens(
    paradigm: Paradigm, model: MagiVideoTransformer, order: Any
) -> None:
    """With `refresh` a pass over changed tokens alone ends in complete frames of codes, another one than without."""
    if not paradigm.frame_cache:
        pytest.skip("its mask steps have nothing to reuse")
    given, made = draw_tokens(model, 2, N), {}
    for refresh in (1, 12):
        settings = Sampling(mask_steps=12, refresh=refresh, order=order)
        made[refresh] = codes_of(
            model, roll(paradigm, model, begin_past(paradigm, model, 2, 4, settings), settings, given)
        )
    assert made[1].shape == made[12].shape == (2, 3, N)
    agreement = (made[1] == made[12]).float().mean()
    assert 0.05 < agreement < 1


class GivenPast(Past):
    """z of every place, as given."""

    def __init__(self, z_BNW: Tensor) -> None:
        self.z_BNW = z_BNW

    def append(self, frame: FrameSequence) -> None:
        raise NotImplementedError

    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        return pick(self.z_BNW, places_Bn)


def given_step(head: TokenHead, z_BNW: Tensor, noise: SampleNoise, progress: float, **options: float) -> MaskStep:
    """A mask step over z as given."""
    batch, tokens = z_BNW.shape[:2]
    nothing = torch.zeros(batch, 1, tokens, 3)
    frame = FrameSequence(
        nothing, torch.ones(batch, 1, tokens, dtype=torch.bool), torch.ones(1), torch.zeros(1), torch.ones(batch)
    )
    return MaskStep(GivenPast(z_BNW), frame, head, noise, options, progress)


def test_confidence_is_maskgits(model: MagiVideoTransformer) -> None:
    """The places and codes of each step, against `mask_by_random_topk` (parallel_decode.py) written down anew."""
    head, noise, again = model.diffusion_head, SampleNoise.from_seeds([5, 6]), SampleNoise.from_seeds([5, 6])
    assert isinstance(head, CategoricalHead)
    counts, z = unmasking_schedule(N, 6), torch.randn(6, 2, N, 32)
    order, unknown = (
        ConfidenceOrder(noise, N, 4, Sampling(choice_temperature=4.5).complete()),
        torch.ones(2, N, dtype=torch.bool),
    )
    for step, count in enumerate(counts):
        places, tokens = order.predict(given_step(head, z[step], noise, (step + 1) / 6, temperature=1.0), count)
        left = int(unknown.sum(1)[0])
        sampled, _ = head.sample_codes(z[step][unknown].view(2, left, 32), again)
        codes = torch.zeros(2, N, dtype=torch.long).masked_scatter(unknown, sampled)
        probability = head.logits(z[step]).softmax(-1).gather(-1, codes[..., None])[..., 0]
        gumbel = torch.full((2, N), torch.inf).masked_scatter(unknown, -(-again.uniform(left).log()).log())
        scale = 4.5 * (1 - (step + 1) / 6)
        confidence = torch.where(unknown, probability.log() + (scale * gumbel if scale else 0), torch.inf)
        mask_len = left - count
        cut_off = confidence.sort(1).values[:, mask_len : mask_len + 1]
        known = ~(confidence < cut_off)
        assert torch.equal(torch.zeros(2, N, dtype=torch.bool).scatter(1, places, True), known & unknown)
        assert torch.equal(tokens, head.look_up(codes.gather(1, places)))
        unknown &= ~known
    assert not unknown.any()


def test_without_noise_the_surest_come_first(model: MagiVideoTransformer) -> None:
    head, noise = model.diffusion_head, SampleNoise.from_seeds([0])
    z = torch.randn(1, N, 32)
    order = ConfidenceOrder(noise, N, 4, Sampling(choice_temperature=0.0).complete())
    places, _ = order.predict(given_step(head, z, noise, 0.25, temperature=0), 3)
    assert places[0].tolist() == head.logits(z)[0].log_softmax(-1).amax(-1).topk(3).indices.tolist()
    assert sorted(order.left_Bm[0].tolist() + places[0].tolist()) == list(range(N))


def test_the_random_order_is_a_permutation(model: MagiVideoTransformer) -> None:
    noise = SampleNoise.from_seeds([0, 1])
    order, step = (
        RandomOrder(noise, N, 4, Sampling().complete()),
        given_step(model.diffusion_head, torch.randn(2, N, 32), noise, 0.5),
    )
    places = torch.cat([order.predict(step, 4)[0] for _ in range(4)], 1)
    assert torch.equal(places, SampleNoise.from_seeds([0, 1]).permutation(N))


@pytest.mark.parametrize(("options", "message"), [
    ({"order": "confidence"}, "are for codes; this model's tokens are continuous"),
    ({"top_k": 5}, "are for codes"), ({"top_p": 0.9}, "are for codes"),
])  # fmt: skip
def test_choosing_codes_is_refused_of_a_continuous_head(
    make_model: Callable[..., MagiVideoTransformer], options: dict[str, Any], message: str
) -> None:
    for head in ("epsilon", "flow"):
        with pytest.raises(MagiError, match=message):
            Sampling.of(**options).resolve(make_model(head=head).diffusion_head)


@pytest.mark.parametrize(("options", "message"), [
    ({"top_k": 0}, "top_k must be at least 1, got 0"), ({"top_p": 0}, "top_p must be above 0, got 0"),
    ({"top_p": 1.1}, "top_p must be at most 1"),
    ({"order": "raster"}, "order must be one of random, sparse-to-dense, confidence, got 'raster'"),
    ({"choice_temperature": -1}, "choice_temperature must lie in 0…100"),
    ({"num_denoise_steps": 10}, "draws a token at once"), ({"sampler": "ddim"}, "this head has categorical"),
    ({"first_step": 5}, "no first denoise step"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(
    model: MagiVideoTransformer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MagiError, match=message):
        Sampling.of(**options).resolve(model.diffusion_head)


def test_speed_settings_take_one_denoise_step(model: MagiVideoTransformer) -> None:
    for speed in SPEEDS:
        made = Sampling(speed).resolve(model.diffusion_head)
        assert (made.denoise_steps, made.sampler, made.first_step) == (1, "categorical", None)


def test_it_learns_four_clips_by_heart(make_model: Callable[..., MagiVideoTransformer]) -> None:
    """Complete teacher forcing with the categorical head: greedy generation gives back every code of four clips.

    The loss cannot vanish: nothing says which clip a first frame is of when all of it is masked.
    """
    model = make_model(head="categorical", width=64, mlp_width=128).train()
    model.reset_parameters()
    clip = Clip(draw_tokens(model, 4, 5, N), torch.ones(4, dtype=torch.long), {"action": torch.zeros(4, 5, 3)})
    paradigm = PARADIGMS["complete"](MaskRatio(), NoiseInjection(levels=0))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300, 1e-4)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(300):
        loss = paradigm.loss(model, clip, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(torch.tensor(float(V)).log().item(), abs=1e-3) and losses[-1] < 0.3
    model.eval()
    noise = SampleNoise.from_seeds([0, 1, 2, 3])
    settings = Sampling(mask_steps=4, temperature=0.0)
    rollout = Rollout(model, paradigm, noise, settings, clip.interval_B, 5, past=CachedPast(model, 4, 5))
    actions = {"action": torch.zeros(4, 3)}
    rollout.observe(clip.tokens_BTND[:, 0], actions)
    made = torch.stack([rollout.predict(actions) for _ in range(4)], dim=1)
    assert torch.equal(made, clip.tokens_BTND[:, 1:])
