"""Packed weights: the same products, and never stale ones."""

import copy
from collections.abc import Callable

import pytest
import torch

from magi_video.fast.linear import PackedLinear, pack_linears, packing_works
from magi_video.models.transformer import MagiVideoTransformer

pytestmark = pytest.mark.skipif(
    not packing_works(), reason="lacks a CPU with bfloat16 products, for which this PyTorch packs weights"
)


def packed_layer() -> PackedLinear:
    layer = PackedLinear(48, 32).to(torch.bfloat16).eval()
    layer.pack()
    return layer


@pytest.mark.parametrize("shape", [(1, 48), (4, 48), (2, 3, 17, 48), (500, 48), (0, 48)])
def test_packed_equals_plain(shape: tuple[int, ...]) -> None:
    layer, x = packed_layer(), torch.randn(shape).to(torch.bfloat16)
    with torch.no_grad():
        plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
        # A last bit of bfloat16, of the result or of the product before its bias.
        assert torch.allclose(layer(x), plain, atol=2**-7, rtol=2**-7)


def test_gradients_come_from_the_weight_itself() -> None:
    layer, x = packed_layer(), torch.randn(4, 48).to(torch.bfloat16)
    layer(x).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("change", [
    lambda layer: layer.train(),
    lambda layer: layer.to(torch.float32),
    lambda layer: layer.load_state_dict(layer.state_dict()),
    copy.deepcopy,
])  # fmt: skip
def test_a_changed_layer_forgets_its_packed_weight(change: Callable[[PackedLinear], PackedLinear | None]) -> None:
    layer = packed_layer()
    assert layer._packed is not None
    changed = change(layer)
    assert (changed if isinstance(changed, PackedLinear) else layer)._packed is None


def test_only_models_that_gain_are_packed(model: MagiVideoTransformer) -> None:
    assert not pack_linears(model), "float32"
    assert not pack_linears(model.to(torch.bfloat16).train()), "about to be trained"
    assert pack_linears(model.eval())
    assert "_packed" not in "".join(model.state_dict())
