"""From a preset, a folder of videos and an output folder to a trained model: what `magi train` does."""

from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from magi_video.data.files import write_json
from magi_video.errors import MagiError
from magi_video.loading import read_json
from magi_video.presets import Preset
from magi_video.processes import Processes
from magi_video.training.preparation import (
    caches_latents,
    open_videos,
    prepare_codec,
    prepare_reader,
    preset_differences,
)
from magi_video.training.stopping import StopSignals
from magi_video.training.trainer import Trainer


class Display(Protocol):
    """Whoever wants to see how training goes."""

    def say(self, text: str) -> None:
        """A line of news."""

    def stage(self, name: str, total: int) -> None:
        """A new stage begins: "codec", "latents" or "model"."""

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """So much of the stage is done."""


class Silent:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def stage(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """Nothing."""


def train(
    preset: Preset,
    data: str | Path,
    out: str | Path,
    seed: int = 0,
    display: Display | None = None,
    signals: StopSignals | None = None,
) -> Path:
    """Train a model; the same call again continues from the last checkpoint.

    Args:
        preset: the recipe.
        data: folder of videos.
        out: folder of the run, which is then itself a model.
        seed: of everything random.
        display: shows progress.
        signals: that ask training to stop; none if not given.

    Returns:
        `out`.

    Raises:
        MagiError: the data is unusable, or `out` holds a run of another recipe or seed.
        StoppedError: one of the `signals` came; what was done is saved.
    """
    data, out, display = Path(data), Path(out), display or Silent()
    processes, signals = Processes(), signals or StopSignals()
    videos = processes.main_first(lambda: open_videos(preset, data, out / "videos.json"))
    display.say(f"{data}: {videos.summary()}")
    processes.once(lambda: claim_folder(preset, seed, out))
    display.stage("codec", preset.small_vae.steps if preset.codec.codec == "small_vae" else 0)

    def advance(done: int, figures: dict[str, float]) -> None:
        display.advance(done, figures)
        signals.check("training the codec")

    codec = processes.main_first(lambda: prepare_codec(preset, videos, out, seed, advance))
    display.stage("latents", len(videos.videos) if caches_latents(codec) else 0)
    reader, latents = processes.main_first(
        lambda: prepare_reader(preset, videos, codec, out, lambda done, total: display.advance(done))
    )
    trainer = Trainer(preset, videos, codec, reader, latents, out, seed, signals)
    if trainer.clips.left_out:
        display.say(f"{trainer.clips.left_out} videos are shorter than a clip and are left out")
    if trainer.step:
        display.say(f"continuing from step {trainer.step}")
    if preset.train.compile:
        display.say("compiling the transformer's blocks, which takes a minute or two the first time")
        display.say(trainer.compile())
    display.stage("model", preset.train.steps)
    skipped = trainer.guard.skipped
    for figures in trainer.run():
        if figures["skipped"] > skipped:
            skipped = int(figures["skipped"])
            display.say(
                f"step {trainer.step} skipped: loss {figures['loss']:.4g}, gradient norm {figures['gradient_norm']:.4g}"
            )
        display.advance(trainer.step, figures)
    return out


def claim_folder(preset: Preset, seed: int, out: Path) -> None:
    """Record the recipe in the run's folder, or refuse one that differs from what is recorded there."""
    record = out / "run.json"
    if record.exists():
        saved = read_json(record)
        differences = preset_differences(saved.get("preset", {}), preset)
        if saved.get("seed") != seed:
            differences.append(f"seed {saved.get('seed')} → {seed}")
        if differences:
            raise MagiError(f"{out} holds a run of another recipe ({'; '.join(differences)}); use another --out")
    write_json(record, {"preset": asdict(preset), "seed": seed})
