"""A simplified graph gives what the exported one gives, and has lost what it was simplified for."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnx

from magi_video.fast import onnx_simplify
from magi_video.fast.layers import FastSpatialLayer
from magi_video.fast.onnx_graph import Graph, Session, export_graph


class Layer(nn.Module):
    """A layer of the transformer over one frame, whose last tokens are normed; some may not be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = FastSpatialLayer(16, 2, 32)
        self.norm_out = nn.LayerNorm(16, elementwise_affine=False)
        self.out = nn.Linear(16, 5, bias=False)

    def forward(self, x_BSLW: Tensor, mask_SLL: Tensor) -> Tensor:
        """`[2, 1, 6, 16]` and `[1, 6, 6]` → `[2, 1, 3, 5]`."""
        normed_BSLW = self.norm_out(self.layer(x_BSLW, mask_SLL))
        return self.out(torch.addcmul(x_BSLW, normed_BSLW, x_BSLW)[:, -1:, -3:]).exp()


@pytest.fixture(scope="module")
def function() -> Layer:
    torch.manual_seed(0)
    return Layer().eval()


def inputs() -> tuple[Tensor, Tensor]:
    mask_SLL = torch.ones(1, 6, 6, dtype=torch.bool)
    mask_SLL[0, 1:4, 4:] = False
    return torch.randn(2, 1, 6, 16, generator=torch.Generator().manual_seed(1)), mask_SLL


def exported(function: nn.Module, *, simplified: bool) -> Graph:
    with pytest.MonkeyPatch.context() as patch:
        if not simplified:
            patch.setattr(onnx_simplify, "simplify", lambda _: None)
        return export_graph(function, inputs())


def kinds(graph: Graph) -> Counter[str]:
    nodes = onnx.load_model_from_string(graph.model).graph.node
    return Counter(node.op_type for node in nodes if node.op_type != "Constant")


def test_same_result_with_fewer_nodes(function: Layer) -> None:
    plain, simple = exported(function, simplified=False), exported(function, simplified=True)
    assert sorted(plain.weights) == sorted(simple.weights)
    expected = [function(*inputs()).detach()]
    for graph in (plain, simple):
        assert Session(graph, function, threads=1).difference(inputs(), expected) < 1e-6
    before, after = kinds(plain), kinds(simple)
    assert before["MatMul"] == 7 and before["IsNaN"] == 1 and not before["Gemm"]
    assert after["Gemm"] == 5 and after["MatMul"] == 2 and not after["IsNaN"]  # linear layers; attention's products
    assert not after["Squeeze"]
    assert after.total() < 0.8 * before.total()


def test_no_weight_is_transposed(function: Layer) -> None:
    """A session would transpose it when it begins, and hold both for a while."""
    model = onnx.load_model_from_string(exported(function, simplified=True).model)
    named = {one.name for one in model.graph.initializer}
    assert not [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in named]


class Reversed(nn.Module):
    """A slice that keeps the shape and changes the order."""

    def forward(self, x_BSLW: Tensor, mask_SLL: Tensor) -> Tensor:
        """`[2, 1, 6, 16]` → the same, tokens from last to first."""
        return x_BSLW.flip(2).exp() + mask_SLL[0, 0, 0]


def test_what_reverses_is_not_idle() -> None:
    function = Reversed()
    graph = exported(function, simplified=True)
    assert Session(graph, function, threads=1).difference(inputs(), [function(*inputs())]) < 1e-6
