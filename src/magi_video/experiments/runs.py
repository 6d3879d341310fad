"""Data, codec and training runs of a world, in one folder; everything that is there already is kept.

OUT/WORLD/train, OUT/WORLD/test     recordings (UCF-101: given)
OUT/WORLD/prepared/                 the codec, trained once, and the latents, encoded once, for all runs
OUT/WORLD/step_time.json            what a step of CTF and of MTF costs, measured in alternation
OUT/WORLD/runs/NAME-seedS/          a training run; its models after given numbers of steps are in models/
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from magi_video.data.folder import VideoFolder
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.experiments.rows import Row
from magi_video.experiments.worlds import World
from magi_video.files.atomic import link_or_copy, write_json
from magi_video.files.folders import ensure_folder
from magi_video.files.json import read_json
from magi_video.recipe import PLAIN_SHARE, Preset
from magi_video.recordings.record import record
from magi_video.training.build import TrainingData
from magi_video.training.display import Display, Silent
from magi_video.training.preparation import open_videos
from magi_video.training.run import train
from magi_video.training.stages import Stages
from magi_video.training.stopping import StoppingDisplay, StopSignals
from magi_video.training.trainer import Trainer

TEST_SEED = 1000
TIMED_STEPS = 12
MODEL_PARTS = ("model_index.json", "transformer", "codec")


def under(cure: str) -> Callable[[Preset], Preset]:
    """The recipe under a cure for exposure bias, as `magi_video.exposure` names it."""

    def change(preset: Preset) -> Preset:
        plain = {"plain_steps": str(round(PLAIN_SHARE * preset.train.steps))} if cure == "resampling" else {}
        return replace(preset, exposure=replace(preset.exposure, exposure=cure, exposure_options=plain))

    return change


def interpolated(preset: Preset) -> Preset:
    """With the paper's positions in time, which are stretched over a video of any length."""
    return replace(preset, model=replace(preset.model, temporal_position="interpolate"))


VARIANTS: dict[str, Callable[[Preset], Preset]] = {
    "ctf": lambda preset: preset,
    "mtf": lambda preset: replace(preset, forcing="masked"),
    "complete-interpolate": interpolated,
    **{f"exposure-{cure}": under(cure) for cure in ("none", "resampling", "error-bank", "canvas")},
}
"""What the recipes on one claim compare, as changes of the world's own recipe; other names are rows of table 1."""


def changed(preset: Preset, variant: str) -> Preset:
    """The recipe of a variant: one of `VARIANTS`, or a row as `experiments.rows` writes it."""
    return VARIANTS[variant](preset) if variant in VARIANTS else Row.parse(variant).preset(preset)


def share(prepared: Path, run: Path) -> None:
    """Give a run the codec and the latents of another folder, where it has none of its own."""
    for part in ("codec", "latents"):
        if (prepared / part).exists() and not (run / part).exists():
            shutil.copytree(prepared / part, run / part, copy_function=link_or_copy)


class PassedStepError(MagiError):
    """A run has gone past the step whose model is asked for, and did not keep it."""


@dataclass(frozen=True)
class Workplace:
    """One world's folder."""

    world: World
    folder: Path
    data: Path | None
    """Where the data of a world that is not recorded lies."""
    display: Display
    signals: StopSignals = field(default_factory=StopSignals)

    @property
    def watched(self) -> StoppingDisplay:
        """The display, for what is not training: it leaves a stage when a signal comes."""
        return StoppingDisplay(self.display, self.signals)

    @property
    def train_data(self) -> Path:
        """Videos to train on."""
        return self.folder / "train" if self.world.game else self._given_data()

    def _given_data(self) -> Path:
        if self.data is None:
            raise MagiError(f"world {self.world.name!r} needs its data: --data FOLDER")
        return self.data

    def record(self) -> None:
        """Record what is not there yet."""
        world = self.world
        if world.game is None:
            self._given_data()
            return
        for name, seed, frames in (("train", 0, world.train_frames), ("test", TEST_SEED, world.test_frames)):
            self.record_episodes(name, seed, world.episodes, frames)

    def record_episodes(self, name: str, seed: int, episodes: int, frames: int) -> None:
        """Record into a folder of the world's, as far as it is not there; `frames` is the longest of an episode."""
        world, display = self.world, self.watched
        assert world.game is not None
        if not (self.folder / name).is_dir():
            display.stage(f"{world.name}: recording episodes for {name}", episodes)
        record(
            world.game,
            self.folder / name,
            episodes=episodes,
            seed=seed,
            max_frames=frames,
            height=world.preset.data.height,
            width=world.preset.data.width,
            progress=lambda done, total, frames: display.advance(done),
        )

    def prepare(self) -> None:
        """Train the codec and encode the latents that all runs share."""
        prepared = self.folder / "prepared"
        if (prepared / "done.json").is_file():
            return
        self.record()
        preset = self.world.preset
        ensure_folder(prepared)
        videos = self._videos(prepared)
        stages = Stages(prepared, 0, Processes(), self.display, self.signals)
        codec = stages.codec(preset, videos)
        stages.latents(preset, videos, codec)
        write_json(prepared / "done.json", {"videos": len(videos.videos), "codec": codec.fingerprint()})

    def _videos(self, folder: Path) -> VideoFolder:
        return open_videos(self.world.preset, self.train_data, folder / "videos.json")

    def claim(self, run: Path) -> None:
        """Give a new run the shared codec and latents."""
        share(self.folder / "prepared", run)

    def equal_time_steps(self, steps: int) -> int:
        """Steps of MTF that take the time of `steps` steps of CTF."""
        return round(steps * self.step_time()["complete"] / self.step_time()["masked"])

    def step_time(self) -> dict[str, float]:
        """Median seconds of a training step of each paradigm; the steps alternate, so that both see the same noise."""
        path = self.folder / "step_time.json"
        if not path.is_file():
            self.prepare()
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".step-time-") as scratch:
                write_json(path, self._measure_step_time(Path(scratch)))
        return {name: float(value) for name, value in read_json(path).items()}

    def _measure_step_time(self, scratch: Path) -> dict[str, float]:
        loops = {}
        paradigms: tuple[Literal["complete", "masked"], ...] = ("complete", "masked")
        for forcing in paradigms:
            run = scratch / forcing
            self.claim(run)
            preset = replace(self.world.preset, forcing=forcing)
            preset = replace(preset, train=replace(preset.train, steps=TIMED_STEPS + 3))  # the last one is not taken
            videos = self._videos(run)
            stages = Stages(run, 0, Processes(), Silent(), self.signals)
            codec = stages.codec(preset, videos)
            reader, latents = stages.latents(preset, videos, codec)
            loops[forcing] = Trainer(preset, TrainingData(videos, codec, reader, latents), run).run()
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(TIMED_STEPS + 2):
            for name, loop in loops.items():
                seconds[name].append(self.world.preset.train.batch_size / next(loop)["clips_per_second"])
        return {name: statistics.median(values[2:]) for name, values in seconds.items()}

    def run_folder(self, variant: str, seed: int) -> Path:
        """Where a variant is trained."""
        name = variant if variant in VARIANTS else Row.parse(variant).key
        return self.folder / "runs" / f"{name}-seed{seed}"

    def model(self, variant: str, seed: int, steps: int) -> Path:
        """The model of a variant after so many steps; trained if it is not there.

        Raises:
            PassedStepError: the run has gone past this step and did not keep its model.
        """
        run = self.run_folder(variant, seed)
        target = run / "models" / f"{steps:06d}"
        if (target / "model_index.json").is_file():
            return target
        if later := [path.name for path in (run / "models").glob("[0-9]*") if int(path.name) > steps]:
            raise PassedStepError(
                f"{run}: trained to step {int(max(later))} without keeping its model of step {steps}; "
                "only a run from the start can make it"
            )
        self.prepare()
        self.claim(run)
        preset = changed(self.world.preset, variant)
        preset = replace(preset, train=replace(preset.train, steps=steps))
        self.display.say(f"{self.world.name}: training {variant}, seed {seed}, to step {steps}")
        train(preset, self.train_data, run, seed, self.display, signals=self.signals)
        self.signals.check("training")  # what came in the last step
        part = run / "models" / f".part-{os.getpid()}"
        part.mkdir(parents=True)
        for name in MODEL_PARTS:
            source = run / name
            if source.is_dir():
                shutil.copytree(source, part / name, copy_function=link_or_copy)
            else:
                shutil.copy2(source, part / name)
        part.rename(target)
        return target
