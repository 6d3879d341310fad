"""Latents encoded before training (`training/encode.py`), as a run takes them up.

A cache is made for a recipe: what the latents depend on (data set, codec, size, and of a codec that compresses time
the clips). A run of a recipe that differs in any of it is refused.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from magi_video.codecs.base import Codec
from magi_video.codecs.registry import load_codec
from magi_video.data.folder import DATA_SETS, VideoFolder
from magi_video.errors import MagiError
from magi_video.files.artifact import differences
from magi_video.files.folders import ensure_folder
from magi_video.files.json import read_json
from magi_video.latents.cache import CODEC_FOLDER, LatentCache
from magi_video.recipe import Preset, codec_groups
from magi_video.training.preparation import open_videos, save_codec

RECIPE_FILE, SCAN_FILE = "recipe.json", "scan.json"


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
    codec = adopt_codec(cache.directory / CODEC_FOLDER, out)
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


def adopt_codec(source: Path, out: Path) -> Codec:
    """The codec saved in a folder, copied to `out/codec`, where there may be none but the same."""
    codec, folder = load_codec(source), out / CODEC_FOLDER
    if folder.exists():
        if load_codec(folder).fingerprint() != codec.fingerprint():
            raise MagiError(f"{folder} holds another codec than {source}; use another --out")
        return codec
    save_codec(codec, folder)
    return codec
