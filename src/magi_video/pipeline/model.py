"""A trained model with its codec: what one folder holds, and what follows from it without any generation."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from magi_video.codecs.base import Codec
from magi_video.codecs.discrete import check_codes
from magi_video.errors import MagiError
from magi_video.exposure.memory import find_memory
from magi_video.exposure.noisy_past import check_noisy_past
from magi_video.fast.engine import Engine, Say, Stage
from magi_video.fast.engine_name import EngineName
from magi_video.files.atomic import link_or_copy
from magi_video.files.weights import resolve_model
from magi_video.models.architecture import TEXT
from magi_video.models.configured import WEIGHTS
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import make_paradigm
from magi_video.pipeline.asked import check_controls, hold_actions
from magi_video.pipeline.description import ENCODER_FOLDER, INDEX_FILE
from magi_video.pipeline.diffusers_api import ConventionalPipeline
from magi_video.pipeline.saving import read_pipeline, write_pipeline
from magi_video.sampling.sampling import ResolvedSampling, Sampling

if TYPE_CHECKING:
    from magi_video.codecs.text import Encoder
    from magi_video.fast.job import Job


class TrainedModel(ConventionalPipeline):
    """A trained model with its codec.

    Args:
        transformer: the network with its head.
        codec: between pixels and normalised latents.
        forcing: paradigm that the transformer was trained with: how it generates.
        forcing_options: hyper-parameters of the paradigm itself, by name.
        height, width: size of a frame in pixels.
        frame_rate: of the training videos at interval 1, frames/s.
        action_names: columns of an action, when the model takes actions.
        class_names: labels, when the model takes a class.
        sampling: what the model is sampled with where nothing else is asked for, as a `Sampling` or its fields.
        training: how the model was made, for `magi info`.
        steps: fields of `sampling` by name, as earlier versions took them.

    Attributes:
        engine: what computes frames; PyTorch until `compile` or `use_engine` sets another.
        folder: that the model was loaded from; None for none.
        text_folder: of the text encoder, when the model takes text.
        text_encoder: from that folder when it is first needed, unless another is set.
    """

    model_cpu_offload_seq = "transformer->codec"  # each makes room for the other; given frames are encoded first
    transformer: MagiVideoTransformer
    codec: Codec

    def __init__(
        self,
        transformer: MagiVideoTransformer,
        codec: Codec,
        forcing: str = "complete",
        height: int = 256,
        width: int = 256,
        frame_rate: float = 25.0,
        action_names: list[str] | None = None,
        class_names: list[str] | None = None,
        sampling: Sampling | Mapping[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        forcing_options: dict[str, str] | None = None,
        **steps: Any,
    ) -> None:
        super().__init__()
        own = sampling if isinstance(sampling, Sampling) else Sampling.of(None, **sampling or {})
        self.engine = Engine()
        self.folder: Path | None = None
        self.text_folder: Path | None = None
        self.text_encoder: Encoder | None = None
        make_paradigm(forcing, forcing_options).check_model(transformer)
        check_codes(transformer.diffusion_head, codec)
        self.register_modules(transformer=transformer, codec=codec)
        self.register_to_config(
            forcing=forcing,
            forcing_options=forcing_options or {},
            height=height,
            width=width,
            frame_rate=frame_rate,
            action_names=action_names or [],
            class_names=class_names or [],
            sampling=Sampling.of(own, **steps).given(),
            training=training or {},
        )

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, torch_dtype: torch.dtype = torch.float32
    ) -> Self:
        """Load a model.

        Args:
            pretrained_model_name_or_path: folder, hub id, or the name of a shipped model ("doom", "atari", "coinrun").
            torch_dtype: of all weights; tokens, noise and pixels stay float32. On CPUs bfloat16 pays for large frames
                (docs/performance.md).

        Raises:
            MagiError: there is no such model, or a file of it is missing, truncated or of another shape.
        """
        folder = resolve_model(pretrained_model_name_or_path)
        settings = read_pipeline(folder, torch_dtype)
        try:
            pipe = cls(**settings)
        except (TypeError, MagiError) as error:  # a setting that there is not, or a value that it cannot have
            raise MagiError(f"{folder / INDEX_FILE}: {error}") from None
        pipe.folder = folder
        pipe.text_folder = folder / ENCODER_FOLDER if TEXT in pipe.transformer.condition_tokens.specs else None
        return pipe

    @override
    def save_pretrained(
        self, save_directory: str | Path, torch_dtype: torch.dtype | None = None, *, weights: Path | None = None
    ) -> None:
        """Write the model into a folder: each file whole or not at all, `model_index.json` last.

        Args:
            save_directory: the folder; made if needed.
            torch_dtype: of the weights on disk (float16 halves them); None for what they are.
            weights: a safetensors file of the transformer in place of the weights in memory. It is linked, copied or
                (to another type) written again, and itself left as it is.

        Raises:
            MagiError: it cannot be written (disk full, folder read-only); what was there is kept.
        """

        def write(folder: Path) -> None:
            if weights is None:
                super(TrainedModel, self).save_pretrained(folder)
                return
            self.save_config(folder)
            self.codec.save_pretrained(folder / "codec")
            self.transformer.save_config(folder / "transformer")
            link_or_copy(weights, folder / "transformer" / WEIGHTS)

        write_pipeline(write, Path(save_directory), torch_dtype, self.text_folder)

    def action(self, *names: str) -> np.ndarray:
        """The vector of the actions of these names held together, `[A]`; none of them is standing still. See
        `hold_actions`."""
        return hold_actions(names, self.config.action_names)

    @property
    def own_sampling(self) -> Sampling:
        """What the model is sampled with where nothing else is asked for."""
        return Sampling.of(None, **self.config.sampling)

    def resolve(self, sampling: Sampling | str | None = None, **options: Any) -> ResolvedSampling:
        """All that a sampling means for this model; arguments as of `Sampling.of`.

        Raises:
            MagiError: as `Sampling.of` and `Sampling.resolve`.
        """
        asked = Sampling.of(sampling, **options)
        paradigm = make_paradigm(self.config.forcing, self.config.forcing_options)
        paradigm.check_sampling(asked)
        resolved = asked.resolve(self.transformer.diffusion_head, self.own_sampling, self.transformer.num_tokens)
        check_noisy_past(self.transformer, paradigm, resolved)
        find_memory(self.transformer, paradigm.sampled(resolved), resolved)
        return resolved

    def most_mask_steps(self, num_frames: int) -> int:
        """Mask steps at most of a step of generation, in a video of so many frames: one for each of its tokens."""
        return self.transformer.num_tokens * self.most_step_frames(num_frames)

    def most_step_frames(self, num_frames: int | None) -> int:
        """Latent frames at most of a step of generation, sampled as the model is where nothing else is asked for.

        Args:
            num_frames: of the video; None for one without end.
        """
        paradigm = make_paradigm(self.config.forcing, self.config.forcing_options).sampled(self.own_sampling)
        total_frames = None if num_frames is None else self.codec.covering_latent_frames(num_frames)
        return paradigm.step_frames(self.transformer, 0, total_frames)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts as vectors for the model, `[number of texts, L, size]`; see `TextEncoder.encode`."""
        check_controls(self.transformer.condition_tokens.specs, {TEXT: texts})
        encoder, spec = self.find_text_encoder(), self.transformer.condition_tokens.specs[TEXT]
        vectors = encoder.encode(texts, spec.tokens)
        if vectors.shape[-1] != spec.size:
            raise MagiError(
                f"{self.text_folder}: an encoder of {vectors.shape[-1]} numbers a word; expected {spec.size}"
            )
        return vectors

    def find_text_encoder(self) -> "Encoder":
        """`text_encoder`; that of `text_folder`, loaded once, if none is set.

        Raises:
            MagiError: there is no such folder, or no encoder in it.
        """
        if self.text_encoder is None:
            if self.text_folder is None:
                raise MagiError("this model lacks the text encoder it was trained with: set pipe.text_folder")
            from magi_video.codecs.text_encoder import load_encoder  # most models take no text

            self.text_encoder = load_encoder(self.text_folder)
        return self.text_encoder

    def job(self, sampling: Sampling | str | None, num_videos: int, latent_frames: int | None) -> "Job":
        """The frames that an engine is chosen for; arguments as of `use_engine`."""
        from magi_video.fast.job import Job

        paradigm = make_paradigm(self.config.forcing, self.config.forcing_options)
        return Job(paradigm, self.transformer, self.codec, self.resolve(sampling), num_videos, latent_frames)

    def use_engine(
        self,
        engine: EngineName,
        sampling: Sampling | str | None = None,
        num_videos: int = 1,
        latent_frames: int | None = None,
        frames: float = math.inf,
        say: Say = lambda _: None,
        threads: int | None = None,
        stage: Stage = lambda _: None,
    ) -> str:
        """Choose what computes frames from now on; what it does not cover is left to PyTorch.

        Args:
            engine: see `fast.engine_choice.choose_engine`.
            sampling: that frames will have.
            num_videos: made together.
            latent_frames: of each; None for no end.
            frames: latent frames that will be made in all, of all these videos together.
            say: called with a line about what is left to PyTorch, now and later.
            threads: of a graph's run; PyTorch's number if not given.
            stage: called when graphs are loaded, made or captured, and engines compared.

        Returns:
            What was chosen and why, in a line; "" where there is nothing to say.

        Raises:
            MagiError: "onnx" or "cudagraphs" is asked for and cannot be had.
        """
        from magi_video.fast.engine_choice import choose_engine  # not for those who only generate by PyTorch

        job = self.job(sampling, num_videos, latent_frames)
        self.engine, why = choose_engine(engine, job, self.folder, frames, say, threads, stage)
        return why
