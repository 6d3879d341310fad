"""`magi encode PRESET-or-FILE-or-RUN`: the fields of the preset that latents depend on are flags."""

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import arg

from magi_video.cli.parsing import OutFolder, Videos, arguments
from magi_video.cli.parsing import parse as parse_options
from magi_video.cli.progress import TaskDisplay, is_main_process
from magi_video.cli.recipe import CodecOptions, DataOptions, split_recipe
from magi_video.codecs.config import SmallVAEConfig, VQConfig
from magi_video.errors import MagiError, counted
from magi_video.presets import PRESETS, load_preset, run_preset
from magi_video.recipe import CodecConfig, DataConfig, Preset, check_cure_begins
from magi_video.training.stopping import StopSignals

if TYPE_CHECKING:
    from magi_video.latents.encoding import Encoded

HELP = f"""Encode a data set once, for any number of trainings: magi train PRESET --latents CACHE --out RUN.

usage: magi encode PRESET-or-FILE-or-RUN --data DIR --out CACHE [--shard-size MB] [--workers N] [any field below]
       accelerate launch -m magi_video encode …     shares the work among the processes

PRESET is one of {", ".join(PRESETS)}; FILE a JSON file of fields; RUN the folder of a run, whose codec is taken.
The same command goes on after a stop, checks what is there, and encodes again what is damaged. A codec that compresses
time is encoded clip by clip, for each of the intervals; any other frame by frame, for all intervals at once."""


@dataclass(frozen=True)
class Command:
    """Options of `magi encode`."""

    data: Videos
    """Folder of videos, as for magi train."""
    out: OutFolder
    """Folder of the cache; one that all processes see."""
    shard_size: float = 256.0
    """MB (10⁶ bytes) of latents in a file. A file is what one process works on, and what a kill loses."""
    workers: int | None = None
    """Threads of each process that read, decode and (on a CPU) encode videos; its share of the cores if not said."""
    intervals: tuple[int, ...] = ()
    """Of a codec that compresses time: the intervals to encode; min-interval to max-interval if not said."""
    stride: int | None = None
    """Of a codec that compresses time: frames between the starts of two clips, at most; num-frames if not said."""
    verify: bool = False
    """Read the finished files and compare their SHA-256, rather than their sizes alone."""
    seed: int = 0
    """Of the codec's training or measuring."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the codec runs."""
    json: bool = False
    """Print the figures as JSON."""
    clips: Annotated[DataOptions, arg(name="")] = dataclasses.field(default_factory=DataOptions)
    codec: Annotated[CodecOptions, arg(name="")] = dataclasses.field(default_factory=CodecOptions)
    small_vae: SmallVAEConfig = dataclasses.field(default_factory=SmallVAEConfig)
    vq: VQConfig = dataclasses.field(default_factory=VQConfig)


def parse(argv: list[str]) -> tuple[Command, Path | None]:
    """The command line as a `Command`, and the folder of the codec if the first argument is a run."""
    name, rest = split_recipe(argv, "doom", "a JSON file, or the folder of a run")
    run = Path(name) if Path(name).is_dir() and name not in PRESETS else None
    preset = load_preset(name) if run is None else run_preset(run)
    check_cure_begins(preset.exposure, preset.train.steps)  # no training could use what is encoded for it
    missing: Any = tyro.MISSING
    clips, codec = DataOptions(**vars(preset.data)), CodecOptions(**vars(preset.codec))
    default = Command(data=missing, out=missing, clips=clips, codec=codec, small_vae=preset.small_vae, vq=preset.vq)
    command = parse_options(Command, f"magi encode {name}", rest, HELP, default)
    return command, None if run is None else run / "codec"


def main(argv: list[str]) -> None:
    """Parse, encode, print."""
    command, codec = parse(argv)
    if not command.shard_size > 0 or (command.workers is not None and command.workers < 1):
        raise MagiError(f"--shard-size {command.shard_size}, --workers {command.workers}; expected more than 0 of each")
    preset = Preset(
        data=DataConfig(**vars(command.clips)),
        codec=CodecConfig(**vars(command.codec)),
        small_vae=command.small_vae,
        vq=command.vq,
    )
    began = time.perf_counter()
    with TaskDisplay("loading PyTorch") as display, StopSignals() as signals:
        from magi_video.training.encode import encode

        given = arguments(command, "clips", "codec", "small_vae", "vq", "shard_size", "json")
        shard_bytes = int(command.shard_size * 1e6)
        encoded = encode(preset, **given, codec=codec, shard_bytes=shard_bytes, display=display, signals=signals)
    if is_main_process():
        print_result(command, encoded, time.perf_counter() - began)


def print_result(command: Command, encoded: "Encoded", seconds: float) -> None:
    """Print what was done and what there is."""
    figures = encoded.figures() | {"seconds": seconds}
    if command.json:
        print(json.dumps(figures))
        return
    for damaged, kind in (("damaged_shards", "shard"), ("damaged_mirrored_shards", "mirrored shard")):
        for shard in figures[damaged]:
            print(f"{kind} {shard:05d} was damaged and is encoded again", file=sys.stderr)
    clips, captions, mirrored = figures["clips"], figures["captions"], figures["mirrored"]
    what = f"{counted(clips, 'clip')} of " if clips is not None else ""
    what += counted(figures["frames"], "frame") + (f", {counted(captions, 'caption')}" if captions else "")
    what += ", and as many mirrored" if mirrored else ""
    shards, made = figures["shards"], figures["encoded_shards"]
    what = f"{counted(figures['videos'], 'video')}, {what}"
    print(f"{command.out}: {what}, {figures['bytes'] / 1e6:,.1f} MB in {counted(shards, 'shard')}")
    print(f"encoded {made} of them in {seconds:.1f} s (try: magi train … --latents {command.out})")
