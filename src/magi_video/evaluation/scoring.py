"""Two sets of clips in, one record of figures out: the content of `metrics.json`.

Each process measures its share of the clips one by one; the main one puts them in the order of the clips and computes
every figure from that, so that neither batch size nor process count can change a digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch

from magi_video.distributed import Processes, one_by_one
from magi_video.evaluation.clipset import hash_clip
from magi_video.evaluation.controllability import delta_psnr
from magi_video.evaluation.features import (
    Detectors,
    FeatureStore,
    full_precision,
    prefix_features,
    prefix_lengths,
    video_features,
)
from magi_video.evaluation.figures import Measured, beside, figures, rounded, warn_of_baselines, write_result
from magi_video.evaluation.measures import clip_motion
from magi_video.evaluation.options import ScoreOptions
from magi_video.evaluation.paired import paired_errors, psnr
from magi_video.evaluation.protocols import Protocol, find_protocol
from magi_video.evaluation.realset import ClipSet, ClipSource, Numbers, Sets, open_sets
from magi_video.fast.threads import use_threads
from magi_video.files.cache import cache_folder
from magi_video.files.folders import make_folder

__all__ = ["Detectors", "Progress", "Protocol", "score", "score_sets", "video_features"]


class Progress(Interface):
    """Shows how far a task is."""

    def __call__(self, stage: str, done: int, total: int | None) -> object:
        """So many of the clips of a stage are done; None: it has no such number."""


def silent(stage: str, done: int, total: int | None) -> None:
    """Shows nothing."""


@dataclass
class Measurement:
    """How clips are measured: networks, protocol, where features are kept."""

    detectors: Detectors
    protocol: Protocol
    lengths: list[int]
    device: torch.device
    store: FeatureStore

    def __call__(self, clip_THWC: np.ndarray, truth_THWC: np.ndarray | None = None) -> Measured:
        """Measure one clip, and how far it is from its true continuation where that is given."""
        protocol, digest = self.protocol, hash_clip(clip_THWC)
        scored_THWC = clip_THWC[protocol.first_scored :]
        key = {"clip": digest, "from": protocol.first_scored, "device": self.device.type}
        fields = protocol.record()
        video_LD = self.store.get(
            lambda: prefix_features(scored_THWC, self.lengths, protocol, self.detectors.video, self.device),
            kind="video",
            lengths=self.lengths,
            resize=fields["detector_resize"],
            range=fields["pixel_range"],
            detector=self.detectors.hashes.get("i3d"),
            **key,
        )
        image = self.detectors.image
        frames_TD = None
        if image is not None:
            frames_TD = self.store.get(
                lambda: image(torch.from_numpy(scored_THWC).to(self.device)).float().cpu().numpy(),
                kind="image",
                detector=self.detectors.hashes.get("inception"),
                **key,
            )
        moving_THWC = clip_THWC[protocol.first_moving :]
        errors = {}
        if truth_THWC is not None:
            generated = slice(protocol.given, None)
            errors = paired_errors(truth_THWC[generated], clip_THWC[generated], self.detectors.perceptual, self.device)
        return Measured(digest, video_LD, frames_TD, clip_motion(moving_THWC), errors)


def score(
    real: ClipSource,
    fake: ClipSource,
    protocol: str | Protocol = "small",
    options: ScoreOptions | None = None,
    *,
    paired: bool = False,
    out: str | Path | None = None,
    detectors: Detectors | None = None,
    progress: Progress = silent,
    processes: Processes | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Compare generated clips with real ones.

    Args:
        real: a folder of videos, from which the protocol takes its clips; or finished clips: a folder of `.npy` files
            (uint8, T×H×W×3), one `.npy` file (N×T×H×W×3), or such arrays in memory.
        fake: finished clips, as above; a folder of videos is read from each first frame on.
        protocol: name, or a `Protocol`.
        options: what is compared, and by which figures.
        paired: fake i continues real i: PSNR, SSIM and LPIPS of the generated frames against the true ones. Real
            videos are then taken for finished clips too, and file names must agree.
        out: folder for `metrics.json` and `report.html`; None writes nothing.
        detectors: networks to use instead of the pretrained ones.
        progress: called with (stage, done, total).
        processes: of this run; made from the options' device if None.
        fields: of `ScoreOptions` by name, in place of those of `options`.

    Returns:
        What `metrics.json` holds.

    Raises:
        MagiError: unusable clips, fewer than asked for, unknown protocol, or no I3D weights.
    """
    options = replace(options or ScoreOptions(), **fields)
    protocol = find_protocol(protocol, given=options.context_frames, frames=options.frames)
    processes = processes or Processes(options.device)
    use_threads(options.threads)
    numbers = Numbers.of(protocol, options.num, options.num_real)
    sets = processes.main_first(lambda: open_sets(real, fake, protocol, numbers, paired))
    return score_sets(
        sets,
        protocol,
        processes,
        out=None if out is None else Path(out),
        detectors=detectors or load_detectors(processes, sets, options),
        over_length=options.over_length,
        cache=options.cache,
        progress=progress,
    )


def load_detectors(processes: Processes, sets: Sets, options: ScoreOptions) -> Detectors:
    """The pretrained networks that options and clips ask for; the main process fetches what is not there yet."""
    side = None if sets.truth is None else min(sets.truth[0].shape[1:3])  # LPIPS compares clips with their truth
    return processes.main_first(
        lambda: Detectors.load(
            processes.device, image=options.fid, perceptual=options.lpips and side is not None, side=side
        )
    )


def score_sets(
    sets: Sets,
    protocol: Protocol,
    processes: Processes,
    *,
    detectors: Detectors,
    out: Path | None = None,
    over_length: bool = True,
    cache: bool = True,
    progress: Progress = silent,
    extra: dict[str, Any] | None = None,
    baselines: Mapping[str, Sets] | None = None,
    random: ClipSet | None = None,
) -> dict[str, Any]:
    """`score` for sets that are open already.

    Args (besides those of `score`):
        extra: goes into the result as it is.
        baselines: name → clips that need no model, against the same real clips; their figures stand beside those of
            the generated ones, under "baselines".
        random: the generated clips under random actions, for "controllability" (ΔPSNR).
    """
    processes.once(lambda: None if out is None else make_folder(out))
    scored = protocol.frames - protocol.first_scored
    lengths = prefix_lengths(scored) if over_length else [scored]
    measurement = Measurement(detectors, protocol, lengths, processes.device, FeatureStore(None))
    store = FeatureStore(cache_folder() / "features" if cache else None)
    real = measure_all(sets.real, None, replace(measurement, store=store), processes, "real clips", progress)
    fake = measure_all(sets.fake, sets.truth, measurement, processes, "generated clips", progress)

    rows = {
        name: measure_all(one.fake, one.truth, measurement, processes, f"baseline: {name}", progress)
        for name, one in (baselines or {}).items()
    }

    def finish() -> dict[str, Any]:
        result = figures(sets, real, fake, protocol, lengths, detectors) | (extra or {})
        if random is not None:
            assert sets.truth is not None, "without one there is no error to compare"
            result["controllability"] = rounded(
                delta_psnr(np.stack([one.errors["psnr"] for one in fake]), psnr_of(random, sets.truth, protocol.given))
            )
            result["per_frame"]["delta_psnr"] = result["controllability"].pop("by_frame")
        if baselines:
            result["baselines"] = {
                name: beside(figures(one, real, rows[name], protocol, lengths, detectors))
                for name, one in baselines.items()
            }
            result["warnings"] += warn_of_baselines(result)
        if out is not None:
            write_result(out, result, sets, real, fake)
        return result

    return processes.once(finish)


def psnr_of(clips: ClipSet, truth: ClipSet, given: int) -> np.ndarray:
    """PSNR of each generated frame of every clip, dB, `[N, T]`."""
    return np.stack([psnr(truth[index][given:], clips[index][given:]) for index in range(len(clips))])


def measure_all(
    clips: ClipSet,
    truth: ClipSet | None,
    measurement: Measurement,
    processes: Processes,
    stage: str,
    progress: Progress,
) -> list[Measured]:
    """Every clip measured, in order; the main process gets them, the others an empty list."""

    def one(index: int) -> tuple[int, Measured]:
        with torch.no_grad():  # which each thread must say for itself
            return index, measurement(clips[index], None if truth is None else truth[index])

    def share() -> list[tuple[int, Measured]]:
        done: list[tuple[int, Measured]] = []
        with full_precision():
            for pair in one_by_one(one, processes.mine(len(clips)), processes.device):
                done.append(pair)
                progress(stage, min(len(clips), len(done) * processes.count), len(clips))
        return done

    gathered = [pair for one in processes.to_main(share) for pair in one]
    return [measured for _, measured in sorted(gathered, key=lambda pair: pair[0])]
