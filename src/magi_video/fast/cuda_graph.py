"""CUDA graphs as an engine: a mask step with all its denoise steps is captured once and replayed, likewise the decoder.

A small frame on a GPU is bound by launches: Doom's takes some 1,000 operators at `realtime`, 11,000 at `exact`. A
graph launches them all at once. It is the same work on the same memory, whatever happened since: so what changes from
step to step lies in memory that stays where it is, and is copied there before a replay.

- The inputs of each form of a mask step (`StepInputs`), allocated once. Noise is drawn outside, from a generator for
  each sample, on whichever device the generators are.
- Keys and values (`FixedCache`), read and written by all graphs of a kind and lent to one rollout at a time. Slots and
  what may be seen of them follow, inside the graph, from one number: how many frames there are.
- Results are copied out of the graphs' memory pool inside the graph. Graphs share one pool, so that a replay may
  overwrite whatever another one left in it.

How work is captured is behind a seam, `Capture`. The tests put a recorder there, which replays the recorded operators
on the recorded memory; nothing here has run on a GPU yet.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from threading import RLock
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

from magi_video.codecs.base import Codec
from magi_video.fast.cache import PlaceCache, PlacesCache, sample_index
from magi_video.fast.engine_name import EngineName
from magi_video.fast.graph import StepForm, StepInputs, frames_of, mask_step
from magi_video.fast.graph_engine import (
    LOW_TOLERANCE,
    TOLERANCE,
    GraphEngine,
    decodes_frames,
    largest_difference,
    step_forms,
)
from magi_video.fast.graph_past import GraphPast
from magi_video.fast.job import Job
from magi_video.fast.speed import prepare
from magi_video.models.cache import FrameCache
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.past import pick

WARM_UPS = 3
"""Runs before a capture: libraries choose kernels and allocate their workspaces in the first ones."""
MOST_KINDS = 8
"""Kinds of rollout (number of videos, length, guidance, precision) whose graphs are kept; the oldest make room."""


class Capture(Protocol):
    """Makes of work on memory that stays where it is what does the same work again."""

    device_type: str
    """Where it can."""

    def __call__(self, work: Callable[[], object], device: torch.device) -> Callable[[], object]:
        """Called with no gradients and no cached casts; the work is done at least once."""
        ...


class CudaCapture(Capture):
    """`torch.cuda.CUDAGraph`s, which share one memory pool."""

    device_type = "cuda"

    def __init__(self) -> None:
        self._pool: Any = None

    @override
    def __call__(self, work: Callable[[], object], device: torch.device) -> Callable[[], object]:
        with torch.cuda.device(device):
            aside = torch.cuda.Stream()  # warm-up and capture in one stream: libraries keep a workspace for each
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(aside)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Another thread may decode meanwhile: what it does is no error of this capture.
            with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
                work()
        return graph.replay


class FixedLayer(PlaceCache):
    """A block's cache that is written at slots given by a tensor, and attended to whole.

    Args:
        like: the layer of a rollout; memory of the same shape is allocated.
    """

    def __init__(self, like: PlaceCache) -> None:
        self.keys, self.values = torch.zeros_like(like.keys), torch.zeros_like(like.values)
        self.remembers = like.remembers
        self.spatial: tuple[Tensor, Tensor] | None = None

    @override
    def write(self, k_BLHSd: Tensor, v_BLHSd: Tensor, at_Bn: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `PlaceCache.write`: of all slots."""
        for held, new in ((self.keys, k_BLHSd), (self.values, v_BLHSd)):
            if at_Bn is None:
                held.index_copy_(3, self.slots_S, new.to(held.dtype))
            else:  # one frame: S = 1
                held[sample_index(at_Bn), at_Bn, :, self.slots_S] = new[:, :, :, 0].to(held.dtype)
        return (self.keys, self.values) if at_Bn is None else (pick(self.keys, at_Bn), pick(self.values, at_Bn))

    @override
    def remember(self, k_BLHd: Tensor, v_BLHd: Tensor, at_Bn: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `PlaceCache.remember`: always in the same memory."""
        assert self.spatial is not None, "a rollout's own pass comes before"
        if at_Bn is not None:
            return super().remember(k_BLHd, v_BLHd, at_Bn)
        for held, new in zip(self.spatial, (k_BLHd, v_BLHd), strict=True):
            held.copy_(new)
        return self.spatial


class FixedCache(FrameCache):
    """Keys and values where graphs find them, lent to one rollout at a time.

    Args:
        like: the cache of a rollout; memory of the same shapes is allocated.
    """

    def __init__(self, like: PlacesCache) -> None:
        self.layers: list[FixedLayer] = [FixedLayer(layer) for layer in like.layers]
        self.capacity, self.window, self.device = like.capacity, like.window, like.device
        self.length_on_device = torch.zeros((), dtype=torch.long, device=like.device)
        self._borrower: Callable[[], PlacesCache | None] = lambda: None

    def lend(self, cache: PlacesCache) -> None:
        """Make this a rollout's memory: what it holds is copied here, and the one before gets its own back."""
        before = self._borrower()
        if before is not cache:
            if before is not None:
                self._give_back(before)
            self._borrower = weakref.ref(cache)
        for mine, its in zip(self.layers, cache.layers, strict=True):
            if its.keys is not mine.keys:
                mine.keys.copy_(its.keys)
                mine.values.copy_(its.values)
                its.keys, its.values = mine.keys, mine.values
            if its.spatial is not None and its.spatial is not mine.spatial:
                if mine.spatial is None:
                    mine.spatial = fixed_like(its.spatial[0]), fixed_like(its.spatial[1])
                for held, new in zip(mine.spatial, its.spatial, strict=True):
                    held.copy_(new)
                its.spatial = mine.spatial
        self.length_on_device.fill_(cache.length)

    def _give_back(self, cache: PlacesCache) -> None:
        for mine, its in zip(self.layers, cache.layers, strict=True):
            if its.keys is mine.keys:
                its.keys, its.values = mine.keys.clone(), mine.values.clone()
            if mine.spatial is not None and its.spatial is mine.spatial:
                its.spatial = mine.spatial[0].clone(), mine.spatial[1].clone()

    def begin(self, frames: int) -> Tensor:
        """See `FrameCache.begin`; `[S, F]`, reckoned on the device."""
        slots_S = (self.length_on_device + torch.arange(frames, device=self.device)) % self.capacity
        for layer in self.layers:
            layer.slots_S = slots_S
        return self.visible(self.length_on_device + frames, frames, self.capacity)


def fixed_like(one: Tensor) -> Tensor:
    """Memory for a tensor of this shape and type."""
    return torch.empty(one.shape, dtype=one.dtype, device=one.device)


def fixed_inputs(inputs: StepInputs) -> StepInputs:
    """Memory for inputs of these shapes."""
    frames, conditions = [[fixed_like(one) for one in part] for part in (inputs.of_frames(), inputs.conditions())]
    return StepInputs(
        frames_of(frames, sorted(inputs.frames.conditions), conditions),
        fixed_like(inputs.places_Rn),
        [fixed_like(one) for one in inputs.draws],
        fixed_like(inputs.temperature),
        None if inputs.guidance is None else fixed_like(inputs.guidance),
        None if inputs.appeared_Rn is None else fixed_like(inputs.appeared_Rn),
    )


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

    def difference(self, inputs: Sequence[Tensor], expected: Tensor) -> float:
        """See `largest_difference`; what work left before a replay does not count."""
        self.output.fill_(torch.nan)
        return largest_difference([self.run(inputs)], [expected])

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """The output for these inputs, in memory of its own."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new, non_blocking=True)
        self.replay()
        return self.output.clone()


class StepGraphs:
    """The graphs of one kind of rollout, over one cache.

    Args:
        model: sped up; its weights are kept where they are.
        capture: by which a graph is made.
        say: called with a line when a graph is not used.
    """

    def __init__(self, model: MagiVideoTransformer, capture: Capture, say: Callable[[str], object]) -> None:
        self.model, self.capture, self.say = model, capture, say
        self.cache: FixedCache | None = None
        self.steps: dict[StepForm, Captured | None] = {}
        self.problem: str | None = None
        """Why a form is left to PyTorch: the first reason."""
        self._weights = [one.detach() for one in (*model.parameters(), *model.buffers())]

    def run(self, form: StepForm, inputs: StepInputs, cache: PlacesCache) -> Tensor:
        """A mask step of a rollout, `[B, n, D]`; the first of a form by PyTorch too, with which it has to agree.

        Args:
            form: of the step.
            inputs: for as many tokens as the form has.
            cache: of the rollout.
        """
        if form not in self.steps:
            expected = mask_step(self.model, cache, form, inputs)
            self.steps[form] = self._checked(form, inputs, cache, expected)
            if self.steps[form] is None:
                return expected
        step = self.steps[form]
        if step is None:
            return mask_step(self.model, cache, form, inputs)
        assert self.cache is not None
        self.cache.lend(cache)
        return step.run(inputs.tensors())

    def _checked(self, form: StepForm, inputs: StepInputs, cache: PlacesCache, expected: Tensor) -> Captured | None:
        try:
            with torch.inference_mode(False), torch.no_grad():
                self.cache = self.cache or FixedCache(cache)
                self.cache.lend(cache)
                step = self._captured(form, inputs)
            difference = step.difference(inputs.tensors(), expected)
        except Exception as error:  # whatever it is, PyTorch goes on
            self._report(f"a mask step has no CUDA graph: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return None
        if difference > (TOLERANCE if product_dtype(self.model) == torch.float32 else LOW_TOLERANCE):
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
        graphs: finds the graphs of its kind; called in every step, since autocast may come and go.
        lock: held while the graphs' memory is in use.
    """

    def __init__(
        self,
        model: MagiVideoTransformer,
        total_frames: int | None,
        forms: Sequence[StepForm],
        graphs: Callable[[], StepGraphs],
        lock: Any,
    ) -> None:
        super().__init__(model, total_frames, forms)
        self.graphs, self._lock = graphs, lock

    @override
    def step(self, form: StepForm, inputs: StepInputs) -> Tensor:
        with self._lock:
            return self.graphs().run(form, inputs, self.cache)


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
    _kinds: dict[Any, StepGraphs] = field(default_factory=dict)
    _decoders: dict[Any, Captured | None] = field(default_factory=dict)
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
            return rollout.past.graphs().problem
        return None

    @override
    def make_past(self, job: Job) -> GraphPast:
        forms = step_forms(job)
        kind = (forms[0].batch, forms[0].rows, forms[0].slots, job.sampling.refresh > 1, addresses(job.model))
        return CapturedPast(job.model, job.total_frames, forms, partial(self._graphs, job.model, kind), self._lock)

    def _graphs(self, model: MagiVideoTransformer, kind: tuple[Any, ...]) -> StepGraphs:
        key = (*kind, product_dtype(model))
        # Weights that were moved (`enable_model_cpu_offload` does it in every call) would be kept by the old graphs.
        self._kinds = {other: one for other, one in self._kinds.items() if other[-2] == kind[-1]}
        graphs = self._kinds.pop(key) if key in self._kinds else StepGraphs(model, self.capture, self.say_once)
        self._kinds[key] = graphs  # the latest at the end
        for old in list(self._kinds)[:-MOST_KINDS]:
            del self._kinds[old]
        return graphs

    @override
    def decodes_latents(self, codec: Codec) -> bool:
        return decodes_frames(codec) and codec.device.type == self.capture.device_type

    @override
    def decode_stream(self, codec: Codec, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        if not (self.decodes and self.decodes_latents(codec)):
            yield from super().decode_stream(codec, latents)
            return
        first = next(latents, None)
        if first is None:
            return
        for latents_BCHW in chain([first], latents):
            yield self._decode(codec, latents_BCHW)

    def _decode(self, codec: Codec, latents_BCHW: Tensor) -> Tensor:
        """Pixels `[B, 1, 3, height, width]`; by PyTorch where there is no graph that gives its result."""
        key = (latents_BCHW.shape, latents_BCHW.dtype, addresses(codec))
        with self._lock:
            if key not in self._decoders:
                expected = codec.decode(latents_BCHW[:, None])
                kept = [(other, one) for other, one in self._decoders.items() if other[-1] == key[-1]]
                self._decoders = dict(kept[1 - MOST_KINDS :])
                self._decoders[key] = self._checked_decoder(codec, latents_BCHW, expected)
                return expected
            decoder = self._decoders[key]
            return codec.decode(latents_BCHW[:, None]) if decoder is None else decoder.run([latents_BCHW])

    def _checked_decoder(self, codec: Codec, latents_BCHW: Tensor, expected: Tensor) -> Captured | None:
        weights = [one.detach() for one in (*codec.parameters(), *codec.buffers())]  # kept where they are
        try:
            with torch.inference_mode(False), torch.no_grad(), uncached_casts():
                mine, pixels_B1CHW = fixed_like(latents_BCHW), fixed_like(expected)
                mine.copy_(latents_BCHW)
                again = self.capture(lambda: pixels_B1CHW.copy_(codec.decode(mine[:, None])), mine.device)
                decoder = Captured([mine], pixels_B1CHW, lambda: (again(), weights))
            difference = decoder.difference([latents_BCHW], expected)
        except Exception as error:  # whatever it is, PyTorch goes on
            self.say_once(f"torch decodes: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return None
        if difference > (TOLERANCE if codec.dtype == torch.float32 else LOW_TOLERANCE):
            self.say_once("torch decodes: the CUDA graph of the decoder does not give PyTorch's result")
            return None
        return decoder


def addresses(module: nn.Module) -> tuple[int, ...]:
    """Where the weights are: graphs read them there, and see it when they are changed in place."""
    return tuple(one.data_ptr() for one in module.parameters())


def product_dtype(model: MagiVideoTransformer) -> torch.dtype:
    """The precision of a model's products: autocast's, where it is on."""
    kind = model.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype


@contextmanager
def uncached_casts() -> Iterator[None]:
    """Under autocast, weights are cast in the graph: casts that autocast keeps are freed where its block ends."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
