"""Latents encoded before training, for any number of runs: what `magi encode` does, and how a run takes them up.

A cache is made for a recipe: what the latents depend on (data set, codec, size, and of a codec that compresses time
the clips). A run of a recipe that differs in any of it is refused.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from magi_video.codecs.base import Codec
from magi_video.codecs.registry import load_codec
from magi_video.data.captions import read_captions
from magi_video.data.folder import DATA_SETS, VideoFolder
from magi_video.data.identity import DataIdentity
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.files.artifact import Artifact, differences
from magi_video.files.folders import ensure_folder
from magi_video.files.json import read_json
from magi_video.latents.cache import CODEC_FOLDER, TABLE_FILE, LatentCache
from magi_video.latents.encoding import SHARD_BYTES, Encoded, encode_latents
from magi_video.latents.grid import ClipGrid
from magi_video.latents.table import CachedVideos, VideoTable
from magi_video.recipe import Preset, codec_groups
from magi_video.training.display import Display, Silent
from magi_video.training.feasibility import find_sizes
from magi_video.training.preparation import finished_codec, open_videos, prepare_codec, save_codec
from magi_video.training.provenance import Provenance
from magi_video.training.stopping import StoppingDisplay, StopSignals

RECIPE_FILE, SCAN_FILE = "recipe.json", "scan.json"


def encode(
    preset: Preset,
    data: str | Path,
    out: str | Path,
    *,
    codec: str | Path | None = None,
    intervals: Sequence[int] | None = None,
    stride: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    workers: int | None = None,
    verify: bool = False,
    seed: int = 0,
    device: str = "auto",
    display: Display | None = None,
    signals: StopSignals | None = None,
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
        shard_bytes, workers, verify: see `encode_latents`.
        seed: of the codec's training and measuring.
        device: "auto", "cpu" or "cuda".
        display: shows progress.
        signals: that ask to stop; none if not given.

    Raises:
        StoppedError: one of the `signals` came; what was done is saved.
        MagiError: the data is unusable, or `out` holds a cache of another recipe or is being written by another call.
    """
    data, out = Path(data), Path(out)
    signals = signals or StopSignals()
    display = StoppingDisplay(display or Silent(), signals)
    processes = Processes(device)
    given = finished_codec(out) if codec is None else Path(codec)
    processes.main_first(lambda: find_sizes(preset, given))
    display.stage("videos")
    videos = processes.main_first(lambda: open_videos(preset, data, out / SCAN_FILE))
    display.say(f"{data}: {videos.summary()}")
    provenance = Provenance(str(out), DataIdentity.of(videos).without_actions(), _known(out))

    def lasting(record: dict[str, Any]) -> dict[str, Any]:
        return without_precision({name: record.get(name) for name in ("recipe", "seed")})

    artifact = Artifact(out / RECIPE_FILE, "latents", lasting)
    inputs = {"recipe": latent_recipe(preset), "seed": seed}
    with signals.held(), artifact.making(inputs, processes, lambda saved: provenance.carried(saved, True)):
        if provenance.news:
            kept = (out / CODEC_FOLDER / "config.json").is_file()
            display.say(provenance.news + (", and with the codec that it has" if kept else ""))
        display.stage("codec", preset.codec_steps if _is_to_be_trained(preset, codec, out) else 0)
        prepared = processes.main_first(lambda: _prepare(preset, codec, videos, out, seed, display))
        grid = _clip_grid(preset, prepared, intervals, stride)
        flips = preset.data.flip > 0
        display.stage("latents", len(videos.videos) * (1 + flips))
        return encode_latents(
            videos,
            prepared.to(processes.device),
            out,
            preset.data.height,
            preset.data.width,
            grid=grid,
            captions=_captions(videos, display),
            shard_bytes=shard_bytes,
            workers=workers,
            processes=processes,
            verify=verify,
            progress=lambda done, total: display.advance(done),
            flips=flips,
        )


def open_cache(preset: Preset, directory: str | Path) -> LatentCache:
    """A finished cache for a run of a recipe.

    Raises:
        MagiError: it is damaged or unfinished, or was made for another codec, size, data set or for other clips.
    """
    cache = LatentCache(directory)
    made = read_json(cache.directory / RECIPE_FILE).get("recipe")
    found = without_precision({"recipe": made})["recipe"] if isinstance(made, dict) else {}
    changes = differences(found, latent_recipe(preset))
    size = {"height": cache.index.height, "width": cache.index.width}
    changes += differences(size, {"height": preset.data.height, "width": preset.data.width})
    if grid := cache.grid:
        clips = {"num_frames": grid.length, "min_interval": grid.intervals[0], "max_interval": grid.intervals[-1]}
        changes += differences(clips, {name: getattr(preset.data, name) for name in clips})
    if changes:
        raise MagiError(f"{directory} holds latents for another recipe ({'; '.join(changes)})")
    if preset.data.flip:
        _ = cache.mirror  # refused now if it is not there
    return cache


def cached_codec(cache: LatentCache, out: Path) -> Codec:
    """The codec of a cache, which becomes that of the run in `out`; `MagiError` if that has another one."""
    codec = _adopt(cache.directory / CODEC_FOLDER, out)
    if codec.fingerprint() != cache.index.codec:
        raise MagiError(f"{cache.directory}: latents of another codec than the one in its folder {CODEC_FOLDER}")
    return codec


def cached_videos(cache: LatentCache, preset: Preset, data: Path | None, out: Path) -> VideoFolder:
    """The data set of a cache: from `data`, which must be the same, or what the cache itself knows of it."""
    if data is None:
        return cache.videos()
    scan = cache.directory / SCAN_FILE
    if scan.is_file() and not (out / "videos.json").exists():  # spares looking through the videos once more
        ensure_folder(out)
        shutil.copyfile(scan, out / "videos.json")
    videos = open_videos(preset, data, out / "videos.json")
    cache.check_data(videos)
    return videos


def _known(out: Path) -> DataIdentity | None:
    """The data set that a cache lists; None if there is none yet, or it is damaged and made again."""
    try:
        return DataIdentity.of(CachedVideos(VideoTable.read(out / TABLE_FILE), out)).without_actions()
    except MagiError:
        return None


def latent_recipe(preset: Preset) -> dict[str, Any]:
    """What of a recipe the latents depend on, but for size and clips, which a cache's index tells."""
    recipe: dict[str, Any] = {"dataset": preset.data.dataset, "codec": asdict(preset.codec)}
    recipe |= {name: getattr(preset.data, name) for name in DATA_SETS.find(preset.data.dataset).settings}
    if preset.codec_settings is not None:
        recipe[preset.codec_group] = asdict(preset.codec_settings)
    return without_precision({"recipe": json.loads(json.dumps(recipe))})["recipe"]


def without_precision(record: dict[str, Any]) -> dict[str, Any]:
    """A cache's record but for the precision of the codec's training: the codec itself is what latents depend on."""
    recipe = record.get("recipe")
    if not isinstance(recipe, dict):
        return record
    groups = {group: dict(recipe[group]) for group in codec_groups() if isinstance(recipe.get(group), dict)}
    for values in groups.values():
        values.pop("precision", None)
    return record | {"recipe": recipe | groups}


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


def _is_to_be_trained(preset: Preset, codec: str | Path | None, out: Path) -> bool:
    return preset.codec_steps > 0 and codec is None and not (out / CODEC_FOLDER / "config.json").exists()


def _prepare(
    preset: Preset, codec: str | Path | None, videos: VideoFolder, out: Path, seed: int, display: Display
) -> Codec:
    """The cache's codec: the one given, or the recipe's own."""
    if codec is not None:
        return _adopt(Path(codec), out)
    return prepare_codec(preset, videos, out, seed, display.advance, display.say)


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


def _adopt(source: Path, out: Path) -> Codec:
    """The codec saved in a folder, copied to `out/codec`, where there may be none but the same."""
    codec, folder = load_codec(source), out / CODEC_FOLDER
    if folder.exists():
        if load_codec(folder).fingerprint() != codec.fingerprint():
            raise MagiError(f"{folder} holds another codec than {source}; use another --out")
        return codec
    save_codec(codec, folder)
    return codec
