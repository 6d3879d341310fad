"""From a recipe and its data to what the training loop drives: model, clips, pipeline, accelerator."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, ProjectConfiguration

from magi_video.codecs.base import Codec
from magi_video.codecs.discrete import DiscreteCodec
from magi_video.data.clips import USUAL_RATE, ClipDataset, FrameReader
from magi_video.data.folder import VideoFolder
from magi_video.data.sparse_past import SparsePast
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.exposure import CURES, Cure
from magi_video.exposure.memory import FrameMemory
from magi_video.fast.allocator import keep_freed_memory
from magi_video.fast.kernel_choice import LINEAR_KERNELS, settle_kernels, training_kernels
from magi_video.fast.kernels import use_training_kernels
from magi_video.fast.speed import speed_up
from magi_video.fast.threads import choose_threads
from magi_video.models.architecture import ACTION, LABEL
from magi_video.models.categorical import CategoricalHead
from magi_video.models.conditions import VectorCondition
from magi_video.models.dropout import DropoutRates
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import MaskRatio, Paradigm, find_paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.pipeline.ready import product_flops
from magi_video.recipe import ExposureConfig, Preset, TrainConfig
from magi_video.training.captions import CaptionTable
from magi_video.training.preparation import derive_seed
from magi_video.training.sizing import WORD_SIZE, find_architecture, own_options
from magi_video.training.tracking import find_tracker


@dataclass(frozen=True)
class TrainingData:
    """What a run is trained on.

    Attributes:
        videos: the data set.
        codec: from pixels to latents, with its statistics.
        reader: what clips are read through.
        encoded: whether `reader` yields latents already; else pixels, which the loop encodes.
        captions: of the videos, where the recipe wants text.
    """

    videos: VideoFolder
    codec: Codec
    reader: FrameReader
    encoded: bool
    captions: CaptionTable | None = None

    def action_names(self, preset: Preset) -> list[str]:
        """The columns of an action, none where the recipe takes no actions."""
        return self.videos.action_names if preset.model.actions else []


def build_accelerator(config: TrainConfig, out: Path) -> Accelerator:
    """accelerate, which knows the devices and trackers of a run in a folder.

    Raises:
        MagiError: accelerate is configured to shard the model itself, or the tracker is not installed.
    """
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is our own: accelerate knows one precision in the life of a process
        log_with=find_tracker(config.tracker),
        project_config=ProjectConfiguration(str(out), logging_dir=str(out / "logs")),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise MagiError("accelerate is configured to shard the model; leave that out and give --sharding full")
    return accelerator


def build_network(preset: Preset, data: TrainingData, seed: int) -> tuple[MagiVideoTransformer, list[str]]:
    """The untrained transformer of a run, and the actions that its data names but never shows."""
    actions = data.action_names(preset)
    untaken = untaken_actions(data.videos) if preset.model.actions else []
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, 0))
        word_size = WORD_SIZE if data.captions is None else data.captions.size
        model = build_model(preset, data.codec, data.videos, actions, word_size)
    if untaken:
        silence_actions(model, [actions.index(name) for name in untaken])
    return model, untaken


def put_in_speed(
    model: MagiVideoTransformer,
    config: TrainConfig,
    device: torch.device,
    micro: int,
    low: bool,
    processes: Processes,
    kernels: Mapping[str, bool] | None = None,
) -> None:
    """All that changes the seconds of a step, and of a result no more than its rounding.

    Args:
        model: changed in place.
        config: of the training.
        device: that trains.
        micro: clips of one forward and backward.
        low: whether products are bfloat16.
        processes: of the run.
        kernels: name → whether it is asked for, as the run has recorded it (`choose_kernels`).
    """
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    speed_up(model)
    if device.type == "cpu":
        keep_freed_memory()
        used = settle_kernels(training_kernels("bf16" if low else "float32"), processes, kernels)
        use_training_kernels(model, linears=used.get(LINEAR_KERNELS, False))
        choose_threads(product_flops(model, micro * model.config.num_frames))
    else:
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")


def build_clips(preset: Preset, data: TrainingData, model: MagiVideoTransformer) -> ClipDataset:
    """The clips that the model is trained on."""
    return ClipDataset(
        data.videos,
        data.reader,
        data.codec.num_pixel_frames(model.config.num_frames),
        min_interval=preset.data.min_interval,
        max_interval=preset.data.max_interval,
        action_names=data.action_names(preset),
        temporal_factor=data.codec.temporal_factor,
        flip=preset.data.flip,
        sparse_past=build_sparse_past(preset, model.config.num_frames),
    )


def build_sparse_past(preset: Preset, window: int) -> SparsePast | None:
    """Which clips of so many frames show a sparse past, as the recipe's sampling will; None for none."""
    memory = FrameMemory.of(window, preset.sample)
    return SparsePast(preset.data.sparse_past, memory) if preset.data.sparse_past and memory else None


def build_pipeline(
    preset: Preset, data: TrainingData, model: MagiVideoTransformer, clips: ClipDataset
) -> MagiVideoPipeline:
    """The pipeline that a run's folder becomes."""
    pipeline = MagiVideoPipeline(
        model,
        data.codec,
        forcing=preset.forcing,
        forcing_options=recorded_options(preset),
        height=preset.data.height,
        width=preset.data.width,
        frame_rate=next(iter(clips.frame_rates), USUAL_RATE),
        action_names=data.action_names(preset),
        class_names=data.videos.class_names if LABEL in model.condition_tokens.specs else [],
        sampling=preset.own_sampling.given(),
        training={},
    )
    pipeline.text_folder = None if data.captions is None else data.captions.folder
    return pipeline


def build_paradigm(preset: Preset, cure: Cure | None = None) -> Paradigm:
    """The recipe's paradigm, with its masking, cure for exposure bias (`build_cure`, if not given) and dropout."""
    exposure, train = preset.exposure, preset.train
    return find_paradigm(preset.forcing)(
        MaskRatio(exposure.mask_ratio_min, exposure.mask_ratio_std),
        cure or build_cure(exposure),
        exposure.diffusion_batch_mul,
        DropoutRates(train.attention_dropout, train.projection_dropout, train.mlp_dropout),
        **preset.forcing_options,
    )


def build_cure(config: ExposureConfig) -> Cure:
    """The recipe's cure for exposure bias."""
    cure = CURES.find(config.exposure)
    noise = {"levels": config.noise_levels, "max_sigma": config.noise_sigma} if cure.injects else {}
    return cure(**noise, **config.exposure_options)


def recorded_options(preset: Preset) -> dict[str, str]:
    """Every hyper-parameter of the recipe's paradigm, those at their defaults too: a model keeps what it learned by."""
    return {name: str(value) for name, value in own_options(preset.forcing, preset.forcing_options).items()}


def build_model(
    preset: Preset, codec: Codec, videos: VideoFolder, actions: list[str], text_size: int = WORD_SIZE
) -> MagiVideoTransformer:
    """The preset's transformer, fitted to the codec's latents, the names of the `actions`, the data's classes and the
    numbers in a vector of the text encoder."""
    if preset.model.actions and not actions:
        raise MagiError(f"{videos.root}: the preset wants actions, but no video has any beside it; see magi record")
    if preset.model.labels and not videos.class_names:
        raise MagiError(f"{videos.root}: the preset wants labels, but the videos lie in no class folders")
    model = MagiVideoTransformer(
        find_architecture(preset, codec, actions=len(actions), classes=len(videos.class_names), word_size=text_size)
    )
    if isinstance(model.diffusion_head, CategoricalHead):
        assert isinstance(codec, DiscreteCodec)  # the architecture knows its number of codes
        model.diffusion_head.set_codebook(codec.codebook())
        model.diffusion_head.label_smoothing = preset.train.label_smoothing
    return model


def untaken_actions(videos: VideoFolder) -> list[str]:
    """Actions that the data names and never shows: a game may offer many more than its player tries."""
    taken = np.zeros(len(videos.action_names), bool)
    for index in range(len(videos.videos)):
        recorded = videos.actions(index)
        if recorded is not None:
            taken |= recorded.any(axis=0)
    return [name for name, shown in zip(videos.action_names, taken, strict=True) if not shown]


def silence_actions(model: MagiVideoTransformer, columns: list[int]) -> None:
    """Let actions that no video shows do nothing.

    Their inputs are always 0, so training never changes their weights, which would stay the noise they begin as.
    """
    embed = model.condition_tokens.embed[ACTION]
    assert isinstance(embed, VectorCondition)
    with torch.no_grad():
        embed.project.weight[:, columns] = 0
