"""What is planned against what a model has and what autograd really keeps."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import nn

from magi_video.bench.flops import Sizes
from magi_video.bench.machine import count_parameters
from magi_video.bench.memory import Workload, activation_bytes, cast_parameters, head_tokens, step_memory
from magi_video.bench.subject import Subject, build, make_subject
from magi_video.bench.training import Stepper, sequence_frames
from magi_video.fast.kernel_choice import KERNELS, LINEAR_KERNELS
from magi_video.presets import load_preset

CPU = torch.device("cpu")


def subject_of(name: str, **model: Any) -> Subject:
    preset = load_preset(name)
    return make_subject(name, replace(preset, model=replace(preset.model, **model)))


def with_dropout(subject: Subject, rate: float) -> Subject:
    train = replace(subject.preset.train, attention_dropout=rate, projection_dropout=rate, mlp_dropout=rate)
    return replace(subject, preset=replace(subject.preset, train=train))


def workload(subject: Subject, stepper: Stepper, clips: int, precision: str) -> Workload:
    frames, predicted = sequence_frames(subject), subject.outline.config.num_frames
    # What the stepper is going to hide: its first draw.
    draws = torch.Generator().set_state(stepper.draws.get_state())
    hidden = stepper.paradigm.mask_ratio.draw(clips, predicted, subject.outline.num_tokens, draws, "cpu")
    rates = asdict(stepper.paradigm.dropout)
    return Workload(
        clips, frames, predicted, float(hidden.float().mean()), 0, 4, precision == "bf16", False,
        **{f"{name}_dropout": rate for name, rate in rates.items()},
    )  # fmt: skip


def storages(values: Any) -> dict[int, int]:
    """Address → bytes of the memory below some tensors."""
    found = [value.untyped_storage() for value in values]
    return {one.data_ptr(): one.nbytes() for one in found}


def kept_bytes(stepper: Stepper) -> int:
    """What a forward keeps for the backward, weights and buffers aside; each piece of memory once."""
    own = storages([*stepper.model.parameters(), *stepper.model.buffers()])
    kept: list[torch.Tensor] = []  # held, so that no address is used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), stepper.autocast:
        loss = stepper.paradigm.loss(stepper.model, stepper.clip, stepper.draws)
    assert loss.requires_grad
    return sum(size for address, size in storages(kept).items() if address not in own)


@pytest.mark.parametrize(("name", "model", "precision", "dropout"), [
    ("tiny", {}, "bf16", 0), ("tiny", {}, "float32", 0), ("tiny-mtf", {"depth": 3}, "bf16", 0),
    ("tiny", {"depth": 1}, "bf16", 0), ("tiny", {"head": "flow"}, "bf16", 0), ("doom", {"depth": 2}, "bf16", 0),
    ("tiny", {}, "float32", 0.1), ("tiny-mtf", {"depth": 3}, "bf16", 0.1),
])  # fmt: skip
def test_activations_are_what_autograd_keeps(
    name: str, model: dict[str, Any], precision: str, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyTorch's own linear layers keep a little less; which are used hangs on the machine.
    monkeypatch.setattr(KERNELS[LINEAR_KERNELS], "settled", True)
    subject = with_dropout(subject_of(name, **model), dropout)
    torch.manual_seed(0)
    stepper = Stepper(subject, build(subject.preset), 2, precision, CPU)
    work = workload(subject, stepper, 2, precision)
    planned = activation_bytes(subject.outline.architecture, work).total
    if precision == "bf16":
        planned += 2 * cast_parameters(subject.outline.architecture)
    measured = kept_bytes(stepper)
    assert planned == pytest.approx(measured, rel=0.015)


def test_parameters_gradients_optimiser_and_average_are_exact() -> None:
    subject = subject_of("tiny")
    stepper = Stepper(subject, build(subject.preset), 1, "float32", CPU)
    memory = step_memory(subject.outline.architecture, workload(subject, stepper, 1, "float32"))
    stepper.compute_gradient()
    parameters = list(stepper.model.parameters())
    assert memory.weights == memory.average == sum(p.nbytes for p in parameters)
    assert memory.gradients == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    stepper.update()
    moments = [v for state in stepper.optimizer.state.values() for k, v in state.items() if k != "step"]
    assert memory.optimizer == sum(v.nbytes for v in moments)
    assert memory.weights == 4 * count_parameters(subject.outline)


def test_what_autocast_casts_is_the_matrices_of_the_transformer() -> None:
    subject = subject_of("doom", depth=1)
    model = subject.outline
    linears = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and "diffusion_head" not in name]
    assert cast_parameters(model.architecture) == sum(m.weight.numel() for m in linears)


def test_sharding_leaves_each_device_its_share() -> None:
    subject = subject_of("doom")
    work = Workload(1, 32, 16, 0.87, 0, 4)
    whole = step_memory(subject.outline.architecture, work)
    parts = [step_memory(subject.outline.architecture, work, "full", n) for n in (1, 2, 8)]
    for devices, part in zip((1, 2, 8), parts, strict=True):
        # The first dimension is split, so a short one leaves the first device a little more than its share.
        assert whole.weights / devices <= part.weights < 1.05 * whole.weights / devices + 4096
        assert (part.casts, part.activations) == (0, whole.activations) and part.gathered > 0
        assert part.optimizer == 2 * part.weights == 2 * part.average == 2 * part.gradients
    assert (whole.gathered, whole.casts > 0) == (0, True)


def test_checkpointing_keeps_less_and_more_clips_keep_more() -> None:
    model = subject_of("doom").outline.architecture
    work = Workload(2, 32, 16, 0.87, 0, 4)
    plain, twice = activation_bytes(model, work).total, activation_bytes(model, replace(work, clips=4)).total
    again = activation_bytes(model, replace(work, checkpointing=True)).total
    assert twice == pytest.approx(2 * plain, rel=0.05) and again < 0.8 * plain
    assert activation_bytes(model, replace(work, fused_attention=False)).total != plain


def test_the_heads_tokens_are_rounded_up_as_training_rounds_them() -> None:
    sizes = Sizes.of(subject_of("doom").outline.architecture)
    assert head_tokens(sizes, Workload(2, 32, 16, 0.87, 0, 4)) == 448  # 445, in steps of 16
    assert head_tokens(sizes, Workload(2, 32, 16, 1.0, 0, 4)) == 512
    assert head_tokens(sizes, Workload(2, 32, 16, 0.87, 0.1, 4)) == 464
