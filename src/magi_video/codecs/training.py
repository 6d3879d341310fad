"""Trains the project's own small image VAE: minutes on two CPU cores, resumable to the bit.

Every step is a pure function of its number: the caller gives batches by step, and the latent noise is seeded by step,
so a checkpoint holds weights, optimizer state and the step, and no random-number state.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from magi_video.codecs.base import Codec
from magi_video.codecs.config import SmallVAEConfig
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.quality import reconstruction_psnr
from magi_video.codecs.statistics import measure_statistics
from magi_video.errors import MagiError
from magi_video.fast.precision import modern
from magi_video.fast.probes import choose_precision
from magi_video.files.checkpoints import (
    latest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    restore_tensors,
    save_checkpoint,
)
from magi_video.files.weights import load_strictly

CHECKPOINTS, UNFINISHED = "checkpoints", "unfinished"
RECORD = "training.json"


def build_small_vae(config: SmallVAEConfig) -> AutoencoderTiny:
    """Build the untrained VAE; its weights depend on `config.seed` alone."""
    levels = len(config.encoder_blocks)
    if levels < 1 or len(config.decoder_blocks) != levels:
        raise MagiError(
            f"encoder_blocks and decoder_blocks must have as many levels; got {levels} and {len(config.decoder_blocks)}"
        )
    # diffusers initialises through torch's global generator: seed a fork of it and leave the caller's untouched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return AutoencoderTiny(
            latent_channels=config.latent_channels,
            encoder_block_out_channels=(config.width,) * levels,
            decoder_block_out_channels=(config.width,) * levels,
            num_encoder_blocks=config.encoder_blocks,
            num_decoder_blocks=config.decoder_blocks,
        )


def train_image_vae(
    config: SmallVAEConfig,
    batches: Callable[[int], torch.Tensor],
    measured: Sequence[torch.Tensor],
    directory: str | Path,
    *,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> ImageVAECodec:
    """Train, measure latent statistics, save the codec in `directory` and return it on `device`.

    `batches(step)` gives the pictures of steps 0 … config.steps − 1, float [B, 3, H, W] in [-1, 1]; `measured` are
    such batches for the statistics and for the PSNR that is recorded. `on_step(steps done, metrics)` is called after
    every step, `say` with the line that tells the precision. The same call again continues from the last checkpoint,
    on the CPU to the same bits as without the interruption, or loads the finished codec. `directory` receives
    `config.json`, weights and `training.json` (settings, PSNR in dB, seconds). `MagiError` for unusable batches,
    another configuration in `directory`, or a training that diverges.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / RECORD).is_file():
        record = _read_record(directory / RECORD)
        _check_config(_settled(config, record)[0], record, directory)
        codec = load_strictly(ImageVAECodec, str(directory)).to(device)
        _remove_unfinished(directory)  # what a process killed at its very end has left
        return codec

    # Convolutions in channels-last layout are about 1.6 times as fast on a CPU.
    vae: Any = build_small_vae(config)  # Any: mypy misreads the decorated `to` of diffusers
    vae.to(device=device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    named = dict(vae.named_parameters())
    first_step, started = 0, time.monotonic()
    checkpoint = latest_checkpoint(directory / CHECKPOINTS)
    config, reason = _settled(config, {} if checkpoint is None else checkpoint.state)
    choice = choose_precision(config.precision, device, "convolution", reason=reason)
    config = replace(config, precision=choice.precision)
    if say is not None:
        say(f"codec: {choice}")
    if checkpoint is not None:
        _check_config(config, checkpoint.state, directory)
        restore_tensors(named, checkpoint.tensors("model"))
        restore_optimizer(optimizer, checkpoint.tensors("optimizer"))
        first_step, started = checkpoint.step, started - checkpoint.state["seconds"]

    for step in range(first_step, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        pictures_BCHW = _check_batch(batches(step), vae).to(device)
        losses = training_losses(vae, pictures_BCHW, config, step)
        loss = losses["mse"] + config.edge_weight * losses["edges"] + config.latent_penalty * losses["latents"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), config.gradient_clip)
        optimizer.step()
        values = torch.stack([loss.detach(), norm, *(value.detach() for value in losses.values())]).tolist()
        metrics = dict(zip(("loss", "gradient_norm", *losses), values, strict=True))
        if not math.isfinite(metrics["loss"]):
            raise MagiError(f"training of the VAE diverged at step {step + 1}: try a lower learning_rate")
        metrics["psnr"] = 10 * math.log10(4 / max(metrics["mse"], 1e-12))
        metrics["learning_rate"] = learning_rate(config, step)

        def save(done: int) -> None:
            tensors = {"model": named, "optimizer": optimizer_tensors(optimizer)}
            state = {"config": asdict(config), "seconds": time.monotonic() - started}
            save_checkpoint(directory / CHECKPOINTS, done, tensors, state)

        due = (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps
        if due:
            save(step + 1)
        if on_step is not None:
            try:
                on_step(step + 1, metrics)
            except (MagiError, KeyboardInterrupt):  # whoever asks to stop here loses nothing
                if not due:
                    save(step + 1)
                raise

    codec = ImageVAECodec.from_module(vae.eval())
    videos = [pictures_BCHW[:, None] for pictures_BCHW in measured]
    codec.set_statistics(*measure_statistics(codec, videos))
    record = {
        "config": asdict(config),
        "psnr_db": reconstruction_psnr(codec, videos),
        "parameters": sum(parameter.numel() for parameter in vae.parameters()),
        "seconds": time.monotonic() - started,
    }
    _save_finished(codec, record, directory)
    return codec


def learning_rate(config: SmallVAEConfig, step: int) -> float:
    """Rate of `step`: linear warm-up to the peak, then half a cosine down to 1 % of it."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warm * (0.01 + 0.99 * cosine)


def training_losses(
    vae: AutoencoderTiny, pictures_BCHW: torch.Tensor, config: SmallVAEConfig, step: int
) -> dict[str, torch.Tensor]:
    """The parts of the loss at one step: squared error, squared error of differences, mean squared latent."""
    device = pictures_BCHW.device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        latents_BCHW = vae.encode(pictures_BCHW.contiguous(memory_format=torch.channels_last)).latents.float()
        # Noise is measured in deviations of the latents themselves: growing them does not drown it.
        std_C11 = latents_BCHW.detach().std((0, 2, 3), keepdim=True)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        level_B111 = torch.rand((len(latents_BCHW), 1, 1, 1), generator=generator) * config.latent_noise
        noise_BCHW = level_B111 * torch.randn(latents_BCHW.shape, generator=generator)
        decoded_BCHW = vae.decode(latents_BCHW + std_C11 * noise_BCHW.to(device)).sample.float()
    error_BCHW = decoded_BCHW - pictures_BCHW
    return {
        "mse": error_BCHW.square().mean(),
        "edges": error_BCHW.diff(dim=-1).square().mean() + error_BCHW.diff(dim=-2).square().mean(),
        "latents": latents_BCHW.square().mean(),
    }


def _check_batch(pictures_BCHW: torch.Tensor, vae: AutoencoderTiny) -> torch.Tensor:
    factor = 2 ** (len(vae.config["encoder_block_out_channels"]) - 1)
    shape = pictures_BCHW.shape
    fits = len(shape) == 4 and shape[1] == 3 and shape[2] % factor == 0 and shape[3] % factor == 0
    if not fits or not pictures_BCHW.is_floating_point():
        raise MagiError(
            f"the VAE trains on float pictures [batch, 3, height, width] in [-1, 1] with sides divisible by {factor}; "
            f"got {str(pictures_BCHW.dtype).removeprefix('torch.')} {list(shape)}"
        )
    return pictures_BCHW


def _save_finished(codec: Codec, record: dict[str, object], directory: Path) -> None:
    """Save the codec; the record comes last, so that its presence says that all is there."""
    unfinished = directory / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    codec.save_pretrained(unfinished)
    (unfinished / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == RECORD):
        os.replace(path, directory / path.name)
    _remove_unfinished(directory)


def _remove_unfinished(directory: Path) -> None:
    """Remove what only an unfinished training needs."""
    for name in (UNFINISHED, CHECKPOINTS):
        shutil.rmtree(directory / name, ignore_errors=True)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MagiError(f"cannot read {path}: {error}") from error
    if not isinstance(record, dict):
        raise MagiError(f"{path} is not a JSON object")
    return record


def _settled(config: SmallVAEConfig, record: dict[str, Any]) -> tuple[SmallVAEConfig, str]:
    """The settings with the precision that a record has, where none is asked for; and why it is the one."""
    found = record.get("config")
    recorded = modern(found.get("precision")) if isinstance(found, dict) else None
    if config.precision == "auto" and recorded in ("float32", "bf16"):
        return replace(config, precision=recorded), "as its training began"
    return config, "as asked"


def _check_config(config: SmallVAEConfig, record: dict[str, Any], directory: Path) -> None:
    """Refuse to go on under other settings than the folder's."""
    wanted = json.loads(json.dumps(asdict(config)))
    found = record.get("config")
    found = found if isinstance(found, dict) else {}
    found = found | {"precision": modern(found.get("precision"))}
    other = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if other:
        told = ", ".join(f"{key}={found.get(key)} (asked: {wanted.get(key)})" for key in other[:3])
        raise MagiError(f"{directory} holds a VAE trained with other settings: {told}; use another folder")
