"""The stages of a run: videos → codec → latents → captions → model. `magi encode` takes the first three. Captions are
checked right after the videos, before anything takes time.

Each takes what the stages before it made, and finds its own artifact in the run's folder, whole or begun, or makes it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magi_video.codecs.base import Codec
from magi_video.codecs.words import WORDS
from magi_video.data.clips import FrameReader, PixelReader, check_lengths
from magi_video.data.folder import VideoFolder
from magi_video.distributed import Processes
from magi_video.latents.cache import CODEC_FOLDER, LatentCache
from magi_video.latents.encoding import Encoded, encode_latents
from magi_video.recipe import Preset
from magi_video.training.build import TrainingData
from magi_video.training.caches import cached_videos
from magi_video.training.captions import CaptionTable, Texts, check_captions, encode_captions
from magi_video.training.display import Display
from magi_video.training.feasibility import check_recipe
from magi_video.training.preparation import caches_latents, finished_codec, open_videos, prepare_codec
from magi_video.training.stopping import StoppingDisplay, StopSignals
from magi_video.training.trainer import Trainer

MOST_NAMED = 8
"""Actions in a line."""


@dataclass(frozen=True)
class Stages:
    """What the stages of a run share. All processes call each of them together.

    Attributes:
        out: the run's folder.
        seed: of everything random.
        processes: of this run.
        display: shows progress.
        signals: that ask to stop.
    """

    out: Path
    seed: int
    processes: Processes
    display: Display
    signals: StopSignals

    @property
    def watched(self) -> StoppingDisplay:
        """The display, for stages that keep what they have done: it leaves one when a signal comes."""
        return StoppingDisplay(self.display, self.signals)

    def find_videos(self, find: Callable[[], VideoFolder], where: Path | None) -> VideoFolder:
        """The data set that `find` opens, first in the main process; it is said what was found."""
        self.display.stage("videos")
        videos = self.processes.main_first(find)
        self.display.say(f"{where}: {videos.summary()}")
        return videos

    def videos(self, preset: Preset, data: Path | None, cache: LatentCache | None) -> VideoFolder:
        """The data set: of a folder (`videos.json` remembers what was found in it), or what a latent cache knows of it.

        Args:
            preset: the recipe, which is checked against the machine.
            data: folder of videos; may be None with a cache.
            cache: of latents, if training reads one.

        Raises:
            MagiError: no such data, none long enough, or the recipe cannot be trained.
        """
        codec_folder = finished_codec(self.out) if cache is None else cache.directory / CODEC_FOLDER

        def find() -> VideoFolder:
            check_recipe(preset, self.processes, codec_folder)
            if cache is not None:
                return cached_videos(cache, preset, data, self.out)
            assert data is not None
            return open_videos(preset, data, self.out / "videos.json")

        videos = self.find_videos(find, cache.directory if data is None and cache is not None else data)
        # Now, since the training of a codec comes before the clips.
        check_lengths(videos, preset.data.num_frames, preset.data.min_interval)
        return videos

    def codec(self, preset: Preset, videos: VideoFolder, given: Callable[[], Codec] | None = None) -> Codec:
        """The codec in `codec/`: what `given` puts there, or the recipe's own, measured on the videos."""
        display, new = self.watched, given is None and finished_codec(self.out) is None
        display.stage("codec", preset.codec_steps if new else 0)

        def prepare() -> Codec:
            return prepare_codec(preset, videos, self.out, self.seed, display.advance, display.say)

        with self.signals.held():
            return self.processes.main_first(given or prepare)

    def latents(
        self, preset: Preset, videos: VideoFolder, codec: Codec, cache: LatentCache | None = None
    ) -> tuple[FrameReader, bool]:
        """What clips are read through: the cache, or the latents in `latents/` (True), or pixels (False)."""
        if cache is not None:
            return cache, True
        if not caches_latents(codec):
            return PixelReader(videos, preset.data.height, preset.data.width), False
        return self.encode(preset, videos, codec, self.out / "latents").cache, True

    def encode(self, preset: Preset, videos: VideoFolder, codec: Codec, directory: Path, **options: Any) -> Encoded:
        """The latents of the videos in a cache, and of their mirror images if the recipe flips clips.

        Args:
            preset, videos, codec: the recipe, its videos and its codec.
            directory: of the cache.
            options: of `encode_latents`.
        """
        display, flips = self.watched, preset.data.flip > 0
        display.stage("latents", len(videos.videos) * (1 + flips))
        with self.signals.held():
            return encode_latents(
                videos,
                codec.to(self.processes.device),
                directory,
                preset.data.height,
                preset.data.width,
                processes=self.processes,
                progress=lambda done, total: display.advance(done),
                flips=flips,
                **options,
            )

    def check_captions(self, preset: Preset, videos: VideoFolder, begun: bool) -> Texts | None:
        """The captions; None where the recipe wants no text. For the arguments and errors see `check_captions`."""
        if not preset.model.text:
            return None
        name, tokens = preset.model.text_encoder, preset.model.text_tokens
        found = self.processes.main_first(lambda: check_captions(videos, name, self.out, begun))
        self.display.say(found.summary)
        if name == WORDS and tokens > 1 and (line := found.longer_than(tokens)):
            self.display.say(line)
        return found

    def captions(self, preset: Preset, found: Texts | None) -> CaptionTable | None:
        """The captions' vectors; None where the recipe wants no text."""
        if found is None:
            return None
        name, tokens = preset.model.text_encoder, preset.model.text_tokens
        return self.processes.main_first(lambda: encode_captions(found, name, tokens, self.out))

    def model(
        self, preset: Preset, data: TrainingData, origin: dict[str, Any], kernels: Mapping[str, bool] | None = None
    ) -> None:
        """The trained model, which the run's folder then is; arguments as of `Trainer`."""
        with self.signals.held():
            trainer = Trainer(preset, data, self.out, self.seed, self.signals, origin, kernels)
            follow(trainer, self.display)


def follow(trainer: Trainer, display: Display) -> None:
    """Train, and show how it goes."""
    if trainer.clips.left_out:
        display.say(f"{trainer.clips.left_out} videos are shorter than a clip and are left out")
    rates = trainer.clips.frame_rates
    if rates and max(rates) > 1.05 * min(rates):
        display.say(
            f"the videos have {min(rates):g} to {max(rates):g} frames/s; the model takes {rates[0]:g}, the commonest"
        )
    if trainer.untaken:
        display.say(
            f"actions that the data names but never shows, which the model cannot learn: {first_of(trainer.untaken)}"
        )
    if trainer.step:
        display.say(f"continuing from step {trainer.step}")
    if trainer.config.compile:
        display.say("compiling the transformer's blocks, which takes a minute or two the first time")
        display.say(trainer.compile())
    display.stage("model", trainer.config.steps)
    skipped = trainer.guard.state()["skipped"]
    for figures in trainer.run():
        if figures["skipped"] > skipped:
            skipped = int(figures["skipped"])
            loss, norm = figures["loss"], figures["gradient_norm"]
            display.say(f"step {figures['step']:.0f} skipped: loss {loss:.4g}, gradient norm {norm:.4g}")
        display.advance(int(figures["step"]), figures)


def first_of(names: list[str]) -> str:
    """Names in a line, no more than a reader will read."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
