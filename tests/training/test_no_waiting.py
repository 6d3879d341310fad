"""A training step never asks the device for a value, so that a GPU's host runs ahead of it.

A tensor of the meta device has no values: whatever asks for one raises.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from magi_video.fast import head as fast_head
from magi_video.fast.layers import FastTemporalLayer
from magi_video.fast.noise import PinnedNoise, make_noise
from magi_video.fast.speed import speed_up
from magi_video.models.layers import TemporalLayer
from magi_video.models.sequence import causal_mask
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip
from magi_video.training.optimization import AveragedWeights, SpikeGuard, gradient_norm, scale_and_clip

Make = Callable[..., MagiVideoTransformer]
FORCINGS = ["complete", "masked", "genie", "videomar", "raster", "window", "joint"]


def on_meta(make_model: Make, clip: Clip) -> tuple[MagiVideoTransformer, Clip]:
    conditions = {name: value.to("meta") for name, value in clip.conditions.items()}
    moved = Clip(clip.tokens_BTND.to("meta"), clip.interval_B.to("meta"), conditions)
    return speed_up(make_model(temporal_position="rope").to("meta")).train(), moved


@pytest.mark.parametrize("forcing", FORCINGS)
def test_a_step_asks_for_no_value(make_model: Make, clip: Clip, forcing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know the device
    model, clip = on_meta(make_model, clip)
    guard, average = SpikeGuard(20.0, "meta"), AveragedWeights(model.parameters(), 0.999)
    total, count = PARADIGMS[forcing]().total_loss(model, clip)
    total.backward()
    norm = gradient_norm(model.parameters())
    taken = guard.accepts(total / count, norm)
    scale_and_clip(model.parameters(), norm, 1 / count.double(), 3.0)
    average.step(model.parameters(), taken)
    assert taken.is_meta and norm.is_meta
    with pytest.raises(RuntimeError):
        guard.state()


@pytest.mark.parametrize("name", ["epsilon", "flow", "categorical"])
def test_the_loss_of_all_tokens_masked_is_that_of_those_that_count(
    make_model: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = speed_up(make_model(head=name)).diffusion_head.train()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    width = head.logits.in_features if name == "categorical" else head.net.condition_embed.in_features  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(1)
    target, z = (torch.randn(2, 9, size, generator=generator) for size in (head.token_dim, width))
    counted = torch.rand(2, 9, generator=generator) < 0.7
    found = []
    for picks in (True, False):
        monkeypatch.setattr(fast_head, "picks_tokens", lambda device, picks=picks: picks)
        z = z.detach().requires_grad_()
        total, count = head.total_loss(target, z, counted, 3, torch.Generator().manual_seed(2))
        weights = [one for one in head.parameters() if one.requires_grad]
        found.append([total, count, *torch.autograd.grad(total, [z, *weights])])
    assert found[1][1] == counted.sum()
    for picked, masked in zip(*found, strict=True):
        torch.testing.assert_close(masked, picked, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rope", [False, True])
def test_the_temporal_layer_place_by_place_is_the_same_without_copies(
    rope: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    plain = TemporalLayer(32, 2, 64)
    fast = speed_up(copy.deepcopy(plain))
    assert isinstance(fast, FastTemporalLayer)
    x = torch.randn(2, 5, 3, 32, requires_grad=True)
    angles = torch.randn(2, 5, 16).unbind(0) if rope else None
    mask = causal_mask(5, None, "cpu")[-4:]
    given: list[torch.Tensor] = []
    attend = FastTemporalLayer.attend

    def watched(layer: FastTemporalLayer, *parts: torch.Tensor) -> torch.Tensor:
        given.extend(parts[:3])
        return attend(layer, *parts)

    monkeypatch.setattr(FastTemporalLayer, "attend", watched)
    ours, theirs = fast.by_place(x, mask, angles), plain(x, mask, angles)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(ours.square().sum(), [x, *fast.parameters()]),
        torch.autograd.grad(theirs.square().sum(), [x, *plain.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for part in given:
        assert part.flatten(0, 1).data_ptr() == part.data_ptr(), "the kernel's one batch dimension is a view"
    assert given[2].stride(-2) == 3 * 32, "values lie where the projection has written them"


def test_pinned_noise_is_for_gpus_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_noise([torch.Generator()], torch.device("cuda"))) is PinnedNoise
    plain = make_noise([torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)], torch.device("cpu"))
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    noise = PinnedNoise([torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)])
    for kind, shape in (("normal", (5, 2)), ("uniform", (7,)), ("permutation", (9,))):
        assert torch.equal(getattr(noise, kind)(*shape), getattr(plain, kind)(*shape))
    assert len(pinned) == 3
