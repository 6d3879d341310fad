"""From what was measured of each clip to the figures of a result, their warnings, and the files that hold them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from magi_video.evaluation.features import Detectors
from magi_video.evaluation.frechet import Moments, bootstrap_interval, frechet_distance
from magi_video.evaluation.measures import Motion, compare_motion
from magi_video.evaluation.paired import SSIM_RULE
from magi_video.evaluation.protocols import Protocol
from magi_video.evaluation.realset import ClipSet, Sets
from magi_video.files.atomic import write_json

RESAMPLES = 100
"""Of the bootstrap that the interval of the FVD comes from."""
DIGITS = 6
"""Significant digits of every figure."""
HASH_DIGITS = 32
"""Hexadecimal digits that are kept of a clip's SHA-256."""
LIBRARIES = ("magi-video", "torch", "numpy", "scipy", "torchmetrics", "pillow", "av")
"""Whose versions stand in a result."""
SAME_RATE = 0.01
"""Frame rates that differ by no more than this share are the same, as 29.97 and 30 are."""


@dataclass
class Measured:
    """What was measured of one clip.

    Attributes:
        hash: of its pixels.
        video_LD: video features of its prefixes, the whole scored clip last.
        frames_TD: image features of its scored frames, if asked for.
        motion: of its generated frames.
        errors: against its true continuation, by name, one value a generated frame.
    """

    hash: str
    video_LD: np.ndarray
    frames_TD: np.ndarray | None
    motion: Motion
    errors: dict[str, np.ndarray]


def figures(
    sets: Sets,
    real: Sequence[Measured],
    fake: Sequence[Measured],
    protocol: Protocol,
    lengths: Sequence[int],
    detectors: Detectors,
) -> dict[str, Any]:
    """The content of `metrics.json`; a figure that was not measured is absent, and FID None."""
    rule: dict[str, Any] = {"ddof": protocol.ddof, "root": protocol.root}
    real_NLD, fake_NLD = (np.stack([one.video_LD for one in side]) for side in (real, fake))
    distances = [
        frechet_distance(Moments.from_features(real_NLD[:, i]), Moments.from_features(fake_NLD[:, i]), **rule)
        for i in range(len(lengths))
    ]
    interval = bootstrap_interval(real_NLD[:, -1], fake_NLD[:, -1], resamples=RESAMPLES, seed=protocol.seed, **rule)
    result: dict[str, Any] = {
        "fvd": distances[-1].value,
        "fvd_interval": list(interval),
        "fid": None,
        "per_frame": {"index": list(range(protocol.given, protocol.frames))},
    }
    if detectors.image is not None:
        result["fid"], result["per_frame"]["fid"] = frame_distances(real, fake, protocol)
    if sets.truth is not None:
        errors = {name: np.stack([one.errors[name] for one in fake]) for name in fake[0].errors}
        result["paired"] = {name: values_NT.mean() for name, values_NT in errors.items()}
        result["per_frame"] |= {name: values_NT.mean(axis=0) for name, values_NT in errors.items()}
        result["ssim_rule"] = SSIM_RULE
    result["motion"] = compare_motion([one.motion for one in real], [one.motion for one in fake])
    for name, side in (("motion", fake), ("motion_real", real)):
        result["per_frame"][name] = motion_by_frame(side, protocol)
    if len(lengths) > 1:
        result["fvd_over_length"] = {"frames": list(lengths), "fvd": [distance.value for distance in distances]}
    notes = warnings(len(real), len(fake), protocol, distances[-1].dimension) + warn_of_rates(sets)
    return rounded(result) | {
        "num_real": len(real),
        "num_fake": len(fake),
        "real_clips": "chosen by the protocol" if sets.chosen else "finished, as they came",
        "left_out_real": sets.real.left_out,
        "left_out_fake": sets.fake.left_out,
        "given_frames_scored": protocol.given if protocol.score_given else 0,
        "reduced": is_reduced(len(real), len(fake), protocol),
        "warnings": [*sets.warnings, *notes, *detectors.missing],
        "protocol": protocol.record(detectors.hashes.get("i3d"), paired=sets.truth is not None),
        "real_hash": joint_hash(real),
        "fake_hash": joint_hash(fake),
        "real_data": sets.data,
        "clips": {"real": described(sets.real, real), "fake": described(sets.fake, fake)},
        "detectors": detectors.hashes,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    }


def frame_distances(
    real: Sequence[Measured], fake: Sequence[Measured], protocol: Protocol
) -> tuple[float, list[float]]:
    """FID of all scored frames together, and of the generated frames of each index by themselves."""
    rule: dict[str, Any] = {"ddof": protocol.ddof, "root": "eigh"}

    def moments(side: Sequence[Measured]) -> list[Moments]:
        count = protocol.frames - protocol.first_scored
        return [Moments.from_features(np.stack([one.frames_TD[t] for one in side])) for t in range(count)]  # type: ignore[index]

    by_frame = list(zip(moments(real), moments(fake), strict=True))
    all_real, all_fake = by_frame[0]
    for one_real, one_fake in by_frame[1:]:
        all_real, all_fake = all_real.merge(one_real), all_fake.merge(one_fake)
    generated = by_frame[protocol.given - protocol.first_scored :]
    each = [frechet_distance(one_real, one_fake, **rule).value for one_real, one_fake in generated]
    return frechet_distance(all_real, all_fake, **rule).value, each


def motion_by_frame(side: Sequence[Measured], protocol: Protocol) -> list[float]:
    """Mean speed into each generated frame (8-bit levels); 0 for frame 0, which nothing moves into."""
    speed_T = np.mean([one.motion.speed_T for one in side], axis=0)
    into = {protocol.first_moving + 1 + i: float(value) for i, value in enumerate(speed_T)}
    return [into.get(index, 0.0) for index in range(protocol.given, protocol.frames)]


def is_reduced(num_real: int, num_fake: int, protocol: Protocol) -> bool:
    """Whether fewer clips were scored than the protocol asks for."""
    return num_real < (protocol.num_real or 0) or num_fake < (protocol.num_fake or 0)


def warnings(num_real: int, num_fake: int, protocol: Protocol, dimension: int) -> list[str]:
    """What a reader must know about the numbers of clips."""
    notes = []
    for side, count, asked in (("real", num_real, protocol.num_real), ("generated", num_fake, protocol.num_fake)):
        if asked is not None and count != asked:
            notes.append(f"{count} {side} clips, the protocol asks for {asked}: not comparable with its figures")
    fewest = min(num_real, num_fake)
    if fewest <= dimension:
        notes.append(
            f"{fewest} clips for {dimension} features: the covariance lacks rank; compare with equal numbers only"
        )
    if fewest < 2048:
        notes.append(f"FVD is biased upwards by about 1/n: {num_real} real and {num_fake} generated clips are few")
    return notes


def described(clips: ClipSet, measured: Sequence[Measured]) -> dict[str, Any]:
    """Which clips a side is made of: names, digests of their pixels, and the rates (frames/s, least and largest; None
    where nobody says) and sizes (pixels) that they had."""
    rates = rate_range(clips)
    return {
        "frame_rate": None if rates is None else [float(f"{rate:.{DIGITS}g}") for rate in rates],
        "sizes": [list(size) for size in sorted({origin.size for origin in clips.origins})],
        "names": clips.names,
        "sha256": [one.hash[:HASH_DIGITS] for one in measured],
    }


def rate_range(clips: ClipSet) -> tuple[float, float] | None:
    """Least and largest frame rate of the clips, frames/s; None where one is not known."""
    rates = [origin.frame_rate for origin in clips.origins]
    known = [rate for rate in rates if rate is not None]
    return (min(known), max(known)) if known and len(known) == len(rates) else None


def warn_of_rates(sets: Sets) -> list[str]:
    """That both sides do not show the same frames/s, where that is known."""
    real, fake = rate_range(sets.real), rate_range(sets.fake)
    if real is None or fake is None or max(real[1], fake[1]) <= (1 + SAME_RATE) * min(real[0], fake[0]):
        return []
    shown = [f"{low:.4g}" + (f" to {high:.4g}" if high > low else "") for low, high in (real, fake)]
    return [f"real clips show {shown[0]} frames/s, generated ones {shown[1]}: what moves alike moves at another speed"]


BESIDE = ("fvd", "fvd_interval", "fid", "paired", "motion", "num_fake")
"""What is kept of the figures of a baseline."""


def beside(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of a baseline that stand beside those of a model."""
    kept = {name: result[name] for name in BESIDE if result.get(name) is not None}
    return kept | {"fid_by_frame": result["per_frame"]["fid"]} if "fid" in result["per_frame"] else kept


def warn_of_baselines(result: dict[str, Any]) -> list[str]:
    """What the rows without a model say of the score and of the model."""
    rows, notes = result["baselines"], []
    real, shuffled = rows.get("real"), rows.get("shuffled")
    if real is None and shuffled is not None:
        notes.append("no floor: the videos give no second set of clips as large as the first")
    elif real is not None and shuffled is not None and real["fvd_interval"][1] >= shuffled["fvd_interval"][0]:
        notes.append(
            "FVD does not separate real clips from shuffled ones here: it cannot judge motion with these clips"
        )
    for name, what in (("copy_last", "copying the last given frame"), ("still", "a still first frame")):
        if name in rows and result["fvd"] >= rows[name]["fvd"]:
            notes.append(f"the model (FVD {result['fvd']:g}) does not beat {what} ({rows[name]['fvd']:g})")
            break
    return notes


def joint_hash(side: Sequence[Measured]) -> str:
    """SHA-256 of a set: of its clips' hashes in order."""
    return hashlib.sha256("".join(one.hash for one in side).encode()).hexdigest()


def rounded(value: Any) -> Any:
    """Figures to so many significant digits, arrays as lists, through dictionaries and lists."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [rounded(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.{DIGITS}g}")
    return value


def write_result(
    out: Path, result: dict[str, Any], sets: Sets, real: Sequence[Measured], fake: Sequence[Measured]
) -> None:
    """`report.html` with a few clips to look at, then `metrics.json`."""
    from magi_video.evaluation.report import Strip, write_report

    by, ranked = ranking(real, fake)
    strips = []
    for title, place in (("best", 0), ("median", len(ranked) // 2), ("worst", len(ranked) - 1)):
        index = ranked[place]
        truth = None if sets.truth is None else sets.truth[index]
        strips.append(Strip(f"{title} by {by}: clip {sets.fake.names[index]}", truth, sets.fake[index]))
    write_report(out, result, strips)
    write_json(out / "metrics.json", result)


def ranking(real: Sequence[Measured], fake: Sequence[Measured]) -> tuple[str, list[int]]:
    """The generated clips from best to worst, and by what: LPIPS or PSNR against the true continuation, else how far
    their features are from the real set's mean."""
    if "lpips" in fake[0].errors:
        by, badness = "LPIPS", [one.errors["lpips"].mean() for one in fake]
    elif "psnr" in fake[0].errors:
        by, badness = "PSNR", [-one.errors["psnr"].mean() for one in fake]
    else:
        centre_D = np.mean([one.video_LD[-1] for one in real], axis=0)
        by, badness = (
            "distance of features to the real mean",
            [float(np.linalg.norm(one.video_LD[-1] - centre_D)) for one in fake],
        )
    return by, [int(index) for index in np.argsort(badness, kind="stable")]
