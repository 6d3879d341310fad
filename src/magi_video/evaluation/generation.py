"""`magi evaluate`: continue real clips with a model, keep every sample without loss, and score them.

A sample is a pure function of the settings and of the group of `batch_size` neighbours that it is made in; a process
takes whole groups. So the samples do not depend on how many processes there are or where an earlier run stopped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magi_video.data.captions import check_each, read_captions
from magi_video.data.clips import clip_actions, clip_frames
from magi_video.data.folder import VideoFolder
from magi_video.data.identity import DataIdentity
from magi_video.distributed import Processes, one_by_one, side_by_side
from magi_video.errors import MagiError
from magi_video.evaluation.baselines import baseline_sets
from magi_video.evaluation.clipset import Origin, load_array
from magi_video.evaluation.controllability import check_controllability, random_actions
from magi_video.evaluation.options import EvaluateOptions
from magi_video.evaluation.protocols import Protocol, find_protocol
from magi_video.evaluation.realset import (
    ClipSet,
    Numbers,
    Pick,
    Sets,
    check_number,
    open_videos,
    prepare,
    real_clips,
    warn_of_sizes,
)
from magi_video.evaluation.record import (
    CONTENT,
    KERNELS,
    RECORD,
    choose_as_before,
    describe,
    engine_as_before,
    has_samples,
    kernels_as_before,
)
from magi_video.evaluation.scoring import Detectors, Progress, load_detectors, score_sets, silent
from magi_video.fast.beside import items_ahead, work_beside
from magi_video.fast.engine import Stage
from magi_video.fast.engine_name import EngineName
from magi_video.fast.kernel_choice import FAST_FLOAT32, generation_kernels
from magi_video.fast.probes import Choice
from magi_video.fast.threads import use_threads
from magi_video.files.artifact import Artifact
from magi_video.files.atomic import write_array
from magi_video.files.cache import report_unusable_cache
from magi_video.files.weights import is_local
from magi_video.models.architecture import TEXT
from magi_video.pipeline.inputs import check_seeds
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.sampling import Sampling

MOST_GROUPS = 8
"""Groups of samples that are made side by side on a CPU: each holds its own cache of frames."""


class Generation:
    """The samples of one evaluation, in a folder.

    Args:
        pipe: the model.
        videos: the data set.
        picks: the real clips that are continued, sample i continuing clip i.
        contexts: those clips, prepared.
        protocol: says frames, interval and how many frames are given.
        options: how samples are made.
        folder: where `000000.npy`, … lie.
        random: take random actions in place of the recorded ones; all else is the same, the noise too.

    Raises:
        MagiError: the model takes no such frames, interval, actions, labels or steps.
    """

    def __init__(
        self,
        pipe: MagiVideoPipeline,
        videos: VideoFolder,
        picks: Sequence[Pick],
        contexts: ClipSet,
        protocol: Protocol,
        options: EvaluateOptions,
        folder: Path,
        random: bool = False,
    ) -> None:
        check_seeds(options.seed, len(contexts))
        self.pipe, self.videos, self.picks, self.contexts = pipe, videos, picks, contexts
        self.protocol, self.options, self.folder = protocol, options, folder
        self.random = random
        self.labels = self._labels() if options.labels else None
        self.captions = self._captions() if options.captions else None
        self._stream([0])  # refuses what the model cannot do, before anything is written

    @cached_property
    def under_random_actions(self) -> Generation:
        """The same samples under random actions, beside these; made as this one is settled when it is first asked."""
        folder = self.folder.with_name(f"{self.folder.name}_random_actions")
        return Generation(
            self.pipe, self.videos, self.picks, self.contexts, self.protocol, self.options, folder, random=True
        )

    def settle(self, choice: Choice) -> None:
        """Compute in a precision from now on."""
        self.options = replace(self.options, precision=choice.precision)
        self.pipe.to(choice.dtype)

    def use_engine(
        self, engine: EngineName, processes: Processes, say: Callable[[str], None], stage: Stage = lambda _: None
    ) -> str:
        """Compute by an engine from now on; returns what there is to say of it."""
        size, count = min(self.options.batch_size, len(self.contexts)), len(self.contexts)
        latent_frames = self.pipe.codec.covering_latent_frames(self.protocol.frames)
        frames = latent_frames * -(-count // size) / processes.count
        one_each = processes.device.type == "cpu"  # groups are made side by side, each on one core
        line = self.pipe.use_engine(
            engine, self.options.sampling, size, latent_frames, frames, say, 1 if one_each else None, stage
        )
        self.options = replace(self.options, engine=self.pipe.engine.name)
        return line

    def run(self, processes: Processes, progress: Progress = silent) -> None:
        """Make the samples that are not there yet; this process its share of the groups."""
        size, count = self.options.batch_size, len(self.contexts)
        groups = [range(first, min(first + size, count)) for first in range(0, count, size)]
        missing = [group for group in groups if not all(self.is_there(index) for index in group)]
        frames = self.protocol.frames
        total, done = len(missing) * frames, itertools.count(1)

        mine = processes.mine(len(missing))
        ahead = items_ahead(processes.device, side_by_side(len(mine), processes.device, MOST_GROUPS))

        def make(number: int) -> None:
            made = []

            def decode(latents: Iterator[Tensor]) -> None:
                for frame_BHWC in self.pipe.decode_stream(latents, frames):
                    made.append((frame_BHWC * 255).round().astype(np.uint8))
                    progress("generating", min(total, next(done) * processes.count), total)

            work_beside(decode, self._stream(missing[number]), ahead)
            for index, video in zip(missing[number], np.stack(made, axis=1), strict=True):
                write_array(self.path(index), video)

        for _ in one_by_one(make, mine, processes.device, MOST_GROUPS):
            pass

    def path(self, index: int) -> Path:
        """Where a sample lies."""
        return self.folder / f"{index:06d}.npy"

    def is_there(self, index: int) -> bool:
        """Whether a sample is complete."""
        try:
            sample = load_array(self.path(index))
        except MagiError:
            return False
        size = (self.protocol.frames, self.pipe.config.height, self.pipe.config.width, 3)
        return sample.shape == size and sample.dtype == np.uint8

    def clips(self, count: int) -> ClipSet:
        """The samples as the protocol scores them: of its size, given frames as it says."""

        def read(index: int) -> np.ndarray:
            clip = prepare(np.array(load_array(self.path(index))), self.protocol)
            if self.protocol.given and self.protocol.given_pixels == "true":
                clip = clip.copy()
                clip[: self.protocol.given] = self.contexts[index][: self.protocol.given]
            return clip

        config = self.pipe.config
        origin = Origin(config.frame_rate / self.protocol.interval, (config.height, config.width))
        return ClipSet([self.path(index).stem for index in range(count)], read, str(self.folder), [origin] * count)

    def _stream(self, indices: Sequence[int]) -> Any:
        given, options = self.protocol.given, self.options
        return self.pipe.stream(
            video=np.stack([self.contexts[index][:given] for index in indices]) if given else None,
            num_videos=1 if given else len(indices),
            num_frames=self.protocol.frames,
            interval=self.protocol.interval,
            sampling=options.sampling,
            actions=self._actions(indices) if options.actions else None,
            label=None if self.labels is None else [self.labels[index] for index in indices],
            text=None if self.captions is None else [self.captions[index] for index in indices],
            generator=[torch.Generator().manual_seed(options.seed + index) for index in indices],
            output_type="latent",
        )

    def _actions(self, indices: Sequence[int]) -> np.ndarray:
        """The actions that lead to each frame, `[T, B, A]`: the recorded ones, or random ones of all that there are."""
        recorded_TBA = self._recorded(indices)
        if not self.random:
            return recorded_TBA
        seeds = [self.options.seed + index for index in indices]
        return random_actions(recorded_TBA, self.protocol.given, self._pool, seeds)

    @cached_property
    def _pool(self) -> np.ndarray:
        """Every recorded action of the data set, over the protocol's interval: they do not depend on which clips are
        continued, so more clips do not change the samples of the first ones."""
        names, pool = self.pipe.config.action_names, []
        for video in range(len(self.videos.videos)):
            if (recorded := self.videos.actions(video, names)) is not None:
                pool.append(clip_actions(recorded, range(0, len(recorded), self.protocol.interval))[1:])
        return np.concatenate(pool)

    def _recorded(self, indices: Sequence[int]) -> np.ndarray:
        """The recorded actions that lead to each frame, `[T, B, A]`; mean over the frames between two of the clip."""
        names = self.pipe.config.action_names
        if not names:
            raise MagiError("this model takes no actions: it was trained without")
        tracks = []
        for index in indices:
            pick = self.picks[index]
            recorded = self.videos.actions(pick.video, names)
            if recorded is None:
                raise MagiError(f"{self.videos.videos[pick.video].path}: no recorded actions, which --actions asks for")
            frames = clip_frames(pick.start, self.protocol.interval, self.protocol.frames)
            tracks.append(clip_actions(recorded, frames))
        return np.stack(tracks, axis=1)

    def _captions(self) -> list[str]:
        """The caption of each clip's video, all of which the model's encoder takes."""
        captions = read_captions(self.videos)
        found: list[str] = []
        for pick in self.picks:
            if (caption := captions.texts[pick.video]) is None:
                path = self.videos.videos[pick.video].path
                raise MagiError(f"{path}: no caption, which --captions asks for ({captions.summary()})")
            found.append(caption)
        if TEXT in self.pipe.transformer.condition_tokens.specs:  # else refused as any text is
            places = [captions.places[pick.video] for pick in self.picks]
            check_each(found, places, self.pipe.find_text_encoder().check)
        return found

    def _labels(self) -> list[int]:
        """The model's label for each clip's class, matched by name."""
        known = {name: label for label, name in enumerate(self.pipe.config.class_names)}
        if not known:
            raise MagiError("this model takes no label: it was trained without")
        labels = []
        for pick in self.picks:
            video = self.videos.videos[pick.video]
            name = None if video.label is None else self.videos.class_names[video.label]
            if name not in known:
                raise MagiError(f"{video.path}: its class {name!r} is not one of the model's {len(known)}")
            labels.append(known[name])
        return labels


def asked_protocol(protocol: str | Protocol, options: EvaluateOptions) -> Protocol:
    """A protocol with what options change of it; errors as of `find_protocol` and `check_controllability`."""
    protocol = find_protocol(protocol, given=options.context_frames, frames=options.frames, interval=options.interval)
    if options.controllability:
        check_controllability(options.actions, protocol.given, protocol.frames - protocol.given)
    return protocol


def evaluate(
    model: str | Path,
    data: str | Path,
    protocol: str | Protocol = "small",
    options: EvaluateOptions | None = None,
    *,
    out: str | Path,
    detectors: Detectors | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
    **fields: Any,
) -> dict[str, Any]:
    """Continue real clips with a model and score what comes of it; the same call continues a run that was stopped.

    Fake i continues the given frames of real clip i, the real set's own; the paired figures compare its generated
    frames with the true ones. With no given frames the model generates from nothing, and nothing is paired.

    Args:
        model: folder, hub id, or the name of a shipped model.
        data: folder of videos, or UCF-101.
        protocol: name, or a `Protocol`.
        out: folder for `samples/`, `metrics.json` and `report.html`.
        options: what is compared, and how samples are made.
        detectors: networks to use instead of the pretrained ones.
        progress: called with (stage, done, total).
        say: called with a line that names the precision.
        fields: of `EvaluateOptions` by name, in place of those of `options`.

    Returns:
        What `metrics.json` holds.

    Raises:
        MagiError: as `score`; a model that cannot do what is asked; `out` holds samples made with other settings,
            or another evaluation is at work there.
    """
    options = replace(options or EvaluateOptions(), **fields)
    protocol = asked_protocol(protocol, options)
    numbers, out = Numbers.of(protocol, options.num, options.num_real), Path(out)
    processes = Processes(options.device)
    use_threads(options.threads)
    kernels = kernels_as_before([FAST_FLOAT32], out, processes, say)  # by which the precision is measured

    def stage(what: str) -> None:
        progress(what, 0, None)

    if options.cache:
        report_unusable_cache(say)

    def begin() -> tuple[Sets, Generation]:
        stage("loading the model" if is_local(model) else f"fetching {model} from the hub, or from its cache")
        pipe = MagiVideoPipeline.from_pretrained(model).to(processes.device)
        size = (pipe.config.height, pipe.config.width)
        videos, warnings = open_videos(data, protocol)
        everything, picks = real_clips(videos, protocol, numbers.larger(protocol), size)
        real, contexts = everything.first(numbers.real), everything.first(numbers.fake)
        check_number("real", real, numbers.real, protocol)
        check_number("real", contexts, numbers.fake, protocol)
        generation = Generation(pipe, videos, picks, contexts, protocol, options, out / "samples")
        if protocol.side is not None and size != (protocol.side, protocol.side):
            warnings.append(
                f"the model makes {size[0]} × {size[1]} pixels, the protocol asks for {protocol.side} × "
                f"{protocol.side}: its samples are resized by the protocol's rule"
            )
        truth = contexts if protocol.given else None
        if real.left_out:
            warnings.append(f"{data}: {real.left_out} videos or clips are too short or unreadable, and left out")
        warnings += warn_of_sizes(real, size, protocol)
        known = DataIdentity.of(videos).record()
        return Sets(real, generation.clips(len(contexts)), truth, warnings=tuple(warnings), data=known), generation

    sets, generation = processes.main_first(begin)
    choice = processes.once(
        lambda: choose_as_before(generation.pipe, generation.options, len(generation.contexts), out)
    )
    generation.settle(choice)
    others = [name for name in generation_kernels(choice.precision) if name not in kernels]
    kernels |= kernels_as_before(others, out, processes, say)
    engine = generation.use_engine(engine_as_before(options, out, processes), processes, say, stage)
    say("; ".join(filter(None, (str(choice), engine))))
    steps, most = generation.pipe.resolve(options.sampling).mask_steps, generation.pipe.most_mask_steps(protocol.frames)
    if steps > most:
        say(f"mask steps: {most}, one for each token, not {steps}")
    detectors = detectors or load_detectors(processes, sets, options)
    settings = processes.once(lambda: describe(model, generation.pipe, protocol, generation.options, generation.videos))
    settings |= {KERNELS: kernels}

    usual = {name: one for name, one in generation.pipe.resolve(Sampling()).given().items() if name in settings}
    usual["engine"] = "torch"

    def lasting(record: dict[str, Any]) -> dict[str, Any]:
        """Settings that a record of before does not name had their defaults."""
        return {name: value for name, value in (usual | record).items() if name not in (CONTENT, KERNELS)}

    def carried(saved: dict[str, Any] | None) -> dict[str, Any]:
        """The videos' contents, which records of before do not name."""
        if saved is not None and saved.get(CONTENT, settings[CONTENT]) != settings[CONTENT]:
            raise MagiError(f"{out} holds samples that continue other videos of the same names; use another --out")
        if saved is not None and CONTENT not in saved:
            say(f"{out}: begun before the contents of videos were recorded; taken to continue these")
        return {CONTENT: settings[CONTENT], KERNELS: kernels}

    def compared() -> dict[str, Sets]:
        size = (generation.pipe.config.height, generation.pipe.config.width)
        return baseline_sets(sets, protocol, generation.videos, generation.contexts, size, generation.pipe.codec)

    artifact = Artifact(out / RECORD, "samples", lasting, made=lambda: has_samples(out))
    with artifact.making(lasting(settings), processes, carried):
        processes.together(lambda: generation.run(processes, progress))
        if options.controllability:
            processes.together(lambda: generation.under_random_actions.run(processes, progress))
        extra = {"model": str(model), "generation": settings}
        return score_sets(
            sets, protocol, processes, detectors=detectors, out=out, over_length=options.over_length,
            cache=options.cache, progress=progress, extra=extra,
            baselines=compared() if options.baselines else None,
            random=generation.under_random_actions.clips(len(generation.contexts)) if options.controllability else None,
        )  # fmt: skip
