import copy
import math

import pytest
import torch

from magi_video.checkpoints import optimizer_tensors, restore_optimizer
from magi_video.errors import MagiError
from magi_video.models import MagiTransformer
from magi_video.presets import TrainConfig
from magi_video.training.optimization import BETAS, SpikeGuard, build_optimizer, gradient_norm, scale_and_clip


def test_weight_decay_spares_vectors_embeddings_and_the_head(model: MagiTransformer) -> None:
    optimizer = build_optimizer(model, TrainConfig())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for p in optimizer.param_groups[0]["params"]}
    free = {names[id(p)] for p in optimizer.param_groups[1]["params"]}
    assert decayed | free == set(names.values()) and not decayed & free
    assert optimizer.param_groups[0]["weight_decay"] == 0.02 and optimizer.param_groups[1]["weight_decay"] == 0
    assert "blocks.0.spatial.qkv.weight" in decayed and "token_in.weight" in decayed
    assert {"kind_position", "head_position", "mask_token", "interval_embed.weight", "norm_out.weight"} <= free
    assert all(name in free for name in names.values() if name.startswith("diffusion_head.") or name.endswith(".bias"))
    assert optimizer.defaults["betas"] == (0.9, 0.95)


def test_the_fused_step_is_adamw_and_its_state_is_saved_and_restored_like_any(model: MagiTransformer) -> None:
    reference = copy.deepcopy(model)
    optimizer = build_optimizer(model, TrainConfig())
    plain = torch.optim.AdamW(
        [{"params": group["params"], "weight_decay": group["weight_decay"]}
         for group in build_optimizer(reference, TrainConfig()).param_groups],
        lr=TrainConfig().learning_rate, betas=BETAS, fused=False, foreach=False,
    )  # fmt: skip

    def step(model: MagiTransformer, optimizer: torch.optim.Optimizer, number: int) -> None:
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
def test_gradients_are_scaled_and_then_clipped_as_pytorch_does(model: MagiTransformer, largest: float) -> None:
    reference = copy.deepcopy(model)
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        other.grad = torch.randn_like(parameter)
        parameter.grad = 40 * other.grad
    norm = float(gradient_norm(model.parameters()))
    scale_and_clip(model.parameters(), norm, 1 / 40 / 100, largest)
    for other in reference.parameters():
        other.grad.div_(100)  # type: ignore[union-attr]
    before = float(torch.nn.utils.clip_grad_norm_(reference.parameters(), largest))
    assert norm / 40 / 100 == pytest.approx(before, rel=1e-5) and (before > largest) == (largest == 0.5)
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(parameter.grad, other.grad, rtol=1e-5)  # type: ignore[arg-type]


def test_guard_takes_the_usual_and_skips_spikes_and_nan() -> None:
    guard = SpikeGuard(factor=10)
    assert all(guard.accepts(1.0, norm) for norm in torch.linspace(1, 2, 30).tolist())
    assert not guard.accepts(1.0, 50.0)
    assert not guard.accepts(math.nan, 1.0) and not guard.accepts(1.0, math.inf)
    assert guard.accepts(1.0, 2.0) and guard.skipped == 3


def test_guard_gives_up_after_too_many_in_a_row_and_survives_a_restart() -> None:
    guard = SpikeGuard(factor=10, patience=3)
    guard.accepts(1.0, 1.0)
    guard.accepts(math.nan, 1.0)
    again = SpikeGuard(factor=10, patience=3)
    again.restore(guard.state())
    again.accepts(math.nan, 1.0)
    with pytest.raises(MagiError, match="diverged"):
        again.accepts(math.nan, 1.0)
