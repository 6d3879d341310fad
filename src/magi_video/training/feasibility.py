"""What no machine can train, or this one cannot: found from the recipe, before a video is decoded or a VAE fetched."""

from __future__ import annotations

from pathlib import Path

from magi_video.codecs.base import CODECS
from magi_video.codecs.registry import load_codec
from magi_video.codecs.sizes import LatentSizes
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.files.limits import machine_memory
from magi_video.files.shapes import parameters_by_part
from magi_video.recipe import Preset, TrainConfig, check_cure_begins
from magi_video.training.sizing import find_architecture

COPIES_ON_CPU = 5
"""Of each weight: itself, its gradient, two moments and its average."""
FLOAT_BYTES = 4
GIB = 2**30


def check_recipe(preset: Preset, processes: Processes, codec_folder: Path | None = None) -> None:
    """Refuse a recipe whose model or batch cannot be, or whose cure for exposure bias would never begin.

    Args:
        preset: the recipe.
        processes: of this run.
        codec_folder: of the finished codec, where there is one; else the recipe's is looked up, its config alone.

    Raises:
        MagiError: what cannot be, and what was expected; or the codec is not to be had.
    """
    check_cure_begins(preset.exposure, preset.train.steps)
    codec = find_sizes(preset, codec_folder)
    architecture = find_architecture(preset, codec)
    memory = machine_memory()
    numbers = sum(parameters_by_part(architecture).values())
    copies = COPIES_ON_CPU if processes.device.type == "cpu" and preset.train.sharding == "none" else 1
    if (needed := numbers * copies * FLOAT_BYTES) > memory:
        raise MagiError(
            f"a model of {numbers:,} parameters, which need {needed / GIB:,.0f} GiB in training; this machine has "
            f"{memory / GIB:,.0f} GiB: expected a smaller hidden, depth, mlp or head_width"
        )
    micro, data = micro_batch(preset.train, processes.count), preset.data
    if (needed := micro * data.num_frames * data.height * data.width * 3 * FLOAT_BYTES) > memory:
        raise MagiError(
            f"{micro:,} clips at once of {data.num_frames} frames of {data.height}×{data.width} pixels, which need "
            f"{needed / GIB:,.0f} GiB; this machine has {memory / GIB:,.0f} GiB: expected a smaller batch_size or a "
            "larger accumulate"
        )


def micro_batch(config: TrainConfig, processes: int) -> int:
    """Clips that each process trains on at once.

    Raises:
        MagiError: the batch does not divide.
    """
    parts = processes * config.accumulate
    if config.batch_size % parts:
        raise MagiError(
            f"batch_size {config.batch_size} does not divide into {processes} processes × accumulate "
            f"{config.accumulate}"
        )
    return config.batch_size // parts


def find_sizes(preset: Preset, codec_folder: Path | None = None) -> LatentSizes:
    """What the recipe's codec makes of sizes; arguments as `check_recipe`.

    Raises:
        MagiError: it does not take the recipe's frames, or is not to be had.
    """
    data = preset.data
    sizes: LatentSizes
    if codec_folder is not None and (codec_folder / "config.json").is_file():
        sizes = load_codec(codec_folder)
    else:
        sizes = CODECS.find(preset.codec.codec).sizes_for(preset)
    sizes.latent_size(data.height, data.width)
    sizes.num_latent_frames(data.num_frames)
    return sizes
