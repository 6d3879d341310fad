"""What every registered paradigm must hold to: a new one is tested by being registered."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.past import FastPast
from magi_video.fast.speed import begin_past, restore, speed_up
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip, MaskRatio, NoiseInjection, Paradigm
from magi_video.paradigms.diffusion import DiffusionForcing
from magi_video.paradigms.masked_frames import MaskedFrames
from magi_video.presets import load_preset
from magi_video.registry import declared
from magi_video.sampling.past import CachedPast, Past
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling, Schedule
from magi_video.training.build import build_paradigm
from magi_video.training.sizing import loss_share

T, N = 5, 16
SETTINGS = Sampling(mask_steps=3, denoise_steps=4).complete()


BUILDS: list[tuple[str, dict[str, str]]] = [
    (name, dict(zip(paradigm.choices, values, strict=True)))
    for name, paradigm in PARADIGMS.items()
    for values in itertools.product(*paradigm.choices.values())
]
"""Every paradigm in every kind that it comes in."""


@pytest.fixture(params=BUILDS, ids=["-".join([name, *options.values()]) for name, options in BUILDS])
def paradigm(request: pytest.FixtureRequest) -> Paradigm:
    name, options = request.param
    return PARADIGMS[name](MaskRatio(), NoiseInjection(levels=0), 2, **options)


@pytest.fixture
def model(paradigm: Paradigm, make_model: Callable[..., MagiVideoTransformer]) -> MagiVideoTransformer:
    return make_model(forcing=paradigm.name)


def training_sequence(paradigm: Paradigm, tokens_BTND: Tensor, masked_BTN: Tensor) -> FrameSequence:
    """A paradigm's sequence for given tokens, without injected noise; noisy frames are told levels and left clean."""
    clip = Clip(tokens_BTND, torch.ones(len(tokens_BTND), dtype=torch.long))
    if isinstance(paradigm, DiffusionForcing):
        return paradigm.sequence(clip, tokens_BTND, torch.tensor([[300, 14, 999, 0, 70]]))
    assert isinstance(paradigm, MaskedFrames)
    return paradigm.sequence(clip, masked_BTN)


def half_masked() -> Tensor:
    """`[1, T, N]`, half of each frame's tokens."""
    order = torch.rand(1, T, N, generator=torch.Generator().manual_seed(1)).argsort(-1)
    return order < N // 2


def test_the_registry_is_read_from_the_files() -> None:
    assert {name: cls.title for name, cls in PARADIGMS.items()} == {
        name: values["title"] for name, values in declared("paradigms").items()
    }
    assert all(values["training_frames"] >= 1 for values in declared("paradigms").values())


@pytest.mark.parametrize("name", PARADIGMS)
def test_the_columns_of_table_1_are_plain_values_and_agree_with_one_another(name: str) -> None:
    row = declared("paradigms")[name]
    assert row["unit"] in ("frame", "token", "clip")
    assert row["temporal_attention"] in ("causal", "bidirectional")
    assert row["past"] in ("complete", "masked", "noisy")
    # Keys and values of a frame that attends to later ones would change with each of them.
    assert row["cached"] == (row["temporal_attention"] == "causal")
    assert row["variable_context"] in (True, False)
    for option, values in row.get("choices", {}).items():
        assert row["options"][option] in values


def test_the_cache_is_used_where_there_is_one_and_refused_elsewhere(
    paradigm: Paradigm, model: MagiVideoTransformer
) -> None:
    if not paradigm.cached:
        with pytest.raises(MagiError, match="no cache"):
            begin_past(paradigm, model, 1, T, SETTINGS, True)
        return
    past, plain = begin_past(paradigm, model, 1, T, SETTINGS, True), paradigm.make_past(model, 1, T)
    assert isinstance(past, FastPast) == paradigm.frame_cache == (type(plain) is CachedPast)
    assert type(begin_past(paradigm, model, 1, T, SETTINGS, False)) is type(paradigm.make_recomputed_past(model))


@pytest.mark.parametrize("name", PARADIGMS)
def test_a_recipe_changes_its_paradigm_in_one_line_and_takes_its_steps(name: str, tmp_path: Path) -> None:
    own = {key: max(1, steps) for key, steps in PARADIGMS[name].steps.items()}
    preset = load_preset("doom", forcing=name)
    assert build_paradigm(preset).name == name
    sample = dataclasses.asdict(preset.sample)
    assert sample == dataclasses.asdict(load_preset("doom").sample) | own
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"forcing": name, "sample": {"mask_steps": 7}}))
    assert load_preset(str(file)).sample.mask_steps == 7, "what is said counts"
    for option, value in PARADIGMS[name].options.items():
        assert getattr(build_paradigm(load_preset("doom", forcing=name, **{option: value})), option) == value
    with pytest.raises(MagiError, match="'nonsense' is none of"):
        load_preset("doom", forcing=name, nonsense=1)


def test_as_many_tokens_have_a_loss_as_the_plan_counts(
    paradigm: Paradigm, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    model, clips = make_model(forcing=paradigm.name, depth=1, head_depth=1), 200
    clip = Clip(torch.randn(clips, T, N, 12), torch.ones(clips, dtype=torch.long))
    with torch.no_grad():
        _, counted = paradigm.total_loss(model, clip, torch.Generator().manual_seed(0))
    expected, _ = loss_share(paradigm.name, 0.7, 0.25, N, T)
    assert float(counted) / (clips * T * N) == pytest.approx(expected, rel=0.03)


def test_outputs_depend_on_what_the_paradigm_says_and_on_nothing_else(
    paradigm: Paradigm, model: MagiVideoTransformer
) -> None:
    """By gradient: in float64, a token that has no way to an output has a gradient of exactly zero."""
    model = restore(model).double()
    masked = half_masked()
    tokens = torch.randn(1, T, N, 12, dtype=torch.float64, requires_grad=True)
    z = model(training_sequence(paradigm, tokens, masked))
    found, weight_W = torch.zeros(T, N, T, N, dtype=torch.bool), torch.randn(z.shape[-1], dtype=torch.float64)
    first = T - z.shape[1]  # of the frames that are predicted
    for t in range(first, T):
        for i in (0, 7, 15):
            (gradient,) = torch.autograd.grad(z[0, t - first, i] @ weight_W, tokens, retain_graph=True)
            found[t, i] = gradient[0].abs().amax(-1) > 0
    expected = paradigm.visible(masked[0])
    for i in (0, 7, 15):
        assert torch.equal(found[first:, i], expected[first:, i])


def test_outputs_move_with_what_the_paradigm_says_and_with_nothing_else(
    paradigm: Paradigm, model: MagiVideoTransformer
) -> None:
    """By perturbation: one token is changed, and the outputs are compared to the bit."""
    masked, tokens = half_masked(), torch.randn(1, T, N, 12)
    visible = paradigm.visible(masked[0])
    with torch.no_grad():
        before = model(training_sequence(paradigm, tokens, masked))
        for t, j in [(0, 3), (1, 8), (2, 0), (4, 12)]:
            changed = tokens.clone()
            changed[0, t, j] += 3
            after = model(training_sequence(paradigm, changed, masked))
            moved = (after - before)[0].abs().amax(-1) > 1e-5
            assert torch.equal(moved, visible[-len(moved) :, :, t, j]), (t, j)


@pytest.mark.parametrize("temporal_position", ["interpolate", "rope"])
def test_training_states_are_generation_states(
    paradigm: Paradigm, temporal_position: str, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    """A frame read after the past that training showed it gives what training computes for it."""
    if paradigm.unit == "token":
        pytest.skip("reads a frame token by token: tests/paradigms/test_raster.py")
    model, masked = make_model(forcing=paradigm.name, temporal_position=temporal_position), half_masked()
    given = 0 if paradigm.temporal_attention == "causal" else paradigm.given_frames
    masked[:, :given] = False
    training = training_sequence(paradigm, torch.randn(1, T, N, 12), masked)
    places = torch.arange(N)[None]
    with torch.no_grad():
        z = model(training)
        for past in pasts(paradigm, model, 1, T, SETTINGS):
            if given:  # frames that attend to one another are made together
                for t in range(given):
                    past.append(frames_of(training, t, t + 1))
                read = past.read(frames_of(training, given, T), torch.arange((T - given) * N)[None])
                assert torch.allclose(read, z[:, given - T :].flatten(1, 2), atol=1e-5), type(past).__name__
                continue
            for t in range(T):
                at = training.tokens_BSND.shape[1] - T + t
                read = past.read(frames_of(training, at, at + 1), places)
                assert torch.allclose(read, z[:, t], atol=1e-5), (type(past).__name__, t)
                past.append(frames_of(training, t, t + 1))


def frames_of(sequence: FrameSequence, start: int, stop: int) -> FrameSequence:
    at = slice(start, stop)
    return FrameSequence(
        sequence.tokens_BSND[:, at],
        sequence.masked_BSN[:, at],
        sequence.kind_S[..., at],
        sequence.position_S[at].double(),
        sequence.interval_B,
        {name: value[:, at] for name, value in sequence.conditions.items()},
    )


def pasts(paradigm: Paradigm, model: MagiVideoTransformer, batch: int, frames: int, settings: Sampling) -> list[Past]:
    """Every way to keep the past; the fast one prepares the model and comes last."""
    return [
        paradigm.make_past(model, batch, frames),
        paradigm.make_recomputed_past(model),
        begin_past(paradigm, model, batch // (2 if settings.complete().guided else 1), frames, settings),
    ]


def roll(paradigm: Paradigm, model: MagiVideoTransformer, seeds: list[int], past: Past | None, given: Tensor) -> Tensor:
    rollout = Rollout(
        model, paradigm, SampleNoise.from_seeds(seeds), SETTINGS, torch.ones(len(seeds), dtype=torch.long), 4, past=past
    )
    rollout.observe(given)
    return torch.stack([rollout.predict() for _ in range(3)], dim=1)


def test_cached_recomputed_and_fast_pasts_give_the_same_frames(paradigm: Paradigm, model: MagiVideoTransformer) -> None:
    given = torch.randn(2, N, 12)
    frames = [roll(paradigm, model, [1, 2], past, given) for past in pasts(paradigm, model, 2, 4, SETTINGS)]
    assert frames[0].std() > 0.1
    for other in frames[1:]:
        assert torch.allclose(frames[0], other, atol=1e-4)


def test_a_sample_does_not_depend_on_its_batch(paradigm: Paradigm, model: MagiVideoTransformer) -> None:
    given = torch.randn(2, N, 12)
    both = roll(paradigm, model, [1, 2], None, given)
    assert torch.allclose(roll(paradigm, model, [2], None, given[1:]), both[1:], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=0.1)


CONDITIONS: dict[str, tuple[dict[str, object], Tensor]] = {
    "action": ({"size": 3, "kind": "vector", "drop": 0.1}, torch.ones(1, 3)),
    "label": ({"size": 4, "drop": 0.1}, torch.tensor([2])),
    "text": ({"size": 6, "kind": "sequence", "tokens": 2, "drop": 0.1}, torch.linspace(-1, 1, 12).view(1, 2, 6)),
}
"""What a model can be told of a frame: as a condition of a transformer, and a value of it for one sample."""


@pytest.mark.parametrize("condition", CONDITIONS)
def test_guidance_is_the_same_over_every_past(
    paradigm: Paradigm, condition: str, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    spec, value = CONDITIONS[condition]
    model = make_model(forcing=paradigm.name, conditions={"noise_level": {"size": 6}, condition: spec})
    given, told, made = torch.randn(1, N, 12), {condition: value}, []
    for scale in (2.0, 2.0, 2.0, 1.0):
        settings = dataclasses.replace(SETTINGS, guidance_scale=scale, guide=(condition,))
        past = pasts(paradigm, model, 2 if settings.complete().guided else 1, 3, settings)[len(made) % 3]
        rollout = Rollout(
            model, paradigm, SampleNoise.from_seeds([1]), settings, torch.ones(1, dtype=torch.long), 3, past=past
        )
        rollout.observe(given, told)
        made.append(torch.cat([rollout.predict(told) for _ in range(2)]))
    assert torch.allclose(made[0], made[1], atol=1e-4) and torch.allclose(made[0], made[2], atol=1e-4)
    assert not torch.allclose(made[0], made[3], atol=1e-2), "guidance does something"


@pytest.mark.parametrize("condition", CONDITIONS)
def test_training_learns_from_what_a_model_is_told(
    paradigm: Paradigm, condition: str, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    """Another label, text or action is another loss by the same draws, and one that is hidden counts as none."""
    spec, value = CONDITIONS[condition]
    model = make_model(
        forcing=paradigm.name, depth=1, conditions={"noise_level": {"size": 6}, condition: spec | {"drop": 0.0}}
    )
    tokens_BTND = torch.randn(2, T, N, 12)

    def loss(told: Tensor) -> Tensor:
        clip = Clip(tokens_BTND, torch.ones(2, dtype=torch.long), {condition: told[None].expand(2, T, *told.shape[1:])})
        return paradigm.loss(model, clip, torch.Generator().manual_seed(0))

    losses = [loss(one) for one in (value, torch.zeros_like(value))]
    assert abs(losses[0] - losses[1]) > 1e-6
    losses[0].backward()
    weights = [weight for name, weight in model.named_parameters() if f"condition_tokens.embed.{condition}." in name]
    assert any(weight.grad is not None and weight.grad.abs().max() > 0 for weight in weights)


@pytest.mark.parametrize("name", PARADIGMS)
def test_a_schedule_of_noise_levels_is_chosen_where_there_are_any(
    name: str, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    paradigm = PARADIGMS[name]()
    if "schedule" not in paradigm.options:
        for asked in (Sampling(schedule="pyramid"), Sampling(uncertainty=2.0), Sampling(horizon=2)):
            with pytest.raises(MagiError, match=f"{name} has no noise levels in its frames"):
                paradigm.check_sampling(asked)
        return
    assert get_args(Schedule) == paradigm.choices["schedule"]
    model, made = make_model(forcing=name), {}
    for schedule in get_args(Schedule):
        asked = Sampling(schedule=schedule, denoise_steps=4)
        paradigm.check_sampling(asked)
        chosen = paradigm.sampled(asked)
        assert chosen.step_frames(model, 1, T) == (1 if schedule == "autoregressive" else T - 1)
        recorded = PARADIGMS[name](schedule=schedule)
        for one in (chosen, recorded):
            rollout = Rollout(
                model, one, SampleNoise.from_seeds([1]), asked.complete(), torch.ones(1, dtype=torch.long), T
            )
            rollout.observe(torch.zeros(1, N, 12))
            frames = []
            while rollout.begun < T:
                frames.append(rollout.predict_frames([{}] * rollout.step_frames))
            made[schedule, one is chosen] = torch.cat(frames, dim=1)
        assert torch.equal(made[schedule, True], made[schedule, False]), "as a model that was saved with it"
    assert not torch.allclose(made["pyramid", True], made["full-sequence", True], atol=1e-3)
    assert paradigm.sampled(Sampling()) is paradigm


@pytest.mark.parametrize("name", PARADIGMS)
def test_choices_about_mask_steps_are_refused_where_there_are_none(name: str) -> None:
    paradigm = PARADIGMS[name]()
    paradigm.check_sampling(Sampling("realtime", denoise_steps=3, guidance_scale=2.0))
    if paradigm.steps.get("mask_steps") == 0:
        for asked in (Sampling(mask_steps=4), Sampling(refresh=2)):
            with pytest.raises(MagiError, match=f"{name} has no mask steps, so (mask_steps|refresh) means nothing"):
                paradigm.check_sampling(asked)
        return
    paradigm.check_sampling(Sampling(mask_steps=4))
    if not paradigm.frame_cache:
        with pytest.raises(MagiError, match=f"{name} keeps nothing between its mask steps"):
            paradigm.check_sampling(Sampling(refresh=2))


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in PARADIGMS), ("raster", {"attention": "flat"})])
def test_the_loss_falls(
    name: str, options: dict[str, str], make_model: Callable[..., MagiVideoTransformer], clip: Clip
) -> None:
    """On two clips, over and over; the same draws are scored before and after."""
    paradigm, model = PARADIGMS[name](**options), make_model(forcing=name)

    @torch.no_grad()
    def scored() -> float:
        seeded = [torch.Generator().manual_seed(100 + seed) for seed in range(16)]
        return sum(float(paradigm.loss(model, clip, one)) for one in seeded)

    before, draws = scored(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = paradigm.loss(model, clip, draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert scored() < 0.8 * before


def test_speed_moves_no_loss(paradigm: Paradigm, make_model: Callable[..., MagiVideoTransformer], clip: Clip) -> None:
    for head in ("epsilon", "flow"):
        model = make_model(forcing=paradigm.name, head=head).train()
        plain = paradigm.loss(model, clip, torch.Generator().manual_seed(0))
        plain.backward()
        gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        model.zero_grad()
        fast = paradigm.loss(speed_up(model), clip, torch.Generator().manual_seed(0))
        fast.backward()
        assert torch.allclose(plain, fast, rtol=1e-5)
        for name, weight in model.named_parameters():
            assert weight.grad is None or torch.allclose(weight.grad, gradients[name], atol=1e-5), name
