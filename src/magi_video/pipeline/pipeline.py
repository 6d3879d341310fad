"""What a user calls: from a first frame, a few frames or nothing to a video, all at once or frame by frame."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.compiling import compile_blocks
from magi_video.fast.engine_name import EngineName
from magi_video.fast.noise import make_noise
from magi_video.fast.speed import speed_up
from magi_video.models.architecture import ACTION, LABEL, TEXT
from magi_video.models.random import Generators
from magi_video.paradigms import make_paradigm
from magi_video.pipeline.asked import check_controls
from magi_video.pipeline.diffusers_api import Output, StepCallback, StepFunction
from magi_video.pipeline.inputs import (
    Actions,
    FrameActions,
    Texts,
    check_guidance,
    check_whole,
    label_value,
    spread_generator,
    spread_texts,
)
from magi_video.pipeline.model import TrainedModel
from magi_video.pipeline.pictures import (
    Pictures,
    Video,
    check_output,
    convert_output,
    given_frames,
    given_latents,
    unit_range,
)
from magi_video.pipeline.task import Task
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling


@dataclass
class MagiVideoPipelineOutput(Output):
    """The result.

    Attributes:
        frames: `[batch, frames, height, width, 3]` floats in [0, 1] ("np"), `[batch, frames, 3, height, width]` ("pt"),
            a list of lists of PIL images ("pil"), or latent frames `[batch, latent frames, C, h, w]` ("latent").
    """

    frames: Any


class MagiVideoPipeline(TrainedModel):
    """Generates videos with a trained model; arguments as of `TrainedModel`."""

    def compile(self, engine: EngineName = "torch", **stream: Any) -> str | None:
        """Make generation faster, for calls of `stream` like one; its first frames are the warm-up.

        Args:
            engine: "torch" lets PyTorch compile the transformer's blocks, tens of seconds, which pays on GPUs. "onnx"
                makes one graph of a mask step and one of the decoder, for ONNX Runtime, which pays on CPUs: seconds,
                once for models of this kind. "cudagraphs" captures a mask step and the decoder as CUDA graphs, for
                GPUs, in each process; it has not run on one yet. "auto" measures "onnx" against PyTorch and takes the
                quicker one; on GPUs it takes PyTorch.
            stream: arguments of `stream` as it will be called, since every shape is compiled for itself; a generator is
                left as it is.

        Returns:
            None, or in a line why generation goes on as before (no C++ compiler, say).

        Raises:
            MagiError: there is no such engine, `stream` does not take these arguments, or "onnx" or "cudagraphs" is
                asked for and cannot be had.
        """
        if engine not in get_args(EngineName):
            raise MagiError(f"engine must be one of {', '.join(get_args(EngineName))}, got {engine!r}")
        stream |= {"generator": None}
        if engine == "torch":
            given = 0 if stream.get("video") is None else np.shape(stream["video"])[-4]
            stream |= {"num_frames": given + 2 * self.codec.temporal_factor}
            return compile_blocks(speed_up(self.transformer), lambda: list(self.stream(**stream)))
        stream.pop("output_type", None)
        usual: dict[str, Any] = dict.fromkeys(("image", "video", "num_frames", "sampling"))
        controls = {
            name: stream.pop(key, None) for name, key in ((ACTION, "actions"), (LABEL, "label"), (TEXT, "text"))
        }
        rollout = self._prepare(**usual | {"interval": 1, "controls": controls} | stream).rollout
        why = self.use_engine(engine, rollout.sampling, rollout.batch, rollout.total_frames)
        return why or "graphs cannot be made here" if self.engine.name == "torch" else None

    @torch.no_grad()
    def __call__(
        self,
        image: Pictures | None = None,
        video: Video | None = None,
        num_frames: int = 16,
        interval: int = 1,
        sampling: Sampling | str | None = None,
        actions: Actions = None,
        label: int | list[int] | None = None,
        text: Texts = None,
        generator: Generators = None,
        output_type: str = "np",
        callback_on_step_end: StepFunction | None = None,
        return_dict: bool = True,
        **options: Any,
    ) -> MagiVideoPipelineOutput:
        """Generate whole videos.

        Args:
            image: first frame, or B of them as a list or with a dimension in front: PIL, an array `[H, W, 3]` or a
                tensor `[3, H, W]`, of uint8 or of floating-point numbers in [0, 1], as frames are given back. Another
                size is centre-cropped to the model's aspect and resized.
            video: given frames instead, `[K, H, W, 3]` or `[B, K, H, W, 3]` (tensors with the channels before height),
                or lists of pictures. Neither: unconditional. A codec that compresses time by c takes K = 1, 1 + c,
                1 + 2c, …
            num_frames: frames of the result, the given ones included. With a codec that compresses time the last latent
                frame may hold more than are asked for; the rest of it is dropped.
            interval: frames of the training videos' time from one frame to the next, 1…25.
            sampling: how a frame is sampled: a `Sampling`, or the name of a speed: "exact", "balanced", "fast" or
                "realtime" (docs/performance.md).
            actions: for each of `num_frames` the action that leads to it, `[A]` or `[B, A]` or None (unknown); the
                first is not used. Fewer or more are refused: nothing is repeated. May be a generator: an entry is taken
                when its frame is begun, and behind its end nothing is known. A latent frame that holds several frames
                gets the mean of their known actions.
            label: class of the videos.
            text: what the videos show, in words; one for all, or one for each video or given start.
            generator: one for each video, or one from which theirs are seeded: a video depends on its own alone.
                CPU generators give the same video on every device; those of a list that are on a GPU draw there, and
                no noise is copied.
            output_type: "np", "pt", "pil", or "latent": latent frames, not decoded.
            callback_on_step_end: called as `function(pipe, step, timestep, callback_kwargs)` when a latent frame is
                made; may change it, or end the video (`StepCallback`).
            return_dict: False gives a plain tuple, `(frames,)`.
            options: less common arguments:
                num_videos: videos for each given start.
                negative_text: what guidance leads away from; "nothing is known of the text" if not given.
                latents: given latent frames `[B, K, C, h, w]` instead of `image` or `video`, as `output_type="latent"`
                    gave them: a video goes on from any of its frames.
                use_cache: False recomputes the past in every pass, the slow reference; None takes the cache where the
                    paradigm has one, and True insists on it.
                callback_on_step_end_tensor_inputs: what it is shown, of "latents".
                Fields of `Sampling` by name, in place of those of `sampling`: `mask_steps=4`, `guidance_scale=3`.

        Raises:
            MagiError: what is asked for makes no sense, or this model knows nothing of it.
        """
        # 1. What is asked for, all of it checked before any work.
        self._interrupt = False
        on_step = None
        shown = options.pop("callback_on_step_end_tensor_inputs", ("latents",))
        if callback_on_step_end is not None:
            on_step = StepCallback(self, callback_on_step_end, shown, interval * self.codec.temporal_factor)
        check_output(output_type)
        task = self._prepare(
            image=image, video=video, num_frames=num_frames, interval=interval, sampling=sampling,
            controls={ACTION: actions, LABEL: label, TEXT: text}, generator=generator, **options,
        )  # fmt: skip
        with self.progress_bar(total=num_frames) as bar:
            # 2. The given frames, encoded: the start of the videos and of the past.
            latents = list(self._observe(task))
            # 3. The frames after them, one step of the paradigm after another: a frame or several.
            while task.rollout.begun < task.total_frames and not self.interrupt:
                latents += self._predict(task, on_step)
                bar.update(min(num_frames, self.codec.num_pixel_frames(len(latents))) - bar.n)
            # 4. From latents to pixels.
            frames = latents
            if output_type != "latent":
                self.visit(self.codec)
                frames = list(itertools.islice(self._decode(iter(latents)), num_frames))
                bar.update(len(frames) - bar.n)
        # 5. Back to where the networks were, and to the type that is asked for.
        self.maybe_free_model_hooks()
        output = MagiVideoPipelineOutput(frames=convert_output(torch.stack(frames, dim=1), output_type))
        plain: Any = output.to_tuple()
        return output if return_dict else plain

    def stream(
        self,
        image: Pictures | None = None,
        video: Video | None = None,
        num_frames: int | None = None,
        interval: int = 1,
        sampling: Sampling | str | None = None,
        actions: Actions = None,
        label: int | list[int] | None = None,
        text: Texts = None,
        generator: Generators = None,
        output_type: str = "np",
        **options: Any,
    ) -> Iterator[Any]:
        """Generate frame by frame.

        Arguments as of `__call__`, but for `num_frames`. They are checked at once, not when the first frame is asked
        for. A codec that compresses time completes several frames at once, which follow each other without waiting.
        Behind the last entry of `actions` nothing is known of them where there is no last frame.

        Args:
            num_frames: None goes on without end where the model has relative temporal positions ("rope"), else for the
                frames of a training clip.
            output_type: "latent" gives latent frames, for `decode_stream`: in another thread it decodes a frame while
                this one predicts the next (`fast.beside`).

        Returns:
            One frame of every video after the other: `[B, H, W, 3]` ("np"), `[B, 3, H, W]` ("pt") or B images ("pil");
            or one latent frame after the other, `[B, C, h, w]` ("latent").

        Raises:
            MagiError: as `__call__`; or an end is needed (`num_frames`), for offloading or by the codec.
        """
        if num_frames is None and self.transformer.config.temporal_position != "rope":
            num_frames = self.codec.num_pixel_frames(self.transformer.config.num_frames)
        check_output(output_type)
        if num_frames is None and output_type != "latent":
            self._check_endless()
        task = self._prepare(
            image=image, video=video, num_frames=num_frames, interval=interval, sampling=sampling,
            controls={ACTION: actions, LABEL: label, TEXT: text}, generator=generator, **options,
        )  # fmt: skip
        latents = self._latent_frames(task)
        return latents if output_type == "latent" else self.decode_stream(latents, num_frames, output_type)

    def decode_stream(
        self, latents: Iterator[Tensor], num_frames: int | None = None, output_type: str = "np"
    ) -> Iterator[Any]:
        """Decode what `stream` gives with `output_type="latent"`, each frame as soon as the codec has it.

        Args:
            latents: latent frames `[B, C, h, w]` of a video from its beginning, in order.
            num_frames: frames at most; None for all that the latent frames hold.
            output_type: "np", "pt" or "pil".

        Returns:
            One frame of every video after the other, as of `stream`.

        Raises:
            MagiError: another `output_type`.
        """
        if output_type == "latent":
            raise MagiError("decode_stream gives pixels: choose np, pt or pil as output_type")
        check_output(output_type)
        if self.offloads:
            latents = self._whole(latents)
        frames = itertools.islice(self._decode(latents), num_frames)
        return (convert_output(frame_BCHW, output_type) for frame_BCHW in frames)

    def _check_endless(self) -> None:
        """Raise a `MagiError` unless frames can be decoded before the last one is made."""
        if not self.codec.streams:
            raise MagiError("this model's codec decodes a video as a whole: say how many frames (num_frames)")
        if self.offloads:
            raise MagiError(
                "with model offloading a video is decoded when it is whole: say how many frames (num_frames)"
            )

    def _prepare(
        self,
        *,
        image: Pictures | None,
        video: Video | None,
        num_frames: int | None,
        interval: int,
        sampling: Sampling | str | None,
        controls: dict[str, Any],
        generator: Generators,
        num_videos: int = 1,
        negative_text: Texts = None,
        latents: Tensor | None = None,
        use_cache: bool | None = None,
        **fields: Any,
    ) -> Task:
        """Check the arguments of `__call__` and begin a rollout."""
        check_whole(num_frames=num_frames, num_videos=num_videos, interval=interval)
        if num_videos < 1:
            raise MagiError(f"num_videos must be at least 1, got {num_videos}")
        net, factor = self.transformer.config, self.codec.temporal_factor
        if latents is None:
            given_BTCHW = given_frames(image, video, self.config.height, self.config.width, factor)
        else:
            if image is not None or video is not None:
                raise MagiError("give latents or pictures to begin from, not both")
            given_BTCHW = given_latents(latents, (net.latent_channels, net.latent_height, net.latent_width))
        if given_BTCHW is not None:
            given_BTCHW = given_BTCHW.repeat_interleave(num_videos, dim=0).to(self.execution_device)
        given = 0 if given_BTCHW is None else given_BTCHW.shape[1]
        if latents is not None:
            given = self.codec.num_pixel_frames(given)
        batch = num_videos if given_BTCHW is None else given_BTCHW.shape[0]
        if num_frames is not None and num_frames < max(given, 1):
            given_too = ", as many as are given" if given else ""
            raise MagiError(f"num_frames must be at least {max(given, 1)}{given_too}, got {num_frames}")
        resolved = self.resolve(sampling, **fields)
        conditions = self._conditions(controls, batch, num_frames)
        if resolved.guided:
            check_guidance(self.transformer.condition_tokens.specs, resolved.guide, controls)
        elif negative_text is not None:
            raise MagiError("a negative text needs guidance: give a guidance_scale above 1 too")
        negative = {} if negative_text is None else {TEXT: self.encode_text(spread_texts(negative_text, batch))}
        self.visit(self.transformer)
        total_frames = None if num_frames is None else self.codec.covering_latent_frames(num_frames)
        if resolved.refresh > 1 and use_cache is False:
            raise MagiError("mask steps can reuse each other's work only with the cache")
        paradigm = make_paradigm(self.config.forcing, self.config.forcing_options).sampled(resolved)
        paradigm.check_context(0 if given == 0 else self.codec.num_latent_frames(given), total_frames)
        rollout = Rollout(
            self.transformer,
            paradigm,
            make_noise(spread_generator(generator, batch), self.execution_device),
            resolved,
            torch.full((batch,), interval, device=self.execution_device),
            total_frames,
            past=self.engine.begin_past(paradigm, self.transformer, batch, total_frames, resolved, use_cache),
            negative=negative,
        )
        self._num_timesteps = rollout.total_frames
        return Task(rollout, given_BTCHW, conditions, latents is not None)

    def _observe(self, task: Task) -> Iterator[Tensor]:
        """Encode the given frames and show them to the rollout; yields their latent frames `[B, C, H, W]`."""
        if task.given_BTCHW is None:
            return
        latents_BTCHW = task.given_BTCHW
        if not task.latents:
            self.visit(self.codec)
            latents_BTCHW = self.codec.encode(task.given_BTCHW)
            self.visit(self.transformer)
        tokens_BTND = self.transformer.patchify(latents_BTCHW)
        for latents_BCHW, tokens_BND in zip(latents_BTCHW.unbind(1), tokens_BTND.unbind(1), strict=True):
            task.rollout.observe(tokens_BND, next(task.conditions))
            yield latents_BCHW

    def _predict(self, task: Task, on_step: StepCallback | None = None) -> Iterator[Tensor]:
        """Predict the next frames, those of one step of the paradigm; yields their latent frames `[B, C, H, W]`.

        Args:
            task: what is made.
            on_step: sees each new latent frame, and may change it or end the video.
        """
        first = task.rollout.begun
        tokens_BSND = task.rollout.predict_frames([next(task.conditions) for _ in range(task.rollout.step_frames)])
        for s, latents_BCHW in enumerate(self.transformer.unpatchify(tokens_BSND).unbind(1)):
            if on_step is not None:
                latents_BCHW = on_step(first + s, latents_BCHW)
                # They make the past. Copied first: of a patch of 1, latents are the tokens' own memory.
                tokens_BSND[:, s] = self.transformer.patchify(latents_BCHW[:, None])[:, 0].clone()
            yield latents_BCHW
            if on_step is not None and on_step.stops:
                return

    @torch.no_grad()
    def _latent_frames(self, task: Task) -> Iterator[Tensor]:
        """Latent frames `[B, C, H, W]`, each when it is asked for: the given ones, then the predicted ones."""
        yield from self._observe(task)
        while task.rollout.begun < task.total_frames:
            yield from self._predict(task)

    def _decode(self, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        """Frames `[B, 3, H, W]` in [0, 1] of latent frames, each as soon as the codec has it."""
        for chunk_BTCHW in self.engine.decode_stream(self.codec, latents):
            for frame_BCHW in chunk_BTCHW.unbind(dim=1):
                yield unit_range(frame_BCHW)

    def _whole(self, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        """All latent frames before the first is decoded: offloaded networks then take turns once a video."""
        held = list(latents)
        self.visit(self.codec)
        yield from held

    def _conditions(self, controls: dict[str, Any], batch: int, num_frames: int | None) -> Iterator[dict[str, Tensor]]:
        """Conditions of each latent frame, in order, without end."""
        specs = self.transformer.condition_tokens.specs
        check_controls(specs, controls)
        constant: dict[str, Tensor] = {}
        if (label := controls[LABEL]) is not None:
            constant[LABEL] = label_value(label, specs[LABEL], batch)
        if (text := controls[TEXT]) is not None:
            constant[TEXT] = self.encode_text(spread_texts(text, batch))
        actions = FrameActions(self.config.action_names, batch, self.codec.temporal_factor)
        return actions.each_frame(controls[ACTION], constant, num_frames)


MagiPipeline = MagiVideoPipeline
"""Its former name."""
