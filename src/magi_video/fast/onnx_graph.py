"""Pure functions as ONNX graphs: exported, kept in files, run by ONNX Runtime.

A graph holds no weights: it names them, and a session gets the tensors of the model that it stands for. So a file is
small, serves every model of the same architecture, and cannot bring weights of its own. Files are not trusted all the
same: a digest tells damage, and a session is compared with PyTorch on the same inputs before it is used.
"""

import hashlib
import json
import logging
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from magi_video.errors import MagiError, first_line
from magi_video.fast.graph_engine import largest_difference
from magi_video.fast.huge_pages import huge_pages
from magi_video.files.atomic import write_bytes

SUFFIX = ".graph"
MOST_BYTES = 1 << 28
"""Of a graph, unpacked: its nodes alone, hundreds of kilobytes."""
MOST_FOLDED = 1024
"""Elements of a constant that is computed when a graph is made."""
MOST_KEPT = 128
"""Graphs in the user's folder; the oldest make room for new ones."""


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch's exporter speaks of packages that are not needed here, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def tensors_of(function: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(function.named_parameters()), **dict(function.named_buffers())}


class Graph(NamedTuple):
    """An ONNX graph without its weights.

    Attributes:
        weights: names of the parameters and buffers that it needs.
        model: the graph, as ONNX writes it.
    """

    weights: list[str]
    model: bytes

    def pack(self) -> bytes:
        """As bytes of a file."""
        return zlib.compress(json.dumps(self.weights).encode() + b"\n" + self.model, level=9)

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """From bytes of a file.

        Raises:
            ValueError: they are not those of a graph.
        """
        unpacker = zlib.decompressobj()
        try:
            names, found, model = unpacker.decompress(packed, MOST_BYTES).partition(b"\n")
        except zlib.error as error:
            raise ValueError(str(error)) from None
        weights = json.loads(names)
        if not unpacker.eof or not found or not isinstance(weights, list):
            raise ValueError("not a graph")
        return cls([str(name) for name in weights], model)


@torch.no_grad()
def export_graph(function: nn.Module, inputs: tuple[Any, ...]) -> Graph:
    """A function as an ONNX graph without its weights; needs onnx and onnxscript.

    Shapes are fixed: graphs for any size take PyTorch's exporter three times as long.

    Args:
        function: in evaluation mode, on the CPU.
        inputs: an example of its arguments.
    """
    import onnx_ir
    from onnxscript.optimizer import fold_constants

    from magi_video.fast.onnx_simplify import simplify

    with quiet():
        program = torch.export.export(function, inputs)
        # Weights must not be folded into new ones: ONNX Runtime does that when a session begins.
        exported = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
    assert exported is not None
    graph, weights = exported.model.graph, tensors_of(function)
    for name, value in graph.initializers.items():
        if name in weights and value.const_value is not None:
            held: Any = value.const_value
            value.const_value = onnx_ir.ExternalTensor(
                "weights", 0, held.nbytes, held.dtype, shape=held.shape, name=name
            )
    # Numbers and shapes are: casts of them and products with 1, a third of all nodes, would be computed in every run.
    fold_constants(
        exported.model,
        onnx_shape_inference=False,
        input_size_limit=MOST_FOLDED,
        output_size_limit=MOST_FOLDED,
        should_fold=lambda node: False if any(one is not None and one.name in weights for one in node.inputs) else None,
    )
    simplify(exported.model)
    for node in graph.all_nodes():  # where in the source it comes from
        node.doc_string = None
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs):
        value.metadata_props.clear()
    used = [name for name in graph.initializers if name in weights]
    return Graph(used, onnx_ir.to_proto(exported.model).SerializeToString())


class GraphFiles:
    """Graphs in folders, by name of what they are made for.

    Args:
        folders: that are looked in; new ones are written to the last.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)

    def read(self, made_for: str) -> Graph | None:
        """The graph of that name; None if there is none that is whole."""
        for folder in self.folders:
            with suppress(OSError, ValueError):
                digest, _, packed = self._path(folder, made_for).read_bytes().partition(b"\n")
                if digest == self._digest(made_for, packed):
                    return Graph.unpack(packed)
        return None

    def write(self, made_for: str, graph: Graph) -> None:
        """Keep a graph; where nothing can be written it is made anew the next time."""
        folder, packed = self.folders[-1], graph.pack()
        with suppress(MagiError):
            write_bytes(self._path(folder, made_for), self._digest(made_for, packed) + b"\n" + packed)
        with suppress(OSError):
            kept = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
            for path in kept[:-MOST_KEPT]:
                path.unlink(missing_ok=True)

    @staticmethod
    def _path(folder: Path, made_for: str) -> Path:
        return folder / f"{hashlib.sha256(made_for.encode()).hexdigest()[:24]}{SUFFIX}"

    @staticmethod
    def _digest(made_for: str, packed: bytes) -> bytes:
        return hashlib.sha256(made_for.encode() + b"\0" + packed).hexdigest().encode()


class Session:
    """A graph with the weights of a function, ready to run; may be used from many threads.

    Args:
        graph: as of `export_graph`.
        function: whose weights it gets; ONNX Runtime keeps its own copy of most.
        threads: of a run.

    Raises:
        MagiError: ONNX Runtime does not take the graph.
    """

    def __init__(self, graph: Graph, function: nn.Module, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as `fast.threads.wait_passively`
        there = tensors_of(function)
        if lacking := set(graph.weights) - set(there):
            raise MagiError(f"a graph of another model: it asks for {min(lacking)}")
        named = {name: there[name].detach().contiguous().numpy() for name in graph.weights}
        self._weights = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in named.values()]
        options.add_external_initializers(list(named), self._weights)
        try:
            with huge_pages():
                self._session = onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class
            raise MagiError(f"ONNX Runtime: {first_line(error)}") from None
        self._names = [one.name for one in self._session.get_inputs()]

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs for the inputs, in order; contiguous tensors are not copied."""
        feeds = {name: one.contiguous().numpy() for name, one in zip(self._names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in self._session.run(None, feeds)]

    def difference(self, inputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
        """As of `largest_difference`; infinite where the graph does not run."""
        try:
            made = self.run(inputs)
        except Exception:  # a graph of other inputs; errors of ONNX Runtime have no common class
            return float("inf")
        return largest_difference(made, expected)
