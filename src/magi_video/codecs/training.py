"""Trains the project's own codecs of single frames: minutes on two CPU cores, resumable to the bit.

The loop is one for all of them; `codecs/small_vae_training.py` and `codecs/vq_training.py` are what it trains. Every
step is a pure function of its number: the caller gives batches by step, and whatever is drawn is seeded by step, so a
checkpoint holds tensors, optimizer state and the step, and no random-number state.
"""

import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from magi_video.codecs.base import Codec, OnStep
from magi_video.codecs.config import ImageCodecConfig
from magi_video.codecs.quality import reconstruction_psnr
from magi_video.codecs.registry import load_codec
from magi_video.errors import MagiError
from magi_video.fast.precision import modern
from magi_video.fast.probes import choose_precision
from magi_video.files.artifact import Artifact, Record
from magi_video.files.checkpoints import (
    latest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    restore_tensors,
    save_checkpoint,
)
from magi_video.files.folders import ensure_folder
from magi_video.recipe import CodecConfig, Preset

CHECKPOINTS, UNFINISHED = "checkpoints", "unfinished"
RECORD = "training.json"

R = TypeVar("R", bound=ImageCodecConfig)


class CodecTraining(ABC, Generic[R]):
    """What is trained: a network, its losses, and the codec that comes of it.

    Args:
        config: the recipe; the loop replaces the precision that it settles on.
        device: where.
    """

    name: ClassVar[str]
    """In messages."""
    network: nn.Module
    """What the optimiser trains."""

    def __init__(self, config: R, device: str | torch.device = "cpu") -> None:
        self.config, self.device = config, torch.device(device)

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint must hold besides the optimiser's state, by name; it is restored in place."""
        return dict(self.network.named_parameters())

    @abstractmethod
    def losses(self, pictures_BCHW: Tensor, step: int) -> dict[str, Tensor]:
        """The parts of the loss at a step, by name: "loss" is what is minimised, "mse" the squared error."""

    def after_step(self, step: int) -> dict[str, float]:
        """Called after the optimiser's step; returns further figures for the log."""
        return {}

    @abstractmethod
    def finish(self, measured: Sequence[Tensor]) -> tuple[Codec, dict[str, Any]]:
        """The trained codec with its statistics, and what else its record is to say.

        Args:
            measured: videos `[B, 1, 3, H, W]` in [−1, 1] to measure on.
        """

    def autocast(self) -> torch.autocast:
        """Computes the networks in the recipe's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def generator(self, step: int) -> torch.Generator:
        """Of all that is drawn at a step; on the CPU."""
        return torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)


class TrainedCodec(Codec):
    """A codec that is trained on the data of a run."""

    trained_by: ClassVar[type[CodecTraining[Any]]]

    @classmethod
    @override
    def pretrained(cls, settings: CodecConfig) -> Codec:
        """There is none."""
        raise MagiError(f"{cls.name} is trained on the data of a run; there are no weights of it to fetch")

    @classmethod
    @override
    def train_on(
        cls,
        preset: Preset,
        batches: Callable[[int], Tensor],
        measured: Sequence[Tensor],
        folder: Path,
        *,
        on_step: OnStep | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Codec:
        config = replace(preset.codec_settings, precision=preset.codec_precision)
        return train_codec(cls.trained_by(config), batches, measured, folder, on_step=on_step, say=say)


def reconstruction_errors(decoded_BCHW: Tensor, pictures_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error, and that of horizontal and vertical differences."""
    error_BCHW = decoded_BCHW - pictures_BCHW
    return error_BCHW.square().mean(), error_BCHW.diff(dim=-1).square().mean() + error_BCHW.diff(dim=-2).square().mean()


def train_codec(
    training: CodecTraining[R],
    batches: Callable[[int], Tensor],
    measured: Sequence[Tensor],
    directory: str | Path,
    *,
    on_step: OnStep | None = None,
    say: Callable[[str], None] | None = None,
) -> Codec:
    """Train, measure latent statistics, save the codec in `directory` and return it.

    The same call again continues from the last checkpoint, on the CPU to the same bits as without the interruption, or
    loads the finished codec.

    Args:
        training: of the codec.
        batches: gives the pictures of steps 0 … config.steps − 1, float `[B, 3, H, W]` in [−1, 1].
        measured: such batches for the statistics and for the PSNR that is recorded.
        directory: receives `config.json`, weights and `training.json` (settings, PSNR in dB, seconds).
        on_step: called after every step with the steps done and figures by name.
        say: called with the line that tells the precision.

    Raises:
        MagiError: unusable batches, another configuration in `directory`, or a training that diverges.
    """
    directory = Path(directory)
    ensure_folder(directory)
    artifact = Artifact(directory / RECORD, "a codec", _lasting)
    if (record := artifact.read()) is not None:
        artifact.compare(record, {"config": asdict(_settled(training.config, record)[0])})
        codec = load_codec(directory).to(training.device)
        _remove_unfinished(directory)  # what a process killed at its very end has left
        return codec

    # Convolutions in channels-last layout are about 1.6 times as fast on a CPU.
    network = training.network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    config = training.config
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    first_step, started = 0, time.monotonic()
    checkpoint = latest_checkpoint(directory / CHECKPOINTS)
    config, reason = _settled(config, {} if checkpoint is None else checkpoint.state)
    choice = choose_precision(config.precision, training.device, "convolution", reason=reason)
    training.config = config = replace(config, precision=choice.precision)
    if say is not None:
        say(f"codec: {choice}")
    if checkpoint is not None:
        artifact.compare(checkpoint.state, {"config": asdict(config)})
        restore_tensors(training.tensors(), checkpoint.tensors("model"))
        restore_optimizer(optimizer, checkpoint.tensors("optimizer"))
        first_step, started = checkpoint.step, started - checkpoint.state["seconds"]

    for step in range(first_step, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        losses = training.losses(_check_batch(batches(step), training).to(training.device), step)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
        optimizer.step()
        values = torch.stack([*(value.detach() for value in losses.values()), norm]).tolist()
        metrics = dict(zip((*losses, "gradient_norm"), values, strict=True))
        if not math.isfinite(metrics["loss"]):
            raise MagiError(f"training of the {training.name} diverged at step {step + 1}: try a lower learning_rate")
        metrics |= training.after_step(step)
        metrics["psnr"] = 10 * math.log10(4 / max(metrics["mse"], 1e-12))
        metrics["learning_rate"] = learning_rate(config, step)

        def save(done: int) -> None:
            tensors = {"model": training.tensors(), "optimizer": optimizer_tensors(optimizer)}
            state = {"config": asdict(config), "seconds": time.monotonic() - started}
            save_checkpoint(directory / CHECKPOINTS, done, tensors, state)

        due = (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps
        if due:
            save(step + 1)
        if on_step is not None:
            try:
                on_step(step + 1, metrics)
            except (MagiError, KeyboardInterrupt):  # a stop that is asked for here loses nothing
                if not due:
                    save(step + 1)
                raise

    network.eval()
    videos = [pictures_BCHW[:, None] for pictures_BCHW in measured]
    codec, found = training.finish(videos)
    made = {
        "config": asdict(config),
        "psnr_db": reconstruction_psnr(codec, videos),
        **found,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": time.monotonic() - started,
    }
    artifact.publish(codec.save_pretrained, made)
    _remove_unfinished(directory)
    return codec


def learning_rate(config: ImageCodecConfig, step: int) -> float:
    """Rate of `step`: linear warm-up to the peak, then half a cosine down to 1 % of it."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warm * (0.01 + 0.99 * cosine)


def _check_batch(pictures_BCHW: Tensor, training: CodecTraining[R]) -> Tensor:
    factor = training.config.spatial_factor
    shape = pictures_BCHW.shape
    fits = len(shape) == 4 and shape[1] == 3 and shape[2] % factor == 0 and shape[3] % factor == 0
    if not fits or not pictures_BCHW.is_floating_point():
        raise MagiError(
            f"the {training.name} trains on float pictures [batch, 3, height, width] in [-1, 1] with sides divisible "
            f"by {factor}; got {str(pictures_BCHW.dtype).removeprefix('torch.')} {list(shape)}"
        )
    return pictures_BCHW


def _remove_unfinished(directory: Path) -> None:
    """Remove what only an unfinished training needs, of this version or an earlier one."""
    for name in (UNFINISHED, CHECKPOINTS):
        shutil.rmtree(directory / name, ignore_errors=True)


def _settled(config: R, record: dict[str, Any]) -> tuple[R, str]:
    """The settings with the precision that a record has, where none is asked for; and why it is the one."""
    found = record.get("config")
    recorded = modern(found.get("precision")) if isinstance(found, dict) else None
    if config.precision == "auto" and recorded in ("float32", "bf16"):
        return replace(config, precision=recorded), "as its training began"
    return config, "as asked"


def _lasting(record: Record) -> Record:
    """Of a record, the settings that the training keeps to, a former name of a precision as today's."""
    found = record.get("config")
    found = found if isinstance(found, dict) else {}
    return found | {"precision": modern(found.get("precision"))}
