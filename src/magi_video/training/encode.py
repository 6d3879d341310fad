"""Latents encoded before training, for any number of runs: what `magi encode` does."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from magi_video.codecs.base import Codec
from magi_video.data.captions import read_captions
from magi_video.data.folder import VideoFolder
from magi_video.data.identity import DataIdentity
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.fast.kernel_choice import (
    FAST_FLOAT32,
    choose_kernels,
    known_kernels,
    missing_kernels,
    settle_kernels,
)
from magi_video.files.artifact import Artifact
from magi_video.latents.cache import CODEC_FOLDER, TABLE_FILE
from magi_video.latents.encoding import Encoded
from magi_video.latents.grid import ClipGrid
from magi_video.latents.table import CachedVideos, VideoTable
from magi_video.recipe import Preset
from magi_video.training.caches import RECIPE_FILE, SCAN_FILE, adopt_codec, latent_recipe, without_precision
from magi_video.training.choices import CHOSEN
from magi_video.training.display import Display, Silent
from magi_video.training.feasibility import find_sizes
from magi_video.training.preparation import finished_codec, open_videos
from magi_video.training.provenance import Provenance
from magi_video.training.stages import Stages
from magi_video.training.stopping import StopSignals


def encode(
    preset: Preset,
    data: str | Path,
    out: str | Path,
    *,
    codec: str | Path | None = None,
    intervals: Sequence[int] | None = None,
    stride: int | None = None,
    seed: int = 0,
    device: str = "auto",
    display: Display | None = None,
    signals: StopSignals | None = None,
    **writing: Any,
) -> Encoded:
    """Encode a data set into a latent cache; the same call again goes on, or checks what is there.

    Under `accelerate launch` or `torchrun` every process calls it, and they share the work.

    Args:
        preset: the recipe; its data, codec and small_vae count.
        data: folder of videos.
        out: folder of the cache.
        codec: folder of the codec; the recipe's own, trained or measured on the data, if not given.
        intervals: to encode clips for, where the codec compresses time; the recipe's least to largest if not given.
        stride: see `ClipGrid`; the length of a clip if not given.
        seed: of the codec's training and measuring.
        device: "auto", "cpu" or "cuda".
        display: shows progress.
        signals: that ask to stop; none if not given.
        writing: fields of `latents.encoding.Writing`.

    Raises:
        StoppedError: one of the `signals` came; what was done is saved.
        MagiError: the data is unusable, or `out` holds a cache of another recipe or is being written by another call.
    """
    data, out, display = Path(data), Path(out), display or Silent()
    stages = Stages(out, seed, Processes(device), display, signals or StopSignals())
    given = finished_codec(out) if codec is None else Path(codec)

    def find() -> VideoFolder:
        find_sizes(preset, given)
        return open_videos(preset, data, out / SCAN_FILE)

    videos = stages.find_videos(find, data)
    provenance = Provenance(str(out), DataIdentity.of(videos).without_actions(), _known(out))

    def lasting(record: dict[str, Any]) -> dict[str, Any]:
        return without_precision({name: record.get(name) for name in ("recipe", "seed")})

    artifact = Artifact(out / RECIPE_FILE, "latents", lasting)
    kernels = _settle_kernels(artifact, stages)
    inputs = {"recipe": latent_recipe(preset), "seed": seed} | ({CHOSEN: kernels} if kernels else {})
    with artifact.making(inputs, stages.processes, lambda saved: provenance.carried(saved, True)):
        if provenance.news:
            kept = (out / CODEC_FOLDER / "config.json").is_file()
            display.say(provenance.news + (", and with the codec that it has" if kept else ""))
        made = stages.codec(preset, videos, None if codec is None else partial(adopt_codec, Path(codec), out))
        grid = _clip_grid(preset, made, intervals, stride)
        captions = _captions(videos, display)
        return stages.encode(preset, videos, made, out, grid=grid, captions=captions, **writing)


def _settle_kernels(artifact: Artifact, stages: Stages) -> dict[str, bool]:
    """Settle the kernels that compute the latents, those with which the cache began; what to record of them."""
    saved = stages.processes.once(artifact.read)
    kept = {FAST_FLOAT32: False} if saved is not None and CHOSEN not in saved else (saved or {}).get(CHOSEN)
    if stages.processes.device.type != "cpu":
        return known_kernels(kept)
    chosen = stages.processes.once(lambda: choose_kernels([FAST_FLOAT32], kept))
    if line := missing_kernels(chosen, settle_kernels([FAST_FLOAT32], stages.processes, chosen)):
        stages.display.say(line)
    return chosen


def _known(out: Path) -> DataIdentity | None:
    """The data set that a cache lists; None if there is none yet, or it is damaged and made again."""
    try:
        return DataIdentity.of(CachedVideos(VideoTable.read(out / TABLE_FILE), out)).without_actions()
    except MagiError:
        return None


def _captions(videos: VideoFolder, display: Display) -> list[str | None]:
    """Of the videos; none of them where they are unusable, since most trainings need none."""
    try:
        captions = read_captions(videos)
        if any(captions.texts) or captions.unmatched:
            display.say(captions.summary())
        return captions.texts
    except MagiError as error:
        display.say(f"encoding without captions: {error}")
        return []


def _clip_grid(preset: Preset, codec: Codec, intervals: Sequence[int] | None, stride: int | None) -> ClipGrid | None:
    """Which clips to encode; None of a codec that encodes every frame by itself."""
    if codec.temporal_factor == 1:
        if intervals or stride is not None:
            raise MagiError(
                "the codec encodes every frame by itself, so any clip can be read; expected no --intervals, no --stride"
            )
        return None
    wanted = intervals or range(preset.data.min_interval, preset.data.max_interval + 1)
    return ClipGrid(preset.data.num_frames, tuple(wanted), preset.data.num_frames if stride is None else stride)
