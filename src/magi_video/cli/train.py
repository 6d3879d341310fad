"""`magi train PRESET-or-FILE`: any field of the preset is a flag."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import arg

from magi_video.cli.progress import TrainingDisplay, is_main_process
from magi_video.errors import MagiError
from magi_video.presets import (
    PRESETS,
    CodecConfig,
    DataConfig,
    ExposureConfig,
    ModelConfig,
    Preset,
    SampleConfig,
    SmallVAEConfig,
    TrainConfig,
    load_preset,
)

HELP = f"""Train a model on a folder of videos; the same command continues a run that was stopped.

usage: magi train PRESET-or-FILE --data DIR --out RUN [--steps N] [--seed S] [any field of the preset]

PRESET is one of {", ".join(PRESETS)}, or a JSON file of fields. The defaults below are the preset's.
RUN is then itself a model: magi generate RUN --out DIR."""


@dataclass(frozen=True)
class Command:
    """Options of `magi train`."""

    out: Path
    """Folder of the run: checkpoints, logs (tensorboard --logdir RUN/logs), sample sheets and the model."""
    data: Path | None = None
    """Folder of videos: any tree of them, a recording, or the official layout for presets of that data set."""
    latents: Path | None = None
    """Folder of latents that magi encode wrote. Without --data training sees no video, and makes no sample sheets."""
    forcing: Literal["complete", "masked"] = "complete"
    """Teacher-forcing paradigm: "complete" is MAGI, "masked" its rival."""
    seed: int = 0
    """Of everything random."""
    clips: Annotated[DataConfig, arg(name="")] = dataclasses.field(default_factory=DataConfig)
    codec: Annotated[CodecConfig, arg(name="")] = dataclasses.field(default_factory=CodecConfig)
    model: Annotated[ModelConfig, arg(name="")] = dataclasses.field(default_factory=ModelConfig)
    exposure: Annotated[ExposureConfig, arg(name="")] = dataclasses.field(default_factory=ExposureConfig)
    train: Annotated[TrainConfig, arg(name="")] = dataclasses.field(default_factory=TrainConfig)
    sample: Annotated[SampleConfig, arg(name="")] = dataclasses.field(default_factory=SampleConfig)
    small_vae: SmallVAEConfig = dataclasses.field(default_factory=SmallVAEConfig)

    def preset(self) -> Preset:
        """The recipe that the options make."""
        return Preset(
            forcing=self.forcing,
            data=self.clips,
            codec=self.codec,
            small_vae=self.small_vae,
            model=self.model,
            exposure=self.exposure,
            train=self.train,
            sample=self.sample,
        )


def parse(argv: list[str]) -> Command:
    """The command line as a `Command`; the first argument is the preset, whose fields become the defaults."""
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        raise MagiError(f"name a preset first: one of {', '.join(PRESETS)}, or a JSON file")
    name = "doom" if argv[0] in ("-h", "--help") else argv[0]
    preset = load_preset(name)
    missing = tyro.MISSING
    default = Command(
        out=missing,
        forcing=preset.forcing,
        clips=preset.data,
        codec=preset.codec,
        model=preset.model,
        exposure=preset.exposure,
        train=preset.train,
        sample=preset.sample,
        small_vae=preset.small_vae,
    )
    rest = argv if name != argv[0] else argv[1:]
    return tyro.cli(Command, prog=f"magi train {name}", description=HELP, default=default, args=rest)


def main(argv: list[str]) -> None:
    """Parse and train."""
    command = parse(argv)
    preset = command.preset()
    from magi_video.training import train
    from magi_video.training.stopping import StoppedError, StopSignals

    try:
        with TrainingDisplay() as display, StopSignals() as signals:
            train(preset, command.data, command.out, command.seed, display, command.latents, signals)
    except StoppedError as stopped:
        if not is_main_process():  # all stop together; one tells
            sys.exit(stopped.exit_code)
        raise
    if is_main_process():
        print(f"trained: {command.out} (try: magi generate {command.out} --out samples)", file=sys.stderr)
