"""From a preset and a folder to what the training loop needs: videos, codec, latents, model."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from magi_video.codecs.base import CODECS, Codec, OnStep
from magi_video.codecs.discrete import DiscreteCodec, measure_code_use
from magi_video.codecs.registry import load_codec
from magi_video.codecs.sizes import describe_use
from magi_video.codecs.statistics import measure_statistics
from magi_video.codecs.training import CHECKPOINTS
from magi_video.data.clips import ClipDataset, ClipSampler, PixelReader
from magi_video.data.folder import DATA_SETS, VideoFolder
from magi_video.errors import MagiError
from magi_video.files.artifact import Artifact
from magi_video.recipe import Preset
from magi_video.video.image import fit_frames, to_model_range

STATISTICS_BATCHES = 64
MOST_VIDEOS = 2_000
"""From which a codec is trained or measured; decoding more costs hours and tells it little."""
FRAME_BYTES = 2**29
"""Of decoded frames, kept in memory."""
STATISTICS_CLIPS = 64
STATISTICS_FROM = 10**9
Say = Callable[[str], None]
Progress = Callable[[int, int], None]


def derive_seed(*parts: int) -> int:
    """One seed from several numbers, well mixed: (run seed, step, …) → an independent stream.

    Raises:
        MagiError: one of them is negative.
    """
    if min(parts) < 0:
        raise MagiError(f"seed {min(parts)}; expected 0 or more")
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def open_videos(preset: Preset, data: Path, index: Path | None = None, sample: int | None = None) -> VideoFolder:
    """The training videos of the preset's data set; `index` and `sample` as in `VideoFolder`."""
    if not data.is_dir():
        raise MagiError(f"{data}: no such folder; expected one with videos")
    return DATA_SETS.find(preset.data.dataset).for_training(data, asdict(preset.data), index=index, sample=sample)


class FrameBatches:
    """Random frames of a data set, for training and measuring codecs: batch i is a pure function of (seed, i).

    Frames are decoded once, evenly strided so that all fit in `FRAME_BYTES`, and kept in memory: picking single frames
    from compressed files would decode through whole videos for every batch. Of a large data set as many videos as
    `MOST_VIDEOS` stand for all, chosen at random.

    Args:
        videos: where the frames come from.
        height, width: their size in pixels.
        batch_size: frames in a batch.
        seed: of the choice.
    """

    def __init__(self, videos: VideoFolder, height: int, width: int, batch_size: int, seed: int) -> None:
        picked = list(range(len(videos.videos)))
        if len(picked) > MOST_VIDEOS:
            picked = sorted(np.random.default_rng([seed, MOST_VIDEOS]).permutation(len(picked))[:MOST_VIDEOS].tolist())
        total = sum(videos.videos[index].num_frames for index in picked)
        if not total:
            raise MagiError(f"{videos.root}: no readable video ({videos.summary()})")
        stride = math.ceil(total * height * width * 3 / FRAME_BYTES)
        self.frames_MHWC = np.concatenate(
            [
                fit_frames(videos.read(index, range(0, videos.videos[index].num_frames, stride)).numpy(), height, width)
                for index in picked
            ]
        )
        self.batch_size = batch_size
        self.seed = seed

    def __call__(self, step: int) -> torch.Tensor:
        """Frames `[B, 3, H, W]` in [−1, 1]."""
        picked = np.random.default_rng([self.seed, step]).integers(len(self.frames_MHWC), size=self.batch_size)
        return to_model_range(self.frames_MHWC[picked])


def finished_codec(out: Path) -> Path | None:
    """The folder of a run's codec; None if it is not there, or not all of it."""
    folder = out / "codec"
    # As long as its training's checkpoints are there, a codec may have been saved in part only.
    return folder if (folder / "config.json").is_file() and not (folder / CHECKPOINTS).is_dir() else None


def prepare_codec(
    preset: Preset, videos: VideoFolder, out: Path, seed: int, on_step: OnStep | None, say: Say | None = None
) -> Codec:
    """The run's codec with statistics measured on its data: loaded from `out/codec`, or made (and trained) there.

    A codec that compresses time is measured on clips as the preset trains on them, at its intervals; others on frames.
    """
    folder = out / "codec"
    if finished_codec(out) is not None:
        return load_codec(folder)
    kind = CODECS.find(preset.codec.codec)
    if kind.trained:
        batches = frame_batches(preset, videos, preset.codec_settings.batch_size, seed)
        trained = kind.train_on(preset, batches, frames_to_measure(batches), folder, on_step=on_step, say=say)
        if say is not None and (use := code_use(trained)):
            say(f"codec: {use}")
        return trained
    codec = kind.pretrained(preset.codec)
    codec.latent_size(preset.data.height, preset.data.width)
    codec.num_latent_frames(preset.data.num_frames)
    codec.to("cuda" if torch.cuda.is_available() else "cpu")
    measured: Iterable[torch.Tensor]
    if codec.temporal_factor > 1:
        measured = clips_to_measure(preset, videos, seed)
    else:
        batches = frame_batches(preset, videos, 16, seed)
        measured = [frames_BCHW[:, None] for frames_BCHW in frames_to_measure(batches)]
    codec.set_statistics(*measure_statistics(codec, measured))
    if isinstance(codec, DiscreteCodec):
        codec.set_code_use(*measure_code_use(codec, measured))
    if say is not None and (use := code_use(codec)):
        say(f"codec: {use}")
    save_codec(codec, folder)
    return codec


def code_use(codec: Codec) -> str:
    """How a discrete codec's codes are used on the data that it was measured on; "" of a continuous one."""
    if codec.codes is None:
        return ""
    return describe_use(codec.codes, codec.config["codes_used"], codec.config["perplexity"])


def save_codec(codec: Codec, folder: Path) -> None:
    """Save a codec completely or not at all.

    Raises:
        MagiError: it cannot be written.
    """
    try:
        Artifact(folder / "config.json", "a codec").publish(codec.save_pretrained)
    except (OSError, SafetensorError) as error:
        raise MagiError(f"{folder}: cannot save the codec ({error})") from None


def frame_batches(preset: Preset, videos: VideoFolder, batch_size: int, seed: int) -> FrameBatches:
    """Frames of the preset's size, for training and measuring codecs."""
    return FrameBatches(videos, preset.data.height, preset.data.width, batch_size, derive_seed(seed, 1))


def frames_to_measure(batches: FrameBatches) -> list[torch.Tensor]:
    """Frames to measure statistics on: of steps that training does not reach."""
    return [batches(STATISTICS_FROM + step) for step in range(STATISTICS_BATCHES)]


def clips_to_measure(preset: Preset, videos: VideoFolder, seed: int) -> Iterator[torch.Tensor]:
    """Clips `[1, T, 3, H, W]` to measure statistics on, drawn as for training."""
    data = preset.data
    reader = PixelReader(videos, data.height, data.width)
    clips = ClipDataset(videos, reader, data.num_frames, data.min_interval, data.max_interval, action_names=())
    requests = ClipSampler(len(clips), derive_seed(seed, 1))
    return (clips[request]["frames"][None] for request in islice(requests, STATISTICS_CLIPS))


def caches_latents(codec: Codec) -> bool:
    """Whether latents are encoded once: not where that saves nothing, nor where they depend on the interval."""
    return codec.temporal_factor == 1 and codec.compresses
