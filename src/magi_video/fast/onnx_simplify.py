"""An exported graph with fewer nodes that computes the same: a quarter of those of a mask step go.

The exporter writes operators one by one. Between the products of a transformer, which ONNX Runtime computes as
matrices, it leaves reshapes to more dimensions and back; a linear layer is a transposed weight, a product and a sum;
a view is a chain of squeezes and transposes that move no number. ONNX Runtime joins some of it when a session begins,
but transposes every weight for that, and keeps the reshapes.

Shapes are fixed and known. Every rewrite holds for itself, whatever the rest of the graph is.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

BY_ELEMENT = ("Gelu", "Sigmoid", "Tanh", "Exp")
OF_TWO = ("Add", "Sub", "Mul")
RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Identity")


def simplify(model: ir.Model) -> None:
    """Rewrite a model whose shapes are fixed, in place."""
    ShapeInferencePass()(model)
    editor = Editor(model.graph)
    for rewrite in (drop_idle, multiply_rows, join_views):
        rewrite(editor)
        RemoveUnusedNodesPass()(model)
    for node in model.graph:  # ONNX Runtime infers the shapes of intermediate values
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None


class Editor:
    """Puts nodes into a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._made = 0

    def node(
        self, before: ir.Node, kind: str, inputs: Sequence[ir.Value | None], shape: tuple[int, ...], **attributes: Any
    ) -> ir.Value:
        """A new node's output, of the type of its first input."""
        made = ir.node(kind, inputs, attributes or None)
        self.graph.insert_before(before, made)
        (output,) = made.outputs
        self._made += 1
        assert inputs[0] is not None
        output.name, output.shape, output.type = f"simplified_{self._made}", ir.Shape(shape), inputs[0].type
        return output

    def reshape(self, before: ir.Node, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """A value in another shape."""
        return value if shape_of(value) == shape else self.node(before, "Reshape", [value, self._numbers(shape)], shape)

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all who read one value read another."""
        ir.convenience.replace_all_uses_with(old, new)

    def _numbers(self, numbers: tuple[int, ...]) -> ir.Value:
        name = "_".join(["shape", *map(str, numbers)])
        if name not in self.graph.initializers:
            content = ir.tensor(np.array(numbers, dtype=np.int64), name=name)
            self.graph.register_initializer(
                ir.Value(
                    name=name,
                    shape=ir.Shape([len(numbers)]),
                    type=ir.TensorType(ir.DataType.INT64),
                    const_value=content,
                )
            )
        return self.graph.initializers[name]


def shape_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """Sizes of a value; None where they are not known."""
    if value is None or value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(int(size) for size in value.shape)  # type: ignore[arg-type]


def maker(value: ir.Value | None, kind: str) -> ir.Node | None:
    """The node of that kind that makes a value; None if another does."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind else None


def is_one(value: ir.Value | None) -> bool:
    """Whether a value is the number 1."""
    held = None if value is None else value.const_value
    if value is not None and held is None and (node := maker(value, "Constant")) and "value" in node.attributes:
        held = node.attributes["value"].as_tensor()
    return held is not None and not isinstance(held, ir.ExternalTensor) and held.size == 1 and held.numpy().item() == 1


def drop_idle(editor: Editor) -> None:
    """Take out what changes nothing: slices of everything, products with 1, and zeros in place of a softmax's NaN.

    The exporter guards against rows of an attention in which nothing may be seen. Scores are hidden by the least finite
    number, so that there is no NaN.
    """
    for node in editor.graph:
        if not node.outputs or node.outputs[0].is_graph_output():
            continue
        output, stays = node.outputs[0], None
        if node.op_type == "Slice":
            forward = len(node.inputs) < 5 or node.inputs[4] is None or is_one(node.inputs[4])  # a step of −1 reverses
            stays = node.inputs[0] if forward and shape_of(node.inputs[0]) == shape_of(output) is not None else None
        elif node.op_type == "Mul":
            one, other = node.inputs
            pairs = ((one, other), (other, one))
            stays = next((a for a, b in pairs if is_one(b) and shape_of(a) == shape_of(output) is not None), None)
        elif node.op_type == "Where" and (guard := maker(node.inputs[0], "IsNaN")):
            kept = node.inputs[2]
            stays = kept if guard.inputs[0] is kept and maker(kept, "Softmax") else None
        if stays is not None:
            editor.replace(output, stays)


def multiply_rows(editor: Editor) -> None:
    """Compute linear layers, and what lies between them, on matrices: `[…, K]` as `[rows, K]`."""
    rows: dict[ir.Value, ir.Value] = {}

    def as_rows(before: ir.Node, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        if value not in rows:
            rows[value] = editor.reshape(before, value, (math.prod(shape[:-1]), shape[-1]))
        return rows[value]

    def give(before: ir.Node, output: ir.Value, made: ir.Value, shape: tuple[int, ...]) -> None:
        shaped = editor.reshape(before, made, shape)
        rows[shaped] = made
        editor.replace(output, shaped)

    for node in list(editor.graph):
        shapes = [shape_of(value) for value in node.inputs]
        if len(node.outputs) != 1 or node.outputs[0].is_graph_output() or not shapes or shapes[0] is None:
            continue
        output, shape, first = node.outputs[0], shapes[0], node.inputs[0]
        assert first is not None
        if node.op_type == "MatMul":
            if (layer := linear_layer(node)) is not None:
                weight, bias, last = layer
                inputs: list[ir.Value | None] = [as_rows(node, first, shape), weight, *([] if bias is None else [bias])]
                size = int(weight.shape[0])  # type: ignore[index, arg-type]
                made = editor.node(last, "Gemm", inputs, (math.prod(shape[:-1]), size), transB=1)
                give(last, last.outputs[0], made, (*shape[:-1], size))
            continue
        if len(shape) <= 2 or shape_of(output) != shape:
            continue
        of_last = node.op_type == "LayerNormalization" and node.attributes["axis"].as_int() in (-1, len(shape) - 1)
        if of_last or (node.op_type in BY_ELEMENT and first in rows):
            inputs = [as_rows(node, first, shape), *node.inputs[1:]]
        elif node.op_type in OF_TWO and shapes[1] == shape and any(one in rows for one in node.inputs):
            inputs = [as_rows(node, one, shape) for one in node.inputs if one is not None]
        else:
            continue
        attributes = {name: one.value for name, one in node.attributes.items() if name != "axis"}
        made = editor.node(node, node.op_type, inputs, (math.prod(shape[:-1]), shape[-1]), **attributes)
        give(node, output, made, shape)


def linear_layer(product: ir.Node) -> tuple[ir.Value, ir.Value | None, ir.Node] | None:
    """Weight `[out, in]`, bias and last node of a linear layer that begins with this product; None if it is none."""
    transposed = maker(product.inputs[1], "Transpose")
    weight = None if transposed is None else transposed.inputs[0]
    if weight is None or not weight.is_initializer() or len(shape_of(weight) or ()) != 2:
        return None
    uses = list(product.outputs[0].uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not uses[0].node.outputs[0].is_graph_output():
        bias = uses[0].node.inputs[1 - uses[0].idx]
        if bias is not None and bias.is_initializer() and shape_of(bias) == (weight.shape[0],):  # type: ignore[index]
            return weight, bias, uses[0].node
    return weight, None, product


def join_views(editor: Editor) -> None:
    """Make one reshape of several in a row; a squeeze, or a transpose that moves sides of 1 alone, is one as well."""
    for node in list(editor.graph):
        if node.op_type not in (*RESHAPES, "Transpose") or node.outputs[0].is_graph_output():
            continue
        source, output = node.inputs[0], node.outputs[0]
        shape = shape_of(output)
        if source is None or shape is None or shape_of(source) is None or source.dtype is None:
            continue
        if node.op_type == "Transpose":
            if (made := transposed_before(editor, node)) is None:
                continue
            source = made
        while (before := source.producer()) is not None and before.op_type in RESHAPES and before.inputs[0] is not None:
            if shape_of(before.inputs[0]) is None:
                break
            source = before.inputs[0]
        if source is not node.inputs[0] or node.op_type != "Reshape":
            editor.replace(output, editor.reshape(node, source, shape))


def transposed_before(editor: Editor, node: ir.Node) -> ir.Value | None:
    """What a transpose gives but for sides of 1, from the value before the reshape that it reads; None: leave it.

    A reshape that only adds or drops sides of 1 may come after the transpose as well, and be joined with the next.
    """
    source = node.inputs[0]
    shape = shape_of(source)
    assert source is not None and shape is not None
    order = [side for side in node.attributes["perm"].as_ints() if shape[side] > 1]
    if order == sorted(order):
        return source
    before = source.producer()
    if before is None or before.op_type not in RESHAPES or (wide := shape_of(before.inputs[0])) is None:
        return None
    if [size for size in wide if size > 1] != [size for size in shape if size > 1]:
        return None
    sides = [side for side, size in enumerate(wide) if size > 1]
    narrow = [side for side, size in enumerate(shape) if size > 1]
    moved = [side for side, size in enumerate(wide) if size == 1] + [sides[narrow.index(side)] for side in order]
    whole = before.inputs[0]
    assert whole is not None
    return editor.node(node, "Transpose", [whole], tuple(wide[side] for side in moved), perm=moved)
