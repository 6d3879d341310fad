import copy
import math

import pytest
import torch
from diffusers.optimization import get_constant_schedule_with_warmup

from magi_video.files.checkpoints import optimizer_tensors, restore_optimizer
from magi_video.models.architecture import Architecture
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.recipe import TrainConfig
from magi_video.training.optimization import (
    BETAS,
    SpikeGuard,
    build_average,
    build_optimizer,
    build_schedule,
    gradient_norm,
    scale_and_clip,
    step_if,
)


def decayed(model: MagiVideoTransformer, config: TrainConfig) -> set[str]:
    """Names of the parameters that decay; all others have a group without decay."""
    optimizer = build_optimizer(model, config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    first, second = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert first | second == set(names.values()) and not first & second
    assert [group["weight_decay"] for group in optimizer.param_groups] == [config.weight_decay, 0]
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    return first


def test_weight_decay_is_mars_not_on_biases_norms_and_the_head() -> None:
    conditions = {
        "noise_level": {"size": 6}, "action": {"size": 3, "kind": "vector"}, "label": {"size": 2},
        "text": {"size": 5, "kind": "sequence", "tokens": 3},
    }  # fmt: skip
    with torch.device("meta"):
        model = MagiVideoTransformer(
            Architecture(latent_height=8, latent_width=8, width=16, depth=1, heads=2, conditions=conditions)
        )
    free = set(dict(model.named_parameters())) - decayed(model, TrainConfig())
    assert free == {
        name
        for name in dict(model.named_parameters())
        if name.startswith("diffusion_head.") or name.endswith(".bias") or "norm_" in name
    }
    # As runs of earlier versions have it: embeddings do not decay, but for the places of words.
    former = decayed(model, TrainConfig()) - decayed(model, TrainConfig(decay_embeddings=False))
    assert former == {
        "mask_token", "kind_position", "head_position", "interval_embed.weight", "condition_tokens.embed.text.unknown",
        "condition_tokens.embed.action.unknown", "condition_tokens.embed.label.table.weight",
        "condition_tokens.embed.noise_level.table.weight",
    }  # fmt: skip


@pytest.mark.parametrize("warmup", [True, False])
def test_averaged_weights_are_a_ramp_or_a_constant(warmup: bool) -> None:
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average = build_average([weight], TrainConfig(ema_decay=0.8, ema_warmup=warmup))
    expected = 0.0
    for step in range(1, 51):
        decay = min(0.8, step / (step + 9) if step > 1 else 0.0) if warmup else 0.8
        weight.data.fill_(step)
        expected = decay * expected + (1 - decay) * step
        average.step([weight])
        assert float(average.shadow_params[0]) == pytest.approx(expected, rel=1e-12)


def test_the_ramp_is_as_long_as_it_is_said_to_be() -> None:
    for decay, reached in ((0.999, 8_991), (0.9999, 89_991)):
        average = build_average([], TrainConfig(ema_decay=decay))
        average.count.fill_(reached - 1)
        assert average.decay < decay
        average.count += 1
        assert average.decay == decay


def test_a_refused_step_changes_nothing(model: MagiVideoTransformer) -> None:
    """Decided on the device: the same calls, and neither weights, optimiser nor average know of them."""
    optimizer, average = build_optimizer(model, TrainConfig()), build_average(model.parameters(), TrainConfig())
    generator = torch.Generator().manual_seed(0)

    def step(taken: bool, spoil: float = 1.0) -> None:
        for parameter in model.parameters():
            parameter.grad = spoil * torch.randn(parameter.shape, generator=generator)
        scale_and_clip(model.parameters(), gradient_norm(model.parameters()), 1.0, 1.0)
        step_if(optimizer, torch.tensor(taken))
        average.step(model.parameters(), torch.tensor(taken))

    def everything() -> list[torch.Tensor]:
        state = [value for one in optimizer.state.values() for value in one.values()]
        return [one.clone() for one in (*model.parameters(), *average.shadow_params, average.count, *state)]

    step(True)
    step(True)
    before = everything()
    step(False, math.nan)
    step(False, math.inf)
    for old, new in zip(before, everything(), strict=True):
        assert torch.equal(old, new)
    step(True)
    moved = [not torch.equal(old, new) for old, new in zip(before, everything(), strict=True)]
    assert all(moved[: len(list(model.parameters()))])


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_the_rate_rises_as_diffusers_does_and_its_state_is_the_same(steps: int) -> None:
    rates, states = [], []
    for build in (build_schedule, get_constant_schedule_with_warmup):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
        schedule = build(optimizer, steps)
        rates.append([])
        for _ in range(10):
            rates[-1].append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        states.append(schedule.state_dict())
    assert rates[0] == rates[1] and rates[0][steps:] == [0.3] * (10 - steps) and states[0] == states[1]


def test_the_fused_step_is_adamw_and_its_state_is_saved_and_restored_like_any(model: MagiVideoTransformer) -> None:
    reference = copy.deepcopy(model)
    optimizer = build_optimizer(model, TrainConfig())
    plain = torch.optim.AdamW(
        [{"params": group["params"], "weight_decay": group["weight_decay"]}
         for group in build_optimizer(reference, TrainConfig()).param_groups],
        lr=TrainConfig().learning_rate, betas=BETAS, fused=False, foreach=False,
    )  # fmt: skip

    def step(model: MagiVideoTransformer, optimizer: torch.optim.Optimizer, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    for number in range(2):
        step(model, optimizer, number)
        step(reference, plain, number)
    # Each may go on from what the other saved.
    saved, saved_plain = optimizer_tensors(optimizer), optimizer_tensors(plain)
    restore_optimizer(optimizer, saved_plain.items())
    restore_optimizer(plain, saved.items())
    step(model, optimizer, 2)
    step(reference, plain, 2)
    assert saved.keys() == saved_plain.keys() and all(saved[key].dtype == saved_plain[key].dtype for key in saved)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("largest", [0.5, 100.0], ids=["clipped", "not clipped"])
def test_gradients_are_scaled_and_then_clipped_as_pytorch_does(model: MagiVideoTransformer, largest: float) -> None:
    reference = copy.deepcopy(model)
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        other.grad = torch.randn_like(parameter)
        parameter.grad = 40 * other.grad
    norm = gradient_norm(model.parameters())
    scale_and_clip(model.parameters(), norm, 1 / 40 / 100, largest)
    for other in reference.parameters():
        other.grad.div_(100)  # type: ignore[union-attr]
    before = float(torch.nn.utils.clip_grad_norm_(reference.parameters(), largest))
    assert float(norm) / 40 / 100 == pytest.approx(before, rel=1e-5) and (before > largest) == (largest == 0.5)
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(parameter.grad, other.grad, rtol=1e-5)  # type: ignore[arg-type]


def test_guard_takes_the_usual_and_skips_spikes_and_nan() -> None:
    guard = SpikeGuard(factor=10)
    assert all(guard.accepts(1.0, norm) for norm in torch.linspace(1, 2, 30).tolist())
    assert not guard.accepts(1.0, 50.0)
    assert not guard.accepts(math.nan, 1.0) and not guard.accepts(1.0, math.inf)
    assert guard.accepts(1.0, 2.0) and guard.state()["skipped"] == 3


def test_guard_counts_what_it_refuses_in_a_row_and_survives_a_restart() -> None:
    guard = SpikeGuard(factor=10)
    guard.accepts(1.0, 1.0)
    guard.accepts(math.nan, 1.0)
    again = SpikeGuard(factor=10)
    again.restore(guard.state())
    assert not again.accepts(math.nan, 1.0)
    assert again.state() == {"usual": 1.0, "accepted": 1, "skipped": 2, "in_a_row": 2}
    assert again.accepts(1.0, 1.0) and again.state()["in_a_row"] == 0
