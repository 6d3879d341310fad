"""Evaluation protocols by name: everything that a Fréchet distance hangs on, said in one record.

Each protocol follows a paper or a public evaluation script. What its source leaves open is in `notes`, with what is
done here. Scores under different protocols cannot be compared; FVD between two repositories usually differs because
one of these fields does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from magi_video.errors import MagiError
from magi_video.evaluation.resizing import (
    CROP_SQUARE,
    Step,
    bilinear,
    bilinear_short,
    crop,
    lanczos,
    lanczos_short,
    tf1_bilinear,
)

MIN_FRAMES = 10
"""Shortest clip that I3D's pooling takes."""

SHORT_CLIPS = "left out and counted"
"""What becomes of a video that is shorter than a clip: it is never padded."""


@dataclass(frozen=True)
class Protocol:
    """How a set of generated videos is compared with a set of real ones.

    Attributes:
        name: of the protocol.
        source: paper or code it follows.
        notes: what the source leaves open or does otherwise, and what is done here.
        split: videos of the data set: "train", "test" or "all" of its official lists; "folder" for whatever is there.
        num_real, num_fake: clips on each side; None for as many as there are, up to `most`.
        most: bound where the number is None.
        frames: of a clip.
        interval: frames of the real video from one frame of a clip to the next, exactly.
        temporal: where in its video a real clip begins.
        order: which videos are taken: the first by sorted path, a seeded choice, or as many of each class.
        clips_per_video: real clips from one video at most; 0 for any number (more rounds over the videos as needed).
        side: pixels of the square clips before the detector's own resize; None for the generated clips' own size, to
            which real ones are fitted.
        prepare: steps from the real video to the clip; values are then rounded to uint8.
        detector_resize: steps from the clip to what the detector sees, in float32.
        pixel_range: values that 0 and 255 are mapped to for the detector.
        detector: network of the features.
        feature: which of its outputs.
        ddof: covariances are divided by n − ddof, for FVD and FID.
        root: how FVD takes the trace of the matrix root: "sqrtm" of the product, or "eigh" of the symmetrised product.
        given: frames of each clip that a model is given; 0 for unconditional.
        score_given: whether they are inside the clip that is scored.
        given_pixels: what stands in the generated clip for the given frames: the "true" ones, or the model's
            ("decoded") ones.
        seed: of the choice of real clips.
    """

    name: str
    source: str
    split: Literal["train", "test", "all", "folder"]
    num_real: int | None
    num_fake: int | None
    frames: int
    interval: int
    temporal: Literal["first", "random", "center"]
    order: Literal["sorted-first", "random", "class-balanced"]
    clips_per_video: int
    side: int | None
    prepare: tuple[Step, ...]
    detector_resize: tuple[Step, ...]
    pixel_range: tuple[float, float]
    ddof: Literal[0, 1]
    root: Literal["eigh", "sqrtm"]
    given: int = 0
    score_given: bool = True
    given_pixels: Literal["true", "decoded"] = "true"
    notes: tuple[str, ...] = ()
    most: int = 256
    detector: str = "i3d"
    feature: str = "logits"
    seed: int = 0

    @property
    def span(self) -> int:
        """Frames of a real video that a clip stretches over."""
        return (self.frames - 1) * self.interval + 1

    @property
    def first_scored(self) -> int:
        """Index of the first frame inside the scored clip."""
        return 0 if self.score_given else self.given

    @property
    def first_moving(self) -> int:
        """First frame of the part in which motion is measured: into every generated frame, at least three frames."""
        return max(min(self.given - 1, self.frames - 3), 0)

    @property
    def context(self) -> str:
        """What a model is given: "none", "first frame" or "5 frames"."""
        return {0: "none", 1: "first frame"}.get(self.given, f"{self.given} frames")

    def record(self, detector_sha256: str | None = None, paired: bool = False) -> dict[str, Any]:
        """All fields as JSON values, for the result file; `paired`: whether fake i continues real i."""
        fields = asdict(self)
        fields["notes"], fields["pixel_range"] = list(self.notes), list(self.pixel_range)
        fields["prepare"] = [_said(step) for step in self.prepare]
        fields["detector_resize"] = [_said(step) for step in self.detector_resize]
        return fields | {
            "context": self.context,
            "context_clips": "the real set's own: fake i continues real i"
            if paired
            else "not known: nothing is paired",
            "short_clips": SHORT_CLIPS,
            "detector_sha256": detector_sha256,
        }


def _said(step: Step) -> dict[str, Any]:
    return {name: value for name, value in asdict(step).items() if value is not None}


STYLEGAN_V_224 = (bilinear(224, antialias=False),)
"""The resize inside the TorchScript detector of StyleGAN-V: straight to 224 × 224, torch's bilinear."""

MAGI_UCF101 = Protocol(
    name="magi-ucf101",
    source="MAGI (CVPR 2025), table 3 and A.2.2: UCF-101, 256 px, 2048 random videos, one clip each, interval 3",
    notes=(
        "the paper does not name the split: train and test together here, as its words are 'from the dataset'",
        "the paper does not name the resize, detector or covariance: those of Latte's scripts here, whose protocol it "
        "says it follows, without their JPEG files",
        "unconditional, as table 3; magi-ucf101-first-frame is the comparison of teacher forcings",
    ),
    split="all",
    num_real=2048,
    num_fake=2048,
    frames=16,
    interval=3,
    temporal="random",
    order="random",
    clips_per_video=1,
    side=256,
    prepare=(CROP_SQUARE, lanczos(256)),
    detector_resize=STYLEGAN_V_224,
    pixel_range=(-1.0, 1.0),
    ddof=0,
    root="sqrtm",
)

_ALL = (
    MAGI_UCF101,
    replace(
        MAGI_UCF101,
        name="magi-ucf101-first-frame",
        source="MAGI (CVPR 2025), section 5.2: UCF-101, first-frame conditioned prediction; clips as in A.2.2",
        notes=(
            *MAGI_UCF101.notes[:2],
            "the paper does not say whether the given frame is scored: it is here, as true pixels",
        ),
        given=1,
    ),
    Protocol(
        name="magi-k600",
        source="MAGI (CVPR 2025), table 2 and A.2.2: Kinetics-600 test set, 64 px, 5 given frames, 50,000 clips",
        notes=(
            "the paper does not name the resize to 64 px: centre square, then antialiased bilinear here",
            "the given frames are scored, as true pixels, as in DFoT; the paper does not say",
        ),
        split="test",
        num_real=50_000,
        num_fake=50_000,
        frames=16,
        interval=1,
        temporal="random",
        order="random",
        clips_per_video=1,
        side=64,
        prepare=(CROP_SQUARE, bilinear(64, antialias=True)),
        detector_resize=STYLEGAN_V_224,
        pixel_range=(-1.0, 1.0),
        ddof=1,
        root="eigh",
        given=5,
    ),
    Protocol(
        name="stylegan-v",
        source="StyleGAN-V, src/metrics/frechet_video_distance.py and src/scripts/convert_videos_to_frames.py",
        notes=(
            "the original draws random temporal offsets without a fixed seed; seeded here",
            "the original reads JPEG files; lossless frames here",
        ),
        split="train",
        num_real=2048,
        num_fake=2048,
        frames=16,
        interval=1,
        temporal="random",
        order="sorted-first",
        clips_per_video=1,
        side=256,
        prepare=(lanczos_short(256), crop(256, "round")),
        detector_resize=STYLEGAN_V_224,
        pixel_range=(-1.0, 1.0),
        ddof=0,
        root="sqrtm",
    ),
    Protocol(
        name="latte",
        source="Latte, tools/metrics/frechet_video_distance.py and tools/convert_videos_to_frames.py",
        notes=(
            "the original's choice of videos is unseeded and differs between its processes; seeded and one here",
            "the original reads JPEG files; lossless frames here",
        ),
        split="all",
        num_real=2048,
        num_fake=2048,
        frames=16,
        interval=3,
        temporal="random",
        order="random",
        clips_per_video=1,
        side=256,
        prepare=(CROP_SQUARE, lanczos(256)),
        detector_resize=STYLEGAN_V_224,
        pixel_range=(-1.0, 1.0),
        ddof=0,
        root="sqrtm",
    ),
    Protocol(
        name="videogpt",
        source="VideoGPT, scripts/compute_fvd.py, videogpt/fvd/fvd.py and videogpt/data.py",
        notes=(
            "the detector sees [-0.5, 0.5], as in the published code, although I3D was trained on [-1, 1]",
            "the original's I3D file has batch-norm eps 1e-5; 1e-3 (TensorFlow's) here",
            "the original averages 4 trials of 256; one of 256 here, another seed of the protocol for the others",
            "the original takes any 16 consecutive frames of any video; one random clip a video first here, then more",
        ),
        split="test",
        num_real=256,
        num_fake=256,
        frames=16,
        interval=1,
        temporal="random",
        order="random",
        clips_per_video=0,
        side=128,
        prepare=(bilinear_short(128, antialias=False), crop(128, "floor")),
        detector_resize=(bilinear_short(224, antialias=False), crop(224, "floor")),
        pixel_range=(-0.5, 0.5),
        ddof=1,
        root="eigh",
    ),
    Protocol(
        name="magvit",
        source="MAGVIT, videogvt/tools/compute_fvd.py and configs/maskgvt_ucf101_config.py",
        notes=(
            "first to 64 × 64, then to 224 × 224, as tools/compute_fvd.py; its in-training metric goes straight to 224",
            "the original crops at random and averages 4 repeats; the centre square and one repeat here",
        ),
        split="train",
        num_real=10_000,
        num_fake=10_000,
        frames=16,
        interval=1,
        temporal="random",
        order="random",
        clips_per_video=0,
        side=128,
        prepare=(CROP_SQUARE, bilinear(128, antialias=True)),
        detector_resize=(tf1_bilinear(64), tf1_bilinear(224)),
        pixel_range=(-1.0, 1.0),
        ddof=1,
        root="eigh",
    ),
    Protocol(
        name="small",
        source="magi-video, for sets of a few videos: compare models with each other, not with published figures",
        notes=("several clips of one video are not independent: intervals and small differences mean less then",),
        split="folder",
        num_real=None,
        num_fake=None,
        frames=16,
        interval=1,
        temporal="random",
        order="random",
        clips_per_video=0,
        side=None,
        prepare=(),
        detector_resize=STYLEGAN_V_224,
        pixel_range=(-1.0, 1.0),
        ddof=1,
        root="eigh",
        given=1,
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def find_protocol(
    protocol: str | Protocol, *, given: int | None = None, frames: int | None = None, interval: int | None = None
) -> Protocol:
    """A protocol by name, with fields changed where a value is given; a change is recorded in its notes.

    Raises:
        MagiError: no protocol of this name, or clips that cannot be scored.
    """
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise MagiError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
        protocol = PROTOCOLS[protocol]
    for field, value in {"given": given, "frames": frames, "interval": interval}.items():
        if value is not None and value != getattr(protocol, field):
            note = f"changed: {field} {value}, the protocol's own is {getattr(protocol, field)}"
            protocol = replace(protocol, notes=(*protocol.notes, note), **{field: value})  # type: ignore[arg-type]
    if protocol.given < 0 or protocol.interval < 1:
        raise MagiError(f"{protocol.given} given frames, interval {protocol.interval}; expected at least 0 and 1")
    scored = protocol.frames - protocol.first_scored
    if scored < MIN_FRAMES:
        raise MagiError(f"clips of {scored} scored frames; I3D needs at least {MIN_FRAMES}")
    if protocol.given >= protocol.frames:
        raise MagiError(f"{protocol.given} given frames of {protocol.frames}; expected at least one generated frame")
    return protocol
