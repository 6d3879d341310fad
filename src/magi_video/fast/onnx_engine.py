"""ONNX Runtime as an engine: one graph for each kind of mask step, and one for the decoder.

The rollout and the sampler are the same. What the graphs do not cover is computed by PyTorch over the same cache.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from threading import Lock
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from magi_video.codecs.base import Codec
from magi_video.errors import MagiError, first_line
from magi_video.fast.engine_name import EngineName, missing_packages
from magi_video.fast.graph import DecodeFunction, MaskStepFunction, StepForm, example_inputs, flat
from magi_video.fast.graph_engine import TOLERANCE, GraphEngine, decodes_frames, step_forms
from magi_video.fast.graph_past import FunctionPast, GraphPast, Run
from magi_video.fast.job import Job, describe
from magi_video.fast.onnx_graph import Graph, GraphFiles, Session, export_graph, tensors_of
from magi_video.fast.speed import prepare
from magi_video.files.cache import report_unusable_cache
from magi_video.installation import install_command
from magi_video.models.transformer import MagiVideoTransformer

FORMAT = 1
"""Of graphs' inputs and outputs."""
BUILDING_PAYS = 60.0
"""Seconds of PyTorch's time for a job from which graphs that are not in files are made."""
ADDED: dict[str, Any] = {"canvas": False}
"""Settings of a model that came after the first graphs, with the values that those were made for: left out of a graph's
name, so that the graphs of before are found."""
Stamp = tuple[tuple[int, int], ...]


@dataclass(kw_only=True)
class OnnxEngine(GraphEngine):
    """ONNX Runtime.

    Attributes:
        files: where graphs are.
        threads: of a run.
        say, stage: as of `GraphEngine`; also where graphs cannot be kept, are loaded, or one is made.
    """

    files: GraphFiles
    threads: int = 1
    name: ClassVar[EngineName] = "onnx"
    title: ClassVar[str] = "ONNX Runtime"
    _sessions: dict[str, tuple[Stamp, Session | None]] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)

    @override
    def misfit(self, model: MagiVideoTransformer) -> str | None:
        if model.device.type != "cpu":
            return f"graphs run on the CPU, and the model is on {model.device.type}"
        if model.dtype != torch.float32:
            return f"graphs compute in float32, and the weights are {str(model.dtype).removeprefix('torch.')}"
        return None

    @override
    def prepare(self, job: Job, build: bool) -> str | None:
        """See `GraphEngine.prepare`; a decoder of which no graph can be made is left to PyTorch, in a line."""
        if problem := self.not_covered(job):
            return problem
        if not self._sessions:
            self.stage("loading graphs for ONNX Runtime")
        prepare(job.model)
        if not all(self._step(job.model, form, build) for form in step_forms(job)):
            return f"there are no graphs for {describe(job)}"
        if job.codec is not None and self.decodes_latents(job.codec):
            try:
                self._decoder(job.codec, job.latents()[:1], build)
            except MagiError as error:
                self.say(f"torch decodes: {error}")
        return None

    @override
    def make_past(self, job: Job) -> GraphPast:
        runs: dict[StepForm, Run] = {}
        for form in step_forms(job):
            session = self._step(job.model, form, build=False)
            assert session is not None
            runs[form] = session.run
        return FunctionPast(job.model, job.total_frames, runs)

    @override
    def decode_by_graph(self, codec: Codec, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        """See `GraphEngine.decode_by_graph`.

        The session is looked for once a stream, as those of mask steps are once a rollout: it holds weights of its own.
        """
        first = next(latents, None)
        if first is None:
            return
        decoder, latents = self._decoder(codec, first[:1], build=False), chain([first], latents)
        if decoder is None:
            yield from codec.decode_stream(latents)
            return
        for latents_BCHW in latents:
            yield torch.stack([decoder.run([one_CHW[None]])[0] for one_CHW in latents_BCHW.float()])

    @override
    def decodes_latents(self, codec: Codec) -> bool:
        return decodes_frames(codec) and codec.device.type == "cpu" and codec.dtype == torch.float32

    @override
    def has_graphs(self, job: Job) -> bool:
        return all(self.files.read(step_name(job.model, form)) for form in step_forms(job))

    @override
    def builds(self, seconds: float) -> bool:
        return seconds >= BUILDING_PAYS and not missing_packages(("onnx", "onnxscript"))

    def _step(self, model: MagiVideoTransformer, form: StepForm, build: bool) -> Session | None:
        function = MaskStepFunction(model, form).eval()
        return self._session(
            step_name(model, form), function, lambda: example_inputs(model, form), build, "a mask step"
        )

    def _decoder(self, codec: Codec, latents_1CHW: Tensor, build: bool) -> Session | None:
        function = DecodeFunction(codec).eval()
        name = decoder_name(codec, list(latents_1CHW.shape))
        generator = torch.Generator().manual_seed(0)
        return self._session(
            name, function, lambda: (torch.randn(latents_1CHW.shape, generator=generator),), build, "the decoder"
        )

    @torch.no_grad()
    def _session(
        self, name: str, function: nn.Module, make_inputs: Callable[[], tuple[Any, ...]], build: bool, what: str
    ) -> Session | None:
        """The session of that name: from memory, from a file, or made. Compared with PyTorch before it is used."""
        with self._lock:
            stamp, session = self._sessions.get(name, (None, None))
            if stamp == stamp_of(function) and (session is not None or not build):
                return session
            graph, session = self.files.read(name), None
            if graph is not None or build:
                inputs = make_inputs()
                leaves = flat(inputs)
                made = function(*inputs)
                expected = made if isinstance(made, list) else [made]
                if graph is not None:
                    session = self._checked(graph, function, leaves, expected)
                if session is None and build:
                    graph = self._made(function, inputs, what)
                    session = self._checked(graph, function, leaves, expected)
                    if session is None:
                        raise MagiError(f"the graph of {what} does not give PyTorch's result")
                    self.files.write(name, graph)
                    report_unusable_cache(self.say)
            self._sessions[name] = stamp_of(function), session
            return session

    def _made(self, function: nn.Module, inputs: tuple[Any, ...], what: str) -> Graph:
        if lacking := missing_packages(("onnx", "onnxscript")):
            raise MagiError(f"{lacking} is not installed, which makes graphs: {install_command('export')}")
        self.stage(f"making the graph of {what}, once for models of this kind")
        try:
            return export_graph(function, inputs)
        except Exception as error:  # exporters have no common one
            raise MagiError(f"{what} has no graph: {first_line(error, kind=True)}") from None

    def _checked(
        self, graph: Graph, function: nn.Module, leaves: list[Tensor], expected: Sequence[Tensor]
    ) -> Session | None:
        try:
            session = Session(graph, function, self.threads)
        except MagiError:
            return None
        return session if session.difference(leaves, expected) <= TOLERANCE else None


def stamp_of(function: nn.Module) -> Stamp:
    """Changes when weights or buffers are replaced or changed: sessions hold copies of them."""
    held = tensors_of(function).values()
    return tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in held)


def step_name(model: MagiVideoTransformer, form: StepForm) -> str:
    """What a graph of a mask step is made for."""
    step = {name: value for name, value in asdict(form).items() if name != "options"} | dict(form.options)
    config = {name: value for name, value in model.config.items() if name not in ADDED or value != ADDED[name]}
    return json.dumps({"format": FORMAT, "model": config, "step": step}, sort_keys=True)


def decoder_name(codec: Codec, shape: list[int]) -> str:
    """What a graph of a decoder is made for, that takes latents of this shape."""
    config = {name: value for name, value in codec.config.items() if name not in ("latents_mean", "latents_std")}
    kind = {"format": FORMAT, "codec": type(codec).__name__, "config": config, "latents": shape}
    return json.dumps(kind, sort_keys=True)
