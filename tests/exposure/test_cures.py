"""Cures for exposure bias: what the past is under each, that the target stays clean, who may have which."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.exposure import CURES, Canvas, Cure, ErrorBank, Noise, Resampling, TruePast
from magi_video.exposure.reconstruction import draw_levels, reconstruct
from magi_video.fast.speed import speed_up
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.sequence import MASKED, Clip
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, CompleteTeacherForcing, MaskRatio, VideoMAR
from magi_video.presets import load_preset
from magi_video.recipe import ExposureConfig
from magi_video.registry import declared
from magi_video.sampling.past import RecomputedPast
from magi_video.training.build import build_cure

Make = Callable[..., MagiVideoTransformer]
T, N, D = 5, 16, 12
MASKED_AND_CAUSAL = {"complete", "videomar"}
NOISED = {"diffusion", "diffusion-v"}
GOES_WITH = {
    "none": set(PARADIGMS),
    "noise": set(PARADIGMS),
    "resampling": MASKED_AND_CAUSAL,
    "error-bank": set(PARADIGMS) - NOISED,
    "canvas": MASKED_AND_CAUSAL | {"window"},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def active(name: str) -> Cure:
    """A cure in the middle of a training."""
    cure = CURES[name](**({"plain_steps": 0} if name == "resampling" else {}))
    if isinstance(cure, ErrorBank):
        cure.share, cure.stored = 1.0, cure.size
        cure._errors_KND = torch.randn(cure.size, N, D, generator=seeded(5))
    return cure


def model_of(make_model: Make, cure: str, **changes: object) -> MagiVideoTransformer:
    return make_model(canvas=bool(declared("exposure")[cure].get("canvas")), **changes)


def test_the_registry_is_read_from_the_files() -> None:
    assert {name: cls.title for name, cls in CURES.items()} == {
        name: values["title"] for name, values in declared("exposure").items()
    }
    assert set(CURES) == set(GOES_WITH)


@pytest.mark.parametrize("name", CURES)
def test_a_cure_goes_with_the_paradigms_that_it_makes_sense_for(name: str) -> None:
    for forcing in PARADIGMS:
        preset = load_preset("doom", forcing=forcing)
        exposure = dataclasses.replace(preset.exposure, exposure=name)
        if forcing in GOES_WITH[name]:
            assert dataclasses.replace(preset, exposure=exposure).exposure.exposure == name
            continue
        with pytest.raises(MagiError, match=f"exposure '{name}' is not for the paradigm {forcing}: .*\\(it is for "):
            dataclasses.replace(preset, exposure=exposure)


def test_recipes_name_a_cure_and_its_own_options() -> None:
    assert type(build_cure(ExposureConfig())) is Noise
    noise = build_cure(ExposureConfig(exposure="canvas", noise_levels=2, noise_sigma=0.3))
    assert isinstance(noise, Canvas) and (noise.levels, noise.max_sigma) == (2, 0.3)
    made = build_cure(ExposureConfig(exposure="resampling", exposure_options={"plain_steps": "7"}))
    assert isinstance(made, Resampling) and made.plain_steps == 7 and made.shift == 0.6
    preset = load_preset("tiny")
    for exposure, message in (
        (ExposureConfig(exposure="hope"), "exposure must be one of"),
        (ExposureConfig(exposure="error-bank", exposure_options={"sise": "3"}), "'sise' is none of error-bank's"),
        (ExposureConfig(exposure="error-bank", exposure_options={"share": "2"}), "share must lie in 0…1"),
    ):
        with pytest.raises(MagiError, match=message):
            dataclasses.replace(preset, exposure=exposure)
    with pytest.raises(MagiError, match="needs a head epsilon or flow"):
        dataclasses.replace(
            preset, model=dataclasses.replace(preset.model, head="categorical"),
            exposure=ExposureConfig(exposure="resampling"),
        )  # fmt: skip


@pytest.mark.parametrize("name", CURES)
def test_the_past_alone_is_changed_and_the_target_stays_clean(name: str, make_model: Make, clip: Clip) -> None:
    """Trap: a target that is read after the cure. The loss must follow the clip's own tokens."""
    model, cure, seen = model_of(make_model, name), active(name), []
    before = clip.tokens_BTND.clone()
    past_BTND, level_BT = cure.show(model, clip, seeded())
    assert torch.equal(clip.tokens_BTND, before)
    assert (not torch.equal(past_BTND, before)) == (name != "none")
    assert bool(level_BT.any()) == cure.injects
    head = model.diffusion_head
    original = head.loss
    head.loss = lambda target, z, *rest: (seen.append(target.clone()), original(target, z, *rest))[1]  # type: ignore[method-assign, assignment]
    CompleteTeacherForcing(MaskRatio(1.0), cure).loss(model, clip, seeded())
    assert torch.equal(seen[0], before.flatten(0, 2))


@pytest.mark.parametrize("name", CURES)
def test_a_seed_says_what_the_past_is_and_a_clip_of_a_batch_has_its_own(
    name: str, make_model: Make, clip: Clip
) -> None:
    model, cure = model_of(make_model, name), active(name)
    together = cure.show(model, clip, [seeded(3), seeded(4)])[0]
    assert torch.equal(together, cure.show(model, clip, [seeded(3), seeded(4)])[0])
    assert name == "none" or not torch.equal(together, cure.show(model, clip, [seeded(4), seeded(4)])[0])
    one = Clip(clip.tokens_BTND[1:], clip.interval_B[1:], {"action": clip.conditions["action"][1:]})
    assert torch.allclose(cure.show(model, one, [seeded(4)])[0], together[1:], atol=1e-5)


def moved(before: Tensor, after: Tensor) -> list[bool]:
    """Which frames differ."""
    return [bool(difference > 1e-6) for difference in (before - after).abs().amax((0, 2, 3))]


@pytest.mark.parametrize("head", ["epsilon", "flow"])
def test_resampling_makes_each_frame_from_itself_and_the_replaced_frames_before_it(
    head: str, make_model: Make, clip: Clip
) -> None:
    """A change of true frame j reaches the replaced frames j, j + 1, … and none before; the last one is as it was."""
    model, cure = speed_up(make_model(head=head)).train(), Resampling(plain_steps=0)
    made = cure.resample(model, clip, seeded())
    assert torch.equal(made[:, -1], clip.tokens_BTND[:, -1]) and not made.requires_grad
    for j in range(T):
        changed = clip.tokens_BTND.clone()
        changed[:, j] += 1
        again = cure.resample(model, dataclasses.replace(clip, tokens_BTND=changed), seeded())
        assert moved(made, again) == [j <= t < T - 1 or t == j == T - 1 for t in range(T)], j


def test_resampling_over_the_cache_is_resampling_without_one(make_model: Make, clip: Clip) -> None:
    from magi_video.exposure.resampling import one_frame
    from magi_video.models.sequence import OBSERVATION

    model, cure = make_model(temporal_position="rope"), Resampling(plain_steps=0)
    made, past, generator = cure.resample(model, clip, seeded(2)), RecomputedPast(model), seeded(2)
    level_B = draw_levels(2, cure.shift, generator, "cpu")
    eps_BTND = torch.randn(clip.tokens_BTND.shape, generator=generator)
    for t in range(T - 1):
        with torch.no_grad():
            z = past.read(one_frame(clip, t, clip.tokens_BTND[:, t], MASKED), torch.arange(N).expand(2, -1))
        frame = reconstruct(model.diffusion_head, clip.tokens_BTND[:, t], z, level_B, eps_BTND[:, t])
        assert torch.allclose(frame, made[:, t], atol=1e-4)
        past.append(one_frame(clip, t, made[:, t], OBSERVATION))


def test_resampling_begins_after_its_plain_steps(model: MagiVideoTransformer, clip: Clip) -> None:
    cure = Resampling(plain_steps=3)
    for step in range(5):
        cure.begin_step(step)
        assert torch.equal(cure.show(model, clip, seeded())[0], clip.tokens_BTND) == (step < 3)


@pytest.mark.parametrize("head", ["epsilon", "flow"])
def test_a_reconstruction_comes_nearer_to_the_truth_with_less_noise(head: str, make_model: Make) -> None:
    model, clean, eps = make_model(head=head), torch.randn(4, N, D), torch.randn(4, N, D)
    z = torch.zeros(4, N, 32)
    errors = [
        float((reconstruct(model.diffusion_head, clean, z, torch.full((4,), level), eps) - clean).square().mean())
        for level in (0.0, 0.2, 0.5, 0.8, 0.999)
    ]
    assert errors == sorted(errors) and errors[0] < 0.01 < errors[-1] and torch.isfinite(torch.tensor(errors)).all()


def test_levels_are_shifted_towards_less_noise() -> None:
    plain, shifted = (draw_levels(20_000, shift, seeded(), "cpu") for shift in (1.0, 0.6))
    assert plain.median() == pytest.approx(0.5, abs=0.01) and shifted.median() == pytest.approx(0.375, abs=0.01)
    assert shifted.min() > 0 and shifted.max() < 1


def test_the_bank_keeps_the_newest_errors_of_masked_tokens_from_step_to_step(
    model: MagiVideoTransformer, clip: Clip
) -> None:
    bank, yes = ErrorBank(size=3, share=1.0, scale=2.0), torch.tensor(True)
    forcing = CompleteTeacherForcing(exposure=bank)
    forcing.loss(model, clip, seeded())
    assert bank.stored == 0, "outside of a step nothing is kept"
    for step in range(3):
        before = bank.bank(model).clone()
        bank.begin_step(step)
        shown = bank.show(model, clip, seeded())[0] - clip.tokens_BTND
        assert bool(shown.any()) == (step > 0)
        if step:
            kept = 2 * before[: min(bank.stored, 3)].flatten(1)
            difference = torch.cdist(shown.flatten(0, 1).flatten(1), kept).amin(1)
            assert difference.max() < 1e-4, "what is added to a frame is one of the kept errors, scaled"
        forcing.loss(model, clip, [seeded(step), seeded(10 + step)])
        assert torch.equal(bank.bank(model), before), "nothing changes within a step"
        bank.end_step(yes, lambda values: values)
        assert bank.stored == 2 * (step + 1)
        changed = [bool((bank.bank(model)[k] != before[k]).any()) for k in range(3)]
        assert changed == [[True, True, False], [True, False, True], [False, True, True]][step]
        errors = bank.bank(model)[: min(bank.stored, 3)]
        zeros = (errors == 0).all(-1).sum(-1)
        assert (zeros <= N * 0.3).all() and errors.abs().amax((1, 2)).min() > 0
    before = bank.bank(model).clone()
    bank.begin_step(3)
    forcing.loss(model, clip, seeded())
    bank.end_step(~yes, lambda values: values)
    assert torch.equal(bank.bank(model), before), "a step that was not taken may have made anything"


def test_the_bank_learns_from_frames_that_are_learned(model: MagiVideoTransformer) -> None:
    """In VideoMAR those after frame f are masked and have no loss: what the model makes of them is not its error."""
    clip, bank, seen = Clip(torch.randn(40, T, N, D), torch.ones(40, dtype=torch.long)), ErrorBank(size=64), []
    forcing = VideoMAR(exposure=bank)
    learn = bank.learn
    bank.learn = lambda *given: (seen.append(given), learn(*given))[1]  # type: ignore[method-assign, misc]
    bank.begin_step(0)
    forcing.loss(model, clip, seeded())
    bank.end_step(torch.tensor(True), lambda values: values)
    counted_BPN = seen[0][3]
    errors = bank.bank(model)[:40]
    assert torch.equal((errors != 0).any(-1), counted_BPN.any(1)), "just the tokens that have a loss"


@pytest.mark.parametrize("forcing", ["complete", "videomar", "window"])
def test_a_canvas_is_read_in_masked_places_alone_and_has_a_loss(forcing: str, make_model: Make, clip: Clip) -> None:
    model, cure = make_model(canvas=True), Canvas(levels=0)
    paradigm = PARADIGMS[forcing](exposure=cure)
    shown = paradigm.draw_window(clip, seeded()) if hasattr(paradigm, "draw_window") else clip
    masked = paradigm.draw_masks(shown, seeded(1))  # type: ignore[attr-defined]
    sequence = paradigm.sequence(shown, masked)  # type: ignore[attr-defined]
    plain = model(sequence)
    cure.paint(model, sequence)
    painted, over = cure._painted_BPND, model(sequence)
    assert painted.requires_grad and torch.equal(sequence.canvas_BCND, painted.detach())  # type: ignore[arg-type]
    assert not sequence.canvas_BCND.requires_grad and (over - plain).abs().max() > 1e-3, "it is read"  # type: ignore[union-attr]
    masked_of_painted = sequence.masked_BSN[:, -painted.shape[1] :, :, None].float()
    for where, moves in ((1 - masked_of_painted, False), (masked_of_painted, True)):
        changed = dataclasses.replace(sequence, canvas_BCND=sequence.canvas_BCND + where)
        assert bool((model(changed) - over).abs().max() > 1e-5) == moves
    # One shot: nothing of the frame that is painted is seen, so neither its visible tokens nor its masked ones move it.
    of_painted = sequence.masked_BSN.any(-1, keepdim=True)[..., None]
    other = dataclasses.replace(sequence, tokens_BSND=sequence.tokens_BSND + of_painted.float())
    cure.paint(model, other)
    assert torch.equal(cure._painted_BPND, painted)
    target, counted = torch.zeros_like(painted), torch.ones(painted.shape[:3], dtype=torch.bool)
    expected = 0.1 * painted.square().mean(-1).sum()
    assert torch.allclose(cure.learn(model.diffusion_head, target, painted, counted, None), expected)
    paradigm.loss(model, clip, seeded()).backward()
    assert model.canvas_out is not None and model.canvas_out.weight.grad is not None


def test_without_a_cure_every_model_sees_the_true_past(model: MagiVideoTransformer, clip: Clip) -> None:
    forcing = CompleteTeacherForcing(exposure=TruePast())
    masked = forcing.draw_masks(clip, seeded())
    sequence = forcing.sequence(forcing.show_past(model, clip, None), masked)
    assert torch.equal(sequence.tokens_BSND[:, :T], clip.tokens_BTND) and not sequence.conditions[NOISE_LEVEL].any()


@pytest.mark.parametrize("name", CURES)
def test_the_loss_falls_under_every_cure(name: str, make_model: Make, clip: Clip) -> None:
    """On two clips, over and over; the same draws are scored before and after."""
    model, cure = model_of(make_model, name), CURES[name](**({"plain_steps": 10} if name == "resampling" else {}))
    forcing, scored_by = CompleteTeacherForcing(exposure=cure), CompleteTeacherForcing(exposure=TruePast())
    if name == "canvas":
        scored_by = forcing

    @torch.no_grad()
    def scored() -> float:
        return sum(float(scored_by.loss(model, clip, seeded(100 + seed))) for seed in range(12))

    before, draws = scored(), seeded()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(40):
        cure.begin_step(step)
        loss = forcing.loss(model, clip, draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cure.end_step(torch.tensor(True), lambda values: values)
    assert scored() < 0.8 * before
