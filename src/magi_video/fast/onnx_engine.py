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

from magi_video.codecs.base import Codec
from magi_video.errors import MagiError
from magi_video.fast.engine import Engine, Say, Stage
from magi_video.fast.engine_name import EngineName, missing_packages
from magi_video.fast.graph import DecodeFunction, MaskStepFunction, StepForm, example_inputs
from magi_video.fast.graph_past import GraphPast, Steps
from magi_video.fast.onnx_graph import TOLERANCE, Graph, GraphFiles, Session, export_graph
from magi_video.fast.speed import prepare
from magi_video.files.cache import report_unusable_cache
from magi_video.installation import install_command
from magi_video.models.head import DiffusionHead
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.paradigms.masked_frames import MaskedFrames, unmasking_counts
from magi_video.sampling.past import Past
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import ResolvedSampling

FORMAT = 1
"""Of graphs' inputs and outputs."""
SLOTS = 16
"""The cache of a rollout of fixed length is rounded up to so many slots: each number needs a graph of its own."""
ADDED: dict[str, Any] = {"canvas": False}
"""Settings of a model that came after the first graphs, with the values that those were made for: left out of a graph's
name, so that the graphs of before are found."""
Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Job:
    """What frames are made for.

    Attributes:
        paradigm, model, codec: of the model; None for no codec: latents are not decoded.
        sampling: of a frame.
        batch: videos made together, B.
        total_frames: latent frames of a rollout; None for one without end.
    """

    paradigm: Paradigm
    model: MagiVideoTransformer
    codec: Codec | None
    sampling: ResolvedSampling
    batch: int = 1
    total_frames: int | None = None

    def begin(self, engine: Engine) -> Rollout:
        """A rollout by an engine, with a random frame behind it, for measuring frames."""
        total = None if self.model.config.temporal_position == "rope" else cache_slots(self.model, self.total_frames)
        rollout = Rollout(
            self.model,
            self.paradigm,
            SampleNoise.from_seeds(list(range(self.batch))),
            self.sampling,
            torch.ones(self.batch, dtype=torch.long),
            total,
            past=engine.begin_past(self.paradigm, self.model, self.batch, total, self.sampling),
        )
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, self.model.num_tokens, self.model.token_dim)
        rollout.observe(torch.randn(shape, generator=generator))
        return rollout

    def latents(self) -> Tensor:
        """Random latents `[B, C, h, w]`."""
        config, generator = self.model.config, torch.Generator().manual_seed(0)
        shape = (self.batch, config.latent_channels, config.latent_height, config.latent_width)
        return torch.randn(shape, generator=generator)


def not_covered(job: Job, use_cache: bool | None = None) -> str | None:
    """Why the graphs cannot make the frames of a job; None if they can."""
    model, paradigm = job.model, job.paradigm
    if model.device.type != "cpu":
        return f"graphs run on the CPU, and the model is on {model.device.type}"
    if model.dtype != torch.float32:
        return f"graphs compute in float32, and the weights are {str(model.dtype).removeprefix('torch.')}"
    if not paradigm.frame_cache or not isinstance(paradigm, MaskedFrames):
        return f"graphs make masked frames over the frame cache, and {paradigm.name} generates in another way"
    if not isinstance(model.diffusion_head, DiffusionHead):
        return f"graphs hold a diffusion head, and the model's is {model.config.head}"
    if job.sampling.last_denoise_steps not in (None, job.sampling.denoise_steps):
        return "graphs have the same number of denoise steps in every mask step"
    if job.sampling.order == "sparse-to-dense":
        return "graphs compute every mask step for as many tokens as the largest, here half of the frame"
    if model.canvas_out is not None:
        return "graphs begin with the mask token, and the model paints a canvas"
    if job.sampling.sink_frames or job.sampling.strided_frames:
        return "graphs cannot keep sink_frames and strided_frames: each new frame sees those at other positions"
    if use_cache is False:
        return "graphs read the frame cache, which is not to be used"
    return None


def cache_slots(model: MagiVideoTransformer, total_frames: int | None) -> int:
    """Slots of the cache of a rollout."""
    trained = model.config.num_frames
    if model.config.temporal_position == "rope":  # the window, and the frame in the making
        return trained + 1
    return -(-(total_frames or trained) // SLOTS) * SLOTS


def step_forms(job: Job) -> list[StepForm]:
    """The graphs that a frame of a job needs."""
    model, sampling = job.model, job.sampling
    counts = unmasking_counts(model, sampling)
    slots = cache_slots(model, job.total_frames)
    names = sorted(set(model.diffusion_head.options) - {"temperature"})
    options = tuple((name, getattr(sampling, name)) for name in names)
    later = {number % sampling.refresh > 0 for number in range(1, len(counts))}  # whether it reuses
    forms = []
    for finished, reuses in [(True, False), *((False, one) for one in sorted(later))]:
        follows = True in later and (not reuses or len(counts) > 2)
        common = (options, job.batch, max(counts), slots)
        forms.append(StepForm(*common, finished, reuses, remembers=follows, guided=sampling.guided))
    return forms


@dataclass
class OnnxEngine(Engine):
    """ONNX Runtime.

    Args:
        files: where graphs are.
        threads: of a run.
        say: called with a line when what is asked for is left to PyTorch, or graphs cannot be kept.
        stage: called when graphs begin to be loaded, or one to be made.
    """

    files: GraphFiles
    threads: int = 1
    say: Say = lambda _: None
    stage: Stage = lambda _: None
    name: ClassVar[EngineName] = "onnx"
    decodes: bool = True
    """Whether the decoder is a graph as well, where it can be one."""
    _sessions: dict[str, tuple[Stamp, Session | None]] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)
    _lock: Any = field(default_factory=Lock)

    def prepare(self, job: Job, build: bool) -> str | None:
        """Load the graphs of a job.

        Args:
            job: what is to be made.
            build: make those that are not there.

        Returns:
            None, or why the job is left to PyTorch. A decoder of which no graph can be made is left to it,
            and `say` gets a line.

        Raises:
            MagiError: a graph of a mask step cannot be made.
        """
        if problem := not_covered(job):
            return problem
        if not self._sessions:
            self.stage("loading graphs for ONNX Runtime")
        prepare(job.model)
        if not all(self._step(job.model, form, build) for form in step_forms(job)):
            return f"there are no graphs for {describe(job)}"
        if job.codec is not None and decodable(job.codec):
            try:
                self._decoder(job.codec, job.latents()[:1], build)
            except MagiError as error:
                self.say(f"torch decodes: {error}")
        return None

    def begin_past(
        self,
        paradigm: Paradigm,
        model: MagiVideoTransformer,
        batch: int,
        total_frames: int | None,
        sampling: ResolvedSampling,
        use_cache: bool | None = None,
    ) -> Past:
        """See `Engine.begin_past`; graphs that are in files are loaded, none is made."""
        job = Job(paradigm, model, None, sampling, batch, total_frames)
        problem = not_covered(job, use_cache) or self.prepare(job, build=False)
        if problem:
            if problem not in self._said:
                self._said.add(problem)
                self.say(f"engine torch: {problem}")
            return super().begin_past(paradigm, model, batch, total_frames, sampling, use_cache)
        steps: Steps = {}
        for form in step_forms(job):
            session = self._step(model, form, build=False)
            assert session is not None
            steps[form.finished, form.reuses] = form, session.run
        return GraphPast(model, total_frames, steps)

    def decode_stream(self, codec: Codec, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        """See `Engine.decode_stream`."""
        if not (self.decodes and decodable(codec)):
            yield from super().decode_stream(codec, latents)
            return
        first = next(latents, None)
        if first is None:
            return
        decoder, latents = self._decoder(codec, first[:1], build=False), chain([first], latents)
        if decoder is None:
            yield from super().decode_stream(codec, latents)
            return
        for latents_BCHW in latents:
            yield torch.stack([decoder.run([one_CHW[None]])[0] for one_CHW in latents_BCHW.float()])

    def has_graphs(self, job: Job) -> bool:
        """Whether the graphs of a job's frames are in files."""
        return all(self.files.read(step_name(job.model, form)) for form in step_forms(job))

    def _step(self, model: MagiVideoTransformer, form: StepForm, build: bool) -> Session | None:
        function = MaskStepFunction(model, form).eval()
        return self._session(
            step_name(model, form), function, lambda: example_inputs(model, form).tree(), build, "a mask step"
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
                flat = [leaf for part in inputs for leaf in (part if isinstance(part, list) else [part])]
                made = function(*inputs)
                expected = made if isinstance(made, list) else [made]
                if graph is not None:
                    session = self._checked(graph, function, flat, expected)
                if session is None and build:
                    graph = self._made(function, inputs, what)
                    session = self._checked(graph, function, flat, expected)
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
            raise MagiError(f"{what} has no graph: {type(error).__name__}: {str(error).splitlines()[0]}") from None

    def _checked(
        self, graph: Graph, function: nn.Module, flat: list[Tensor], expected: Sequence[Tensor]
    ) -> Session | None:
        try:
            session = Session(graph, function, self.threads)
        except MagiError:
            return None
        return session if session.difference(flat, expected) <= TOLERANCE else None


def stamp_of(function: nn.Module) -> Stamp:
    """Changes when weights are replaced or changed: sessions hold copies of them."""
    return tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in function.parameters())


def describe(job: Job) -> str:
    """Sampling and number of videos, in words."""
    one = job.sampling
    videos = "one video" if job.batch == 1 else f"{job.batch} videos together"
    guided = ", guided" if one.guided else ""
    return f"{one.mask_steps} mask × {one.denoise_steps} denoise steps ({one.sampler}{guided}) of {videos}"


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


def decodable(codec: Codec) -> bool:
    """Whether a codec's decoder may be a graph: of frames by themselves, in float32 on the CPU."""
    return (
        codec.compresses
        and codec.temporal_factor == 1
        and type(codec).decode_stream is Codec.decode_stream
        and codec.device.type == "cpu"
        and codec.dtype == torch.float32
    )
