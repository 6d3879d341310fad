"""What makes a training step fast leaves its loss and its gradient what they were."""

import copy
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from magi_video.fast.compiling import compile_blocks
from magi_video.fast.kernels import use_training_kernels
from magi_video.fast.speed import speed_up
from magi_video.models.epsilon import NUM_TRAIN_STEPS, EpsilonHead, discretized_nll, normal_kl
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip
from magi_video.recipe import Preset
from magi_video.training.display import Silent
from magi_video.training.run import train
from tests.arithmetic import SLACK, distance

Make = Callable[..., MagiVideoTransformer]
# Page faults of 20 blocks of 64 MB, each written to and freed, before and after.
FAULTS = """
import resource, torch
from magi_video.fast.allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20): torch.full((1 << 24,), 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
returned = faults()
if not keep_freed_memory(): raise SystemExit(3)
faults()
print(returned, faults())
"""
WEIGHTS = "diffusion_pytorch_model.safetensors"


def epsilon_loss(head: EpsilonHead, target: Tensor, z: Tensor, step: Tensor, eps: Tensor) -> Tensor:
    """MAR's loss, word for word: every draw embeds its own time."""
    chain = head.chain(target.device)
    target, z = target.repeat(len(step) // len(target), 1), z.repeat(len(step) // len(z), 1)
    at = step[:, None]
    noisy = chain.signal[at] * target + chain.sigma[at] * eps
    predicted, fraction = head.net(noisy, step, head.net.condition_embed(z)).chunk(2, dim=-1)
    frozen = predicted.detach()
    mean = chain.posterior_mean(noisy, chain.predict_x0(noisy, frozen, at), at)
    true_mean = chain.posterior_mean(noisy, target, at)
    log_variance = chain.log_variance(fraction, at)
    kl = normal_kl(true_mean, chain.log_variance_min[at], mean, log_variance)
    bound = torch.where(at == 0, discretized_nll(target, mean, log_variance), kl)
    return (predicted - eps).square().mean(-1) + bound.mean(-1) / math.log(2)


@pytest.mark.parametrize("tokens", [30, 600], ids=["fewer draws than steps", "more draws than steps"])
def test_the_epsilon_loss_embeds_each_step_once_and_is_the_same(tokens: int) -> None:
    plain_head = EpsilonHead(token_dim=4, condition_dim=8, width=16, depth=2)
    for parameter in plain_head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    head = speed_up(copy.deepcopy(plain_head))
    target, z = torch.randn(tokens, 4), torch.randn(tokens, 8, requires_grad=True)
    uniform, eps = torch.rand(2, tokens), torch.randn(2, tokens, 4)
    ours = head.loss(target, z, uniform, eps)
    plain = epsilon_loss(plain_head, target, z, (uniform * NUM_TRAIN_STEPS).long().flatten(), eps.flatten(0, 1))
    assert torch.allclose(ours.flatten(), plain, rtol=1e-5)
    of_ours = torch.autograd.grad(ours.mean(), [*head.parameters(), z])
    for a, b in zip(of_ours, torch.autograd.grad(plain.mean(), [*plain_head.parameters(), z]), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def gradients(model: MagiVideoTransformer, clip: Clip, forcing: str, autocast: bool = False) -> list[Tensor]:
    """The loss, then its gradient by every parameter, with fixed draws."""
    model.train().zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = PARADIGMS[forcing]().loss(model, clip, torch.Generator().manual_seed(0))
    loss.backward()
    # A condition that was dropped for every clip leaves some without.
    return [loss.detach(), *(torch.zeros(()) if p.grad is None else p.grad for p in model.parameters())]


@pytest.mark.parametrize("forcing", ["complete", "masked"])
@pytest.mark.parametrize("position", ["interpolate", "rope"])
@pytest.mark.parametrize("autocast", [False, True])
def test_checkpointed_gradients_are_the_same_to_the_bit(
    make_model: Make, clip: Clip, forcing: str, position: str, autocast: bool
) -> None:
    model = make_model(temporal_position=position)
    plain = gradients(model, clip, forcing, autocast)
    runs: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda *_: runs.append(1))
    model.enable_gradient_checkpointing()
    again = gradients(model, clip, forcing, autocast)
    assert len(runs) == 2, "once in the forward, once in the backward"
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.parametrize("forcing", ["complete", "masked"])
def test_training_kernels_give_the_gradients_of_plain_layers(make_model: Make, clip: Clip, forcing: str) -> None:
    plain = make_model()
    fast = copy.deepcopy(plain)
    use_training_kernels(fast)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    exact, before, after = (
        gradients(plain, clip, forcing), gradients(plain, clip, forcing, True), gradients(fast, clip, forcing, True)
    )  # fmt: skip
    assert torch.equal(before[0], after[0]), "the forward is the same to the bit"
    for (name, _), ours, theirs, wanted in zip(plain.named_parameters(), after[1:], before[1:], exact[1:], strict=True):
        assert ours.dtype == torch.float32 and ours.is_contiguous()
        # Both round to bfloat16 in every layer: as far from float32, or nearer, but for a few of its last bits.
        assert distance(ours, wanted) < SLACK * max(2**-6, distance(theirs, wanted)), name
    in_float32 = gradients(fast, clip, forcing)
    assert all(torch.equal(a, b) for a, b in zip(in_float32, exact, strict=True)), "without autocast nothing changes"


def test_norms_may_have_lower_precision_than_what_they_read() -> None:
    norm = nn.LayerNorm(16).bfloat16()
    use_training_kernels(nn.Sequential(norm))
    x = torch.randn(5, 16, requires_grad=True)
    out = norm(x)
    out.square().sum().backward()
    assert out.dtype == torch.float32 and torch.allclose(out, nn.functional.layer_norm(x, (16,)), atol=1e-5)
    assert norm.weight.grad is not None and x.grad is not None and x.grad.dtype == torch.float32


@pytest.mark.parametrize("forcing", ["complete", "masked"])
def test_the_residual_stream_is_float32_under_autocast(make_model: Make, clip: Clip, forcing: str) -> None:
    model = make_model(depth=3)
    use_training_kernels(model)
    streams: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, read, made: streams.extend((read[0], made)))
    low = gradients(model, clip, forcing, autocast=True)
    assert len(streams) == 6 and all(one.dtype == torch.float32 for one in streams)
    in_low = streams[5]
    streams.clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.blocks[0].spatial.qkv(in_low).dtype == torch.bfloat16, "the products are not"
    exact = gradients(model, clip, forcing)
    assert distance(in_low, streams[5]) < 2**-7, "rounded once in each product, not in each sum"
    assert not torch.equal(low[0], exact[0])


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="lacks a C++ compiler")
def test_compiled_blocks_give_the_same_loss_and_gradients_under_the_same_names(make_model: Make, clip: Clip) -> None:
    model = speed_up(make_model(depth=2, width=16, mlp_width=32))
    names = list(model.state_dict())
    plain = gradients(model, clip, "complete")
    assert compile_blocks(model, lambda: None) is None
    compiled = gradients(model, clip, "complete")
    assert model.blocks[0]._compiled_call_impl is not None and list(model.state_dict()) == names
    assert all(distance(a, b) < 1e-4 for a, b in zip(compiled, plain, strict=True))


def test_without_a_compiler_training_goes_on_and_says_so(
    videos: Path, recipe: Callable[..., Preset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener(Silent):
        said: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    train(recipe(compile=True, steps=2), videos, tmp_path / "run", display=Listener())
    complaints = [text for text in Listener.said if "not compiled" in text]
    assert len(complaints) == 1 and "no-such-compiler" in complaints[0] and "\n" not in complaints[0]
    monkeypatch.undo()
    torch._dynamo.reset()
    train(recipe(steps=2), videos, tmp_path / "plain")
    ours, plain = (load_file(folder / "transformer" / WEIGHTS) for folder in (tmp_path / "run", tmp_path / "plain"))
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("lacks glibc, which the setting is of")
    returned, kept = map(int, done.stdout.split())
    assert kept < 0.05 * returned, done.stderr
