"""What the engines that compute a mask step as one graph share: what they cover, which graphs a frame needs, and that a
graph is compared with PyTorch before it is used."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.codecs.base import Codec
from magi_video.fast.engine import Engine, Say, Stage
from magi_video.fast.graph import StepForm
from magi_video.fast.graph_past import GraphPast
from magi_video.fast.job import Job, cache_slots
from magi_video.models.head import DiffusionHead
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.paradigms.masked_frames import MaskedFrames, unmasking_counts
from magi_video.sampling.past import Past
from magi_video.sampling.sampling import ResolvedSampling

TOLERANCE = 1e-3
"""Largest difference to PyTorch's result in float32, of the largest number there; rounding makes 1e-5."""
LOW_TOLERANCE = 3e-2
"""The same in bfloat16, which rounds by up to 4e-3; rounding of a whole mask step makes 1e-2."""


def tolerance(dtype: torch.dtype) -> float:
    """Largest difference to PyTorch's result in a precision, of the largest number there."""
    return TOLERANCE if dtype == torch.float32 else LOW_TOLERANCE


@dataclass
class GraphEngine(Engine):
    """An engine of graphs; what they do not cover is PyTorch's, over the same cache.

    Attributes:
        say: called with a line when what is asked for is left to PyTorch.
        stage: called with what begins to be done, where it takes seconds.
        decodes: whether the decoder is a graph as well, where it can be one.
    """

    title: ClassVar[str]
    """What computes, in messages."""
    say: Say = lambda _: None
    stage: Stage = lambda _: None
    decodes: bool = True
    _said: set[str] = field(default_factory=set)

    @abstractmethod
    def misfit(self, model: MagiVideoTransformer) -> str | None:
        """Why this engine cannot run a model where and in the precision that it is; None if it can."""

    @abstractmethod
    def prepare(self, job: Job, build: bool) -> str | None:
        """Get the graphs of a job.

        Args:
            job: what is to be made.
            build: make those that are not there.

        Returns:
            None, or why the job is left to PyTorch.

        Raises:
            MagiError: a graph cannot be made.
        """

    def has_graphs(self, job: Job) -> bool:
        """Whether the graphs of a job's frames are there, and need no more than loading."""
        return False

    def builds(self, seconds: float) -> bool:
        """Whether graphs that are not there can be made, and are worth it for a job of so many seconds by PyTorch."""
        return True

    @abstractmethod
    def make_past(self, job: Job) -> GraphPast:
        """The past of a rollout of a job that is prepared."""

    def not_covered(self, job: Job, use_cache: bool | None = None) -> str | None:
        """Why the graphs cannot make the frames of a job; None if they can."""
        return self.misfit(job.model) or not_covered(job, use_cache)

    @abstractmethod
    def decodes_latents(self, codec: Codec) -> bool:
        """Whether a codec's decoder can be a graph, where and in the precision that it is."""

    @abstractmethod
    def decode_by_graph(self, codec: Codec, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        """`decode_stream` of a codec whose decoder can be a graph; by PyTorch if there is none."""

    @override
    def decode_stream(self, codec: Codec, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        if self.decodes and self.decodes_latents(codec):
            return self.decode_by_graph(codec, latents)
        return super().decode_stream(codec, latents)

    @override
    def begin_past(
        self,
        paradigm: Paradigm,
        model: MagiVideoTransformer,
        batch: int,
        total_frames: int | None,
        sampling: ResolvedSampling,
        use_cache: bool | None = None,
    ) -> Past:
        """See `Engine.begin_past`; graphs that are kept in files are loaded, and none is made for them."""
        job = Job(paradigm, model, None, sampling, batch, total_frames)
        problem = self.not_covered(job, use_cache) or self.prepare(job, build=False)
        if problem:
            self.say_once(f"engine torch: {problem}")
            return super().begin_past(paradigm, model, batch, total_frames, sampling, use_cache)
        return self.make_past(job)

    def say_once(self, line: str) -> None:
        """`say`, but for what has been said."""
        if line not in self._said:
            self._said.add(line)
            self.say(line)


def decodes_frames(codec: Codec) -> bool:
    """Whether a codec decodes each latent frame by itself."""
    return codec.compresses and codec.temporal_factor == 1 and type(codec).decode_stream is Codec.decode_stream


def not_covered(job: Job, use_cache: bool | None = None) -> str | None:
    """Why no graph can make the frames of a job, wherever it runs; None if one can."""
    model, paradigm = job.model, job.paradigm
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
        count = counts[0] if finished else max(counts[1:])  # the first mask step alone reads a finished frame
        forms.append(
            StepForm(options, job.batch, count, slots, finished, reuses, remembers=follows, guided=sampling.guided)
        )
    return forms


def largest_difference(made: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference to what is expected, of the largest number there; infinite where anything else differs."""
    if [one.shape for one in made] != [one.shape for one in expected]:
        return float("inf")
    pairs = zip(made, expected, strict=True)
    floats = [(one.float(), other.float()) for one, other in pairs]
    ratios = torch.stack([(one - other).abs().max() / other.abs().max().clamp(min=1) for one, other in floats])
    return float(ratios.max().nan_to_num(nan=torch.inf))
