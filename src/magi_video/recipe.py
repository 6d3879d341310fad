"""What a recipe is: groups of typed settings. The defaults are the paper's wherever the paper or MAR says anything.

`presets.py` has the recipes by name.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from magi_video.codecs.config import SmallVAEConfig, VQConfig
from magi_video.errors import MagiError
from magi_video.fast.precision import Precision, modern
from magi_video.registry import check_clip_frames, declared, read_option
from magi_video.sampling.sampling import ResolvedSampling, Sampling
from magi_video.settings import settings


def texts(values: Any) -> Any:
    """Values of a JSON object as texts."""
    return {name: str(value) for name, value in values.items()} if isinstance(values, dict) else values


@settings
class DataConfig:
    """Clips."""

    dataset: str = "folder"
    """"folder": any tree of video files; "ucf101" and "kinetics600": their official layouts with their lists."""
    split: Annotated[int, Field(ge=1, le=3)] = 1
    """UCF-101 split, 1…3; its training half is used."""
    height: Annotated[int, Field(ge=1, le=16_384)] = 256
    """Pixels; frames are centre-cropped to the aspect and resized with antialias."""
    width: Annotated[int, Field(ge=1, le=16_384)] = 256
    """Pixels."""
    num_frames: Annotated[int, Field(ge=1, le=2**16)] = 16
    """Frames of a training clip."""
    min_interval: Annotated[int, Field(ge=1, le=25)] = 1
    """Least interval between a clip's frames."""
    max_interval: Annotated[int, Field(ge=1, le=25)] = 25
    """Largest interval, 25 at most; equal to the least it switches dynamic intervals off."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a clip is mirrored left to right; 0.5 in MAR. Not with actions or text, which may name a side.
    Cached latents are encoded both ways: twice the work and the disk."""
    sparse_past: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of clips that begin with older frames, those that sink_frames, strided_frames and past_stride would keep in
    sight, and end with the latest. For models with temporal_position "rope" (docs/worlds.md)."""


@settings
class CodecConfig:
    """From pixels to latents."""

    codec: str = "image_vae"
    """"image_vae" and "video_vae": a diffusers 2D or causal 3D VAE; "omnitokenizer": a converted OmniTokenizer VAE;
    "small_vae": our own 2D VAE, trained first on the same data; "vq": our own discrete one, trained likewise;
    "vq_model": a diffusers VQModel; "pixels": none."""
    vae: str = "CompVis/stable-diffusion-v1-4"
    """Hub name or folder of the VAE; for "omnitokenizer" the folder of the converted weights."""
    vae_subfolder: str = "vae"
    """Folder of the VAE inside it, "" for none."""


@settings
class ModelConfig:
    """The transformer and its head (paper, appendix A.1)."""

    patch_size: Annotated[int, Field(ge=1)] = 2
    """Latent pixels on a token's side."""
    hidden: Annotated[int, Field(ge=1)] = 1280
    """Width of the transformer."""
    depth: Annotated[int, Field(ge=1)] = 20
    """Spatial-temporal blocks; each is two layers."""
    heads: Annotated[int, Field(ge=1)] = 16
    """Attention heads."""
    mlp: Annotated[int, Field(ge=1)] = 5120
    """Width of the layers' MLPs."""
    head: Literal["epsilon", "flow", "categorical"] = "epsilon"
    """"epsilon" and "flow": objectives of the diffusion head; "categorical": codes, of a codec that has them, with
    patch_size 1."""
    head_width: Annotated[int, Field(ge=1)] = 1024
    """Width of the diffusion head's MLP."""
    head_depth: Annotated[int, Field(ge=1)] = 3
    """Its residual blocks."""
    temporal_position: Literal["interpolate", "rope"] = "interpolate"
    """"interpolate": the paper's; "rope": relative positions, a sliding window, rollouts without end."""
    actions: bool = False
    """Give each frame the recorded actions that led to it."""
    labels: bool = False
    """Give each frame its video's class."""
    text: bool = False
    """Give each frame its video's caption (docs/control.md says where captions lie)."""
    text_encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub name or folder of the encoder, of the transformers library, for which the extra "text" is needed; "words":
    the words of the captions, 1,024 different ones at most, learned by the model itself (docs/text.md)."""
    text_tokens: Annotated[int, Field(ge=1, le=512)] = 16
    """Condition tokens of a caption: its first so many word vectors; with 1, the mean of all of them."""
    condition_drop: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Probability that training hides an action, a label or a text of a clip."""


@settings
class ExposureConfig:
    """Masking and the guard against exposure bias (paper, section 3)."""

    exposure: str = "noise"
    """Cure for exposure bias: what training shows of the frames before. "noise" is the paper's; all of them:
    docs/drift.md."""
    exposure_options: Annotated[dict[str, str], BeforeValidator(texts)] = field(default_factory=dict)
    """Hyper-parameters of the cure itself, by name."""
    mask_ratio_min: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Least share of a frame's tokens that is masked."""
    mask_ratio_std: Annotated[float, Field(gt=0)] = 0.25
    """Of the normal, centred at 1, that the ratio is drawn from."""
    noise_levels: Annotated[int, Field(ge=0, le=10_000)] = 5
    """Highest level of noise on observations, for the cures that inject noise; 0 switches the injection off."""
    noise_sigma: Annotated[float, Field(ge=0, le=1000)] = 0.7
    """Its standard deviation, on unit-variance latents."""
    diffusion_batch_mul: Annotated[int, Field(ge=1, le=1024)] = 4
    """Diffusion draws per masked token."""


@settings
class TrainConfig:
    """Optimisation (paper, appendix A.3; MAR where it is silent)."""

    steps: Annotated[int, Field(ge=0, le=10**9)] = 100_000
    """Optimiser steps in all."""
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 128
    """Clips in an optimiser step, over all processes."""
    accumulate: Annotated[int, Field(ge=1, le=2**20)] = 1
    """Parts in which each process takes its share of the batch, to save memory."""
    sharding: Literal["none", "full"] = "none"
    """With many processes: "none", each holds the whole model (DDP); "full", each its share of weights, gradients,
    optimiser and averages (FSDP2)."""
    learning_rate: Annotated[float, Field(ge=0)] = 1e-4
    """After the warm-up, constant."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10_000
    """Of linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    """Of AdamW: none on biases, norms and the head (MAR)."""
    decay_embeddings: bool = True
    """Let the embeddings of places, kinds, intervals, conditions and the mask token decay as well (MAR)."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that training drops an attention weight; 0.1 in MAR."""
    projection_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """… a number of attention's output projection; 0.1 in MAR."""
    mlp_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """… a number in the MLPs, after GELU and at their end; 0.1 in MAR, where timm's block takes it from the former."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the categorical head: share of a target's probability that goes to all codes alike; 1e-4 in MAGVIT."""
    clip_norm: Annotated[float, Field(ge=0)] = 3.0
    """Largest norm of the gradient."""
    spike_factor: Annotated[float, Field(ge=1)] = 20.0
    """A step whose gradient exceeds this many times the usual norm, or is not finite, is skipped and reported."""
    stop_after_skips: Annotated[int, Field(ge=1)] = 50
    """Skipped steps in a row after which training stops with an error: it is not going to recover."""
    ema_decay: Annotated[float, Field(ge=0, le=1)] = 0.9999
    """Of the averaged weights, which are the ones that generate."""
    ema_warmup: bool = True
    """Let the decay rise as n/(n + 9) with the steps n up to `ema_decay`: 0.999 is reached at step 8,991, 0.9999 at
    89,991, and a shorter run never reaches it. Off: `ema_decay` from the first step on (MAR)."""
    precision: Annotated[Precision, BeforeValidator(modern)] = "auto"
    """Of the transformer's products ("bf16" is autocast; the head is float32 always), and of the codec's training if it
    has none of its own; "auto": the quicker one on this machine. A run keeps what it began with."""
    tf32: bool = True
    """On a GPU: float32 products by its TF32 units, which keep 10 bits of each factor and sum in float32. These are the
    head's, and at precision "float32" all of them. Off: 23 bits, several times as slow."""
    gradient_checkpointing: bool = False
    """Compute the transformer's activations again in the backward instead of keeping them: the same gradients. "base",
    one clip: 0.6 GiB less for each block but the last, and the transformer takes 30 % longer (the head does not)."""
    compile: bool = False
    """Compile the transformer's blocks, if there is a compiler. Costs a minute; on a CPU a block gained 0 to 10 %."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Processes that load data."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps between points of the log."""
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where the log is shown besides RUN/log.jsonl; "wandb" and "trackio" need their library."""
    sample_every: Annotated[int, Field(ge=0)] = 5_000
    """Steps between sample sheets; 0 for none."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1_000
    """Steps between checkpoints."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints that are kept."""


@settings
class Preset:
    """A whole recipe."""

    forcing: str = "complete"
    """Paradigm: "complete" is MAGI, "masked" its baseline; all of them: docs/paradigms.md."""
    forcing_options: Annotated[dict[str, str], BeforeValidator(texts)] = field(default_factory=dict)
    """Hyper-parameters of the paradigm itself, by name."""
    data: DataConfig = field(default_factory=DataConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    small_vae: SmallVAEConfig = field(default_factory=SmallVAEConfig)
    vq: VQConfig = field(default_factory=VQConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    exposure: ExposureConfig = field(default_factory=ExposureConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: Sampling = field(default_factory=Sampling)
    """What the model is sampled with where nothing else is asked for."""

    @property
    def own_sampling(self) -> ResolvedSampling:
        """`sample`, where it makes no choice with that of the paradigm, or else the paper's."""
        return own_sampling(self.forcing, self.sample)

    @property
    def codec_group(self) -> str:
        """Name of the group of settings that the codec has of its own; "" if it has none."""
        return declared("codecs")[self.codec.codec].get("settings", "")

    @property
    def codec_settings(self) -> Any:
        """That group; None if the codec has no settings of its own."""
        return getattr(self, self.codec_group) if self.codec_group else None

    @property
    def codec_steps(self) -> int:
        """Steps of the codec's training; 0 for one that is not trained here."""
        return self.codec_settings.steps if declared("codecs")[self.codec.codec].get("trained") else 0

    @property
    def codec_precision(self) -> Precision:
        """Of the codec's training: its own, or the model's where it has none."""
        own: Precision = getattr(self.codec_settings, "precision", "auto")
        return self.train.precision if own == "auto" else own

    def __post_init__(self) -> None:
        check_paradigm(self.forcing, self.forcing_options)
        check_learnable(self.forcing, self.forcing_options, self.model.head, self.data.num_frames)
        check_exposure(self.exposure.exposure, self.exposure.exposure_options, self.forcing, self.model.head)
        check_name("data", "dataset", self.data.dataset)
        check_name("codecs", "codec", self.codec.codec)
        check(self.data.min_interval <= self.data.max_interval, "intervals must satisfy min ≤ max")
        check(
            not self.data.flip or not (self.model.actions or self.model.text),
            "flip mirrors clips left to right, and actions or captions may name a side: give --flip 0 with them",
        )
        check_sparse_past(self)
        if self.sample.first_step is not None:
            from magi_video.models.architecture import check_first_step  # --help does without its settings

            check_first_step(self.model.head, self.sample.first_step)


def codec_groups() -> list[str]:
    """The groups of settings that codecs have of their own."""
    return [values["settings"] for values in declared("codecs").values() if values.get("settings")]


FORMER: dict[str, dict[str, Any]] = {"train": {"decay_embeddings": False}}
"""Group → field → what runs did before there was such a field, where that is not the field's default."""


def former(recorded: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Group → field → value of all that a recorded recipe does not name: what a run did before these were settings.

    Args:
        recorded: a recipe as JSON values, of this version or an earlier one.
    """
    missing: dict[str, dict[str, Any]] = {}
    for group in dataclasses.fields(Preset):
        named = recorded.get(group.name)
        default = getattr(Preset(), group.name)
        if isinstance(named, dict) and dataclasses.is_dataclass(default):
            values = dataclasses.asdict(default) | FORMER.get(group.name, {})  # type: ignore[arg-type]
            missing[group.name] = {name: value for name, value in values.items() if name not in named}
    return {group: values for group, values in missing.items() if values}


def check_name(folder: str, setting: str, name: str) -> None:
    """Raise a `MagiError` unless a class of that name is registered; `folder` as of `registry.declared`."""
    known = declared(folder)
    check(name in known, f"{setting} must be one of {', '.join(known)}, got {name!r}")


def check_paradigm(name: str, options: Mapping[str, str]) -> None:
    """Raise a `MagiError` unless there is a paradigm of that name with these hyper-parameters."""
    check_options("paradigms", "forcing", name, options)


def check_exposure(name: str, options: Mapping[str, str], forcing: str, head: str) -> None:
    """Refuse a cure for exposure bias that there is not, or that means nothing to a paradigm or a head.

    Args:
        name: of the cure.
        options: its hyper-parameters.
        forcing: name of the paradigm.
        head: of the recipe.

    Raises:
        MagiError: what it has not, or what it needs and why.
    """
    check_options("exposure", "exposure", name, options)
    cure, paradigm = declared("exposure")[name], declared("paradigms")[forcing]
    needs: dict[str, tuple[tuple[object, ...], str]] = cure.get("needs", {})

    def unmet(values: Mapping[str, Any]) -> list[str]:
        return [why for what, (fitting, why) in needs.items() if values.get(what) not in fitting]

    if reasons := unmet(paradigm):
        others = ", ".join(other for other, values in declared("paradigms").items() if not unmet(values))
        raise MagiError(f"exposure {name!r} is not for the paradigm {forcing}: {reasons[0]} (it is for {others})")
    heads = cure.get("heads", (head,))
    check(head in heads, f"exposure {name!r} needs a head {' or '.join(heads)}, got {head!r}")


def check_sparse_past(preset: Preset) -> None:
    """Refuse clips with a sparse past where generation can have none, or would never see it so.

    Raises:
        MagiError: why not, and what to give.
    """
    if not preset.data.sparse_past:
        return
    sample, window = preset.sample, preset.data.num_frames
    kept = (sample.sink_frames or 0) + (sample.strided_frames or 0)
    check(
        0 < kept <= window - 2,
        f"sparse_past shows what sink_frames and strided_frames keep in sight: give 1 to {window - 2} of them together "
        f"for clips of {window} frames, got {kept}",
    )
    check(
        preset.model.temporal_position == "rope",
        "sparse_past is for models with relative positions (temporal_position rope): others see their whole past",
    )
    check(
        declared("paradigms")[preset.forcing].get("frame_cache", True),
        f"sparse_past needs a paradigm that makes frames one by one over the frame cache; {preset.forcing} does not",
    )
    check(
        declared("exposure")[preset.exposure.exposure].get("reconstructs") != "all",
        f"exposure {preset.exposure.exposure!r} makes every frame from the one before it, and with sparse_past some "
        "follow no neighbour",
    )


PLAIN_SHARE = 0.4
"""Of a training that is plain before resampling begins (Resampling Forcing: 10,000 of 25,000 steps)."""


def check_cure_begins(exposure: ExposureConfig, steps: int) -> None:
    """Refuse a training that ends before its cure for exposure bias begins.

    Args:
        exposure: of the recipe.
        steps: optimiser steps in all; 0 for no training.

    Raises:
        MagiError: what to give.
    """
    cure = declared("exposure")[exposure.exposure]
    if not steps or not (option := cure.get("begins_after")):
        return
    after = int({**cure["options"], **exposure.exposure_options}[option])
    check(
        after < steps,
        f"exposure {exposure.exposure!r} begins after {option} {after:,}, and this training ends after {steps:,} "
        f"steps: give the exposure option {option} {round(PLAIN_SHARE * steps)}, or more steps",
    )


def check_options(folder: str, setting: str, name: str, options: Mapping[str, str]) -> None:
    """Raise a `MagiError` unless a class of that name is registered and has these hyper-parameters."""
    check_name(folder, setting, name)
    own, choices, limits = (declared(folder)[name].get(key, {}) for key in ("options", "choices", "limits"))
    for option, value in options.items():
        where = f"{setting}_options: {option}"
        check(option in own, f"{setting}_options: {option!r} is none of {name}'s; it has {', '.join(own) or 'none'}")
        read_option(where, value, own[option], choices.get(option, ()), limits.get(option, ()))


def check_learnable(name: str, options: Mapping[str, str], head: str, frames: int, kind: str = "frames") -> None:
    """Refuse what a paradigm cannot learn, whatever the data.

    Args:
        name: of the paradigm.
        options: its hyper-parameters; those that are not named keep their defaults.
        head: of the recipe.
        frames: of a training clip, as the transformer counts them.
        kind: what they are called.

    Raises:
        MagiError: the paradigm takes no such head, or such clips end before anything is learned in them.
    """
    values = declared("paradigms")[name]
    heads = values.get("heads", (head,))
    check(head in heads, f"{name} denoises continuous tokens: head must be {' or '.join(heads)}, got {head!r}")
    check_clip_frames(name, values.get("shown_frames", 0), {**values.get("options", {}), **options}, frames, kind)


def check(condition: bool, message: str) -> None:
    """Raise a `MagiError` unless a setting holds."""
    if not condition:
        raise MagiError(message)


def own_sampling(forcing: str, sample: Sampling) -> ResolvedSampling:
    """A recipe's choices, where it makes none those of its paradigm, or else the paper's."""
    return Sampling.of(own_steps(forcing), **sample.given()).complete()


def own_steps(forcing: str, sample: Sampling | None = None) -> Sampling:
    """A paradigm's own numbers of steps in place of those in `sample`; 1 where it has no such steps."""
    own = declared("paradigms")[forcing].get("steps", {})
    return Sampling.of(sample, **{name: max(1, steps) for name, steps in own.items()})
