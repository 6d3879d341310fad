"""CUDA graphs as an engine: a mask step with all its denoise steps is captured once and replayed, likewise the decoder.

A small frame on a GPU is bound by launches: Doom's takes some 1,000 operators at `realtime`, 11,000 at `exact`. A
graph launches them all at once. It repeats the same operators on the same addresses: so what changes from step to step
lies in memory that stays where it is (`fast/fixed_memory.py`), and is copied there before a replay.

- The inputs of each form of a mask step (`StepInputs`), allocated once. Noise is drawn outside, from a generator for
  each sample, on whichever device the generators are.
- Keys and values (`FixedCache`), read and written by all graphs of a kind and lent to one rollout at a time. Slots and
  what may be seen of them follow, inside the graph, from one number: how many frames there are.
- Results are copied out of the graphs' memory pool inside the graph. Graphs share one pool, so that a replay may
  overwrite whatever another one left in it.

How work is captured is behind a seam, `Capture` (`fast/cuda_capture.py`). The tests put a recorder there, which replays
the recorded operators on the recorded memory; nothing here has run on a GPU yet.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from magi_video.codecs.base import Codec
from magi_video.errors import first_line
from magi_video.fast.cache import PlacesCache
from magi_video.fast.cuda_capture import Capture, CudaCapture, uncached_casts
from magi_video.fast.engine_name import EngineName
from magi_video.fast.fixed_memory import (
    Content,
    FixedCache,
    both_of,
    content_of,
    fixed_inputs,
    fixed_like,
    tensors_of,
    without_changes,
)
from magi_video.fast.graph import StepForm, StepInputs, mask_step
from magi_video.fast.graph_engine import (
    GraphEngine,
    decodes_frames,
    largest_difference,
    step_forms,
    tolerance,
)
from magi_video.fast.graph_past import GraphPast
from magi_video.fast.job import Job
from magi_video.fast.speed import prepare
from magi_video.models.head import Noise, TokenHead
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer

MOST_KINDS = 8
"""Kinds of rollout (number of videos, length, guidance, precision) whose graphs are kept; the oldest make room."""
G = TypeVar("G")


class Captured(NamedTuple):
    """A captured work.

    Attributes:
        inputs: memory that it reads.
        output: memory that it writes.
        replay: does it again.
    """

    inputs: list[Tensor]
    output: Tensor
    replay: Callable[[], object]

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """The output for these inputs, in memory of its own."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new, non_blocking=True)
        self.replay()
        return self.output.clone()

    def run_first(self, inputs: Sequence[Tensor]) -> Tensor:
        """The same, with NaN for all that a replay does not write: what the capture left there does not count."""
        self.output.fill_(torch.nan)
        return self.run(inputs)


class KeptGraphs(Generic[G]):
    """Graphs by kind, over the weights of a module where they are: those of the latest kinds."""

    def __init__(self) -> None:
        self.graphs: dict[Any, G] = {}
        self._addresses: list[int] = []
        self._weights: list[Tensor] = []  # kept where they are: graphs read them, and no others take their addresses

    def find(self, module: nn.Module, kind: Any, make: Callable[[], G]) -> G:
        """The graphs of a kind; made if there are none, or if the module's weights have moved since."""
        weights = [*module.parameters(), *module.buffers()]
        addresses = [one.data_ptr() for one in weights]
        if addresses != self._addresses:  # moved, as `enable_model_cpu_offload` does in every call
            self.graphs.clear()
            self._addresses, self._weights = addresses, [one.detach() for one in weights]
        graphs = self.graphs.pop(kind) if kind in self.graphs else make()
        self.graphs[kind] = graphs  # the latest at the end
        for old in list(self.graphs)[:-MOST_KINDS]:
            del self.graphs[old]
        return graphs


class StepGraphs:
    """The graphs of one kind of rollout, over one cache.

    Args:
        model: sped up; its weights stay where they are.
        capture: by which a graph is made.
        say: called with a line when a graph is not used.
    """

    def __init__(self, model: MagiVideoTransformer, capture: Capture, say: Callable[[str], object]) -> None:
        self.model, self.capture, self.say = model, capture, say
        self.dtype = product_dtype(model)
        self.cache: FixedCache | None = None
        self.steps: dict[StepForm, Captured | None] = {}
        self.problem: str | None = None
        """Why a form is left to PyTorch: the first reason."""

    def run(self, form: StepForm, inputs: StepInputs, cache: PlacesCache) -> Tensor:
        """A mask step of a rollout, `[B, n, D]`; the first of a form by PyTorch, with which its graph has to agree.

        Args:
            form: of the step.
            inputs: for as many tokens as the form has.
            cache: of the rollout.
        """
        if form not in self.steps:
            before = content_of(cache)
            expected_BnD = mask_step(self.model, cache, form, inputs)
            self.steps[form] = self._checked(form, inputs, cache, before, expected_BnD)
            return expected_BnD
        step = self.steps[form]
        if step is None:
            return mask_step(self.model, cache, form, inputs)
        assert self.cache is not None
        self.cache.lend(cache)
        return step.run(inputs.tensors())

    def _checked(
        self, form: StepForm, inputs: StepInputs, cache: PlacesCache, before: Content, expected_BnD: Tensor
    ) -> Captured | None:
        """A form's graph if it makes of the cache before what PyTorch made; the cache is left as PyTorch left it."""
        try:
            with torch.inference_mode(False), torch.no_grad():
                after = content_of(cache)
                self.cache = self.cache or FixedCache(cache)
                self.cache.lend(cache)
                try:
                    step = self._captured(form, inputs)
                    self.cache.fill(without_changes(before, after))
                    made: Content = [step.run_first(inputs.tensors()), *tensors_of(self.cache)]
                    difference = largest_difference(*both_of(made, [expected_BnD, *after]))
                finally:
                    self.cache.fill(after)
        except Exception as error:  # whatever it is, PyTorch goes on
            self._report(f"a mask step has no CUDA graph: {first_line(error, kind=True)}")
            return None
        if difference > tolerance(self.dtype):
            self._report("the CUDA graph of a mask step does not give PyTorch's result")
            return None
        return step

    def _captured(self, form: StepForm, inputs: StepInputs) -> Captured:
        mine = fixed_inputs(inputs)
        for held, new in zip(mine.tensors(), inputs.tensors(), strict=True):
            held.copy_(new)
        tokens_BnD = torch.empty(
            (form.batch, form.count, self.model.token_dim), dtype=torch.float32, device=self.model.device
        )

        def work() -> None:
            tokens_BnD.copy_(mask_step(self.model, self.cache, form, mine))

        with uncached_casts():
            replay = self.capture(work, self.model.device)
        return Captured(mine.tensors(), tokens_BnD, replay)

    def _report(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.say(f"engine torch: {problem}")


class CapturedPast(GraphPast):
    """A past whose mask steps are captured.

    Args:
        model, total_frames, forms: as of `GraphPast`.
        find: finds the graphs of its kind, over the weights as they are and in the precision that there is.
        lock: held while the graphs' memory is in use: PyTorch's own passes over a cache that is lent use it too.
    """

    def __init__(
        self,
        model: MagiVideoTransformer,
        total_frames: int | None,
        forms: Sequence[StepForm],
        find: Callable[[], StepGraphs],
        lock: AbstractContextManager[Any],
    ) -> None:
        super().__init__(model, total_frames, forms)
        self.find, self._lock = find, lock
        self._found: Callable[[], StepGraphs | None] = lambda: None  # others of a kind decide how long they are kept

    @override
    def append(self, frame: FrameSequence) -> None:
        with self._lock:
            super().append(frame)

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        with self._lock:
            return super().read(frame, places_Bn, changed_Bm)

    @override
    def sample(
        self,
        head: TokenHead,
        frame: FrameSequence,
        places_Bn: Tensor,
        changed_Bm: Tensor | None,
        noise: Noise,
        options: dict[str, Any],
    ) -> Tensor:
        with self._lock:
            return super().sample(head, frame, places_Bn, changed_Bm, noise, options)

    @override
    def step(self, form: StepForm, inputs: StepInputs) -> Tensor:
        """See `GraphPast.step`; graphs are looked for once a frame, and where autocast has come or gone."""
        graphs = self._found()
        if graphs is None or form.finished or graphs.dtype != product_dtype(self.model):
            graphs = self.find()
            self._found = weakref.ref(graphs)
        return graphs.run(form, inputs, self.cache)


@dataclass(kw_only=True)
class CudaGraphEngine(GraphEngine):
    """CUDA graphs, captured when a kind of rollout first needs them.

    Attributes:
        capture: by which graphs are made.
        say, stage, decodes: as of `GraphEngine`.
    """

    capture: Capture = field(default_factory=CudaCapture)
    name: ClassVar[EngineName] = "cudagraphs"
    title: ClassVar[str] = "CUDA graphs"
    _steps: KeptGraphs[StepGraphs] = field(default_factory=KeptGraphs)
    _decoders: KeptGraphs[Captured | None] = field(default_factory=KeptGraphs)
    _lock: Any = field(default_factory=RLock)

    @override
    def misfit(self, model: MagiVideoTransformer) -> str | None:
        if model.device.type != self.capture.device_type:
            return f"CUDA graphs run on a GPU, and the model is on {model.device.type}"
        return None

    @override
    def prepare(self, job: Job, build: bool) -> str | None:
        """See `GraphEngine.prepare`: a frame is made if graphs may be; else they are captured when they are needed."""
        if problem := self.not_covered(job):
            return problem
        prepare(job.model)
        if build:
            self.stage("capturing CUDA graphs")
            rollout = job.begin(self)
            rollout.predict()
            assert isinstance(rollout.past, CapturedPast)
            return rollout.past.find().problem
        return None

    @override
    def make_past(self, job: Job) -> GraphPast:
        forms = step_forms(job)
        kind = (forms[0].batch, forms[0].rows, forms[0].slots, job.sampling.refresh > 1)
        return CapturedPast(job.model, job.total_frames, forms, partial(self._find, job.model, kind), self._lock)

    def _find(self, model: MagiVideoTransformer, kind: tuple[Any, ...]) -> StepGraphs:
        make = partial(StepGraphs, model, self.capture, self.say_once)
        with self._lock:
            return self._steps.find(model, (*kind, product_dtype(model)), make)

    @override
    def decodes_latents(self, codec: Codec) -> bool:
        return decodes_frames(codec) and codec.device.type == self.capture.device_type

    @override
    def decode_by_graph(self, codec: Codec, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        return (self._decode(codec, latents_BCHW) for latents_BCHW in latents)

    def _decode(self, codec: Codec, latents_BCHW: Tensor) -> Tensor:
        """Pixels `[B, 1, 3, height, width]`; by PyTorch where there is no graph that gives its result.

        The graph is looked for once a frame, as those of mask steps are: it reads weights where they were, which may
        have moved, and memory that it shares with other graphs.
        """
        kind = latents_BCHW.shape, latents_BCHW.dtype
        with self._lock:
            decoder = self._decoders.find(codec, kind, partial(self._checked_decoder, codec, latents_BCHW))
            return codec.decode(latents_BCHW[:, None]) if decoder is None else decoder.run([latents_BCHW])

    def _checked_decoder(self, codec: Codec, latents_BCHW: Tensor) -> Captured | None:
        expected = codec.decode(latents_BCHW[:, None])
        try:
            with torch.inference_mode(False), torch.no_grad(), uncached_casts():
                mine, pixels_B1CHW = fixed_like(latents_BCHW), fixed_like(expected)
                mine.copy_(latents_BCHW)
                replay = self.capture(lambda: pixels_B1CHW.copy_(codec.decode(mine[:, None])), mine.device)
                decoder = Captured([mine], pixels_B1CHW, replay)
                difference = largest_difference([decoder.run_first([latents_BCHW])], [expected])
        except Exception as error:  # whatever it is, PyTorch goes on
            self.say_once(f"torch decodes: {first_line(error, kind=True)}")
            return None
        if difference > tolerance(codec.dtype):
            self.say_once("torch decodes: the CUDA graph of the decoder does not give PyTorch's result")
            return None
        return decoder


def product_dtype(model: MagiVideoTransformer) -> torch.dtype:
    """The precision of a model's products: autocast's, where it is on."""
    kind = model.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
