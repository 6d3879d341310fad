"""From a preset, a folder of videos and an output folder to a trained model: what `magi train` does."""

import json
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from magi_video.data.identity import DataIdentity
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.fast.kernel_choice import missing_kernels, settle_kernels, training_kernels
from magi_video.files.artifact import Artifact, differences
from magi_video.files.atomic import write_bytes
from magi_video.files.checkpoints import latest_checkpoint
from magi_video.files.json import read_json
from magi_video.pipeline.description import ENCODER_FOLDER
from magi_video.recipe import Preset, codec_groups, former
from magi_video.settings import from_json
from magi_video.training.build import TrainingData
from magi_video.training.caches import cached_codec, open_cache
from magi_video.training.choices import CHOSEN, settle_choices
from magi_video.training.display import Display, Silent
from magi_video.training.provenance import DATA, EARLIER, LIST_FILE, Provenance
from magi_video.training.stages import Stages
from magi_video.training.stopping import StopSignals
from magi_video.training.tracking import find_tracker

FREE = {"steps", "workers", "log_every", "sample_every", "checkpoint_every", "keep_checkpoints", "stop_after_skips"} | {
    "gradient_checkpointing", "compile", "accumulate", "sharding", "tracker"
}  # fmt: skip
"""Settings of training that a run may change when it goes on."""

KEPT_IN_SIGHT = ("sink_frames", "strided_frames", "past_stride")
"""Settings of sampling that say what training shows, where it shows a sparse past."""


def train(
    preset: Preset,
    data: str | Path | None,
    out: str | Path,
    seed: int = 0,
    display: Display | None = None,
    latents: str | Path | None = None,
    signals: StopSignals | None = None,
    allow_other_data: bool = False,
) -> Path:
    """Train a model; the same call again continues from the last checkpoint.

    Args:
        preset: the recipe.
        data: folder of videos; not needed with `latents`, but then there are no sample sheets.
        out: folder of the run, which is then itself a model.
        seed: of everything random.
        display: shows progress.
        latents: folder of a latent cache (`training.encode`); encoded in `out` or in the loop if not given.
        signals: that ask training to stop; none if not given.
        allow_other_data: go on with other data than the run has seen so far, which is then recorded.

    Returns:
        `out`.

    Raises:
        MagiError: the data is unusable, `latents` is a cache of another recipe or data set, or `out` holds a run of
            another recipe, seed or data set or is being written by one, or the tracker is not installed.
        StoppedError: one of the `signals` came; what was done is saved.
    """
    data, out, display = data if data is None else Path(data), Path(out), display or Silent()
    processes, signals = Processes(), signals or StopSignals()
    find_tracker(preset.train.tracker)  # a missing one is reported before an hour of preparation, not after
    if data is None and latents is None:
        raise MagiError("nothing to train on: give a folder of videos (--data), a latent cache (--latents), or both")
    if data is None:
        preset = replace(preset, train=replace(preset.train, sample_every=0))  # the sheets show videos
    preset, kept = processes.once(lambda: keep_former(preset, out, display))
    asked = preset
    preset, chosen = processes.once(
        lambda: settle_choices(asked, out, processes.device, begun="checkpoints" in made_in(out))
    )
    display.say(str(chosen))
    if processes.device.type == "cpu":  # in all processes, before any of them computes latents
        used = settle_kernels(training_kernels(chosen.precision), processes, chosen.kernels)
        if line := missing_kernels(chosen.kernels, used):
            display.say(line)
    record = {"preset": asdict(preset), "seed": seed, CHOSEN: chosen.record()} | ({KEPT: kept} if kept else {})
    artifact = Artifact(out / "run.json", "a run", lambda saved: lasting(saved, made_in(out)))
    processes.once(lambda: artifact.check(record))  # another run is refused as such, not for what it holds
    stages = Stages(out, seed, processes, display, signals)
    cache = None if latents is None else open_cache(asked, latents)
    begun = made_in(out)
    index = out / "videos.json" if begun - {ENCODER_FOLDER} else None  # else nothing has come of the data yet
    with ExitStack() as at_work:
        with unchanged_if_refused(index if processes.main else None):
            videos = stages.videos(asked, data, cache)
            if cache is not None and not cache.table.contents:
                display.say(
                    f"{latents}: made before the contents of videos were recorded; taken for latents of these videos"
                )
            texts = stages.check_captions(preset, videos, "checkpoints" in begun)
            provenance = Provenance(f"the run in {out}", DataIdentity.of(videos), DataIdentity.read(out / LIST_FILE))

            def carried(saved: dict[str, Any] | None) -> dict[str, Any]:
                used = bool(made_in(out) - {ENCODER_FOLDER})
                recorded = saved if used else None
                return provenance.carried(recorded, allow_other_data, lambda: {"until_step": newest_step(out)})

            at_work.enter_context(artifact.making(record, processes, carried))
        processes.once(lambda: provenance.write_list(out))
        if provenance.news:
            display.say(provenance.news)
        codec = stages.codec(asked, videos, None if cache is None else partial(cached_codec, cache, out))
        reader, encoded = stages.latents(asked, videos, codec, cache)
        made = TrainingData(videos, codec, reader, encoded, stages.captions(preset, texts))
        origin = processes.once(lambda: recorded_data(out))
        stages.model(preset, made, origin, chosen.kernels)
    return out


@contextmanager
def unchanged_if_refused(index: Path | None) -> Iterator[None]:
    """While entered, a `MagiError` leaves the index of a run's videos as it was; None has no index to keep."""
    before = index.read_bytes() if index is not None and index.is_file() else None
    try:
        yield
    except MagiError:
        if index is not None and before is not None:
            write_bytes(index, before)
        raise


def recorded_data(out: Path) -> dict[str, Any]:
    """What a run's record says of its data: its SHA-256, and the data before it, if there was other."""
    record = read_json(out / "run.json")
    found = {"sha256": record[DATA]["sha256"]}
    return found | ({EARLIER: record[EARLIER]} if EARLIER in record else {})


def newest_step(out: Path) -> int:
    """Of the checkpoints of a run; 0 if it has none."""
    checkpoint = latest_checkpoint(out / "checkpoints")
    return 0 if checkpoint is None else checkpoint.step


MADE = ("codec", ENCODER_FOLDER, "checkpoints")
"""Folders of a run that hold what its recipe made."""


def made_in(out: Path) -> set[str]:
    """Which of them there are already."""
    return {name for name in MADE if any((out / name).glob("*"))}


KEPT = "former"
"""In a run's record: settings that did not exist when the run began."""


def keep_former(preset: Preset, out: Path, display: Display) -> tuple[Preset, dict[str, Any]]:
    """The recipe with which a run of an earlier version goes on: settings that there were not yet stay as it had them.

    Returns:
        The recipe, and group → field → value of the settings that the run keeps; none if it has made nothing yet.
    """
    if not (out / "run.json").exists() or not made_in(out):
        return preset, {}
    record, now = read_json(out / "run.json"), json.loads(json.dumps(asdict(preset)))
    recorded, saved = record.get("preset"), record.get(KEPT, {})
    if not isinstance(recorded, dict) or not isinstance(saved, dict):
        return preset, {}  # `lasting` refuses it
    missing = former(recorded)
    missing |= {"train": {name: value for name, value in missing.get("train", {}).items() if name not in FREE}}
    missing["sample"] = {}  # may change, as all that is in FREE
    saved = {group: values for group, values in saved.items() if isinstance(values, dict)}
    groups = [group for group in sorted({*saved, *missing}) if isinstance(now.get(group), dict)]
    kept = {group: missing.get(group, {}) | saved.get(group, {}) for group in groups}
    kept = {group: values for group, values in kept.items() if values}
    asked = {group: {name: now[group].get(name) for name in values} for group, values in kept.items()}
    if changes := differences(asked, kept):
        display.say(f"the run began before these were settings, and goes on as it began: {'; '.join(changes)}")
    merged = now | {group: now[group] | values for group, values in kept.items()}
    return from_json(Preset, merged, str(out / "run.json")), kept


def lasting(record: dict[str, Any], made: Collection[str] = MADE) -> dict[str, Any]:
    """Of what a run's record holds, all that the run keeps to: not how long, how often, or how it computes.

    And nothing of which nothing is made yet, so that a recipe that failed at its start can be corrected.
    """
    recorded = record.get("preset")
    if isinstance(recorded, dict):
        recorded = recorded | {group: recorded[group] | values for group, values in former(recorded).items()}
    preset = asdict(from_json(Preset, recorded, "run.json: preset"))
    for group in codec_groups():
        preset[group].pop("precision", None)  # the codec's own record keeps to it
    if "checkpoints" in made:
        kept = {name: value for name, value in preset["train"].items() if name not in FREE}
        sample = {name: preset["sample"][name] for name in KEPT_IN_SIGHT} if preset["data"]["sparse_past"] else None
        return preset | {"train": kept, "sample": sample, "seed": record.get("seed")}
    kept = {}
    if "codec" in made:
        kept |= {name: preset[name] for name in ("data", "codec", *codec_groups())} | {"seed": record.get("seed")}
    if ENCODER_FOLDER in made:
        kept["text_encoder"] = preset["model"]["text_encoder"]
    return kept
