"""What a training run will need: operations, memory, disk and days, before anything is bought or booked."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from magi_video.bench.flops import Flops, Sizes, exposure_flops, training_flops
from magi_video.bench.hardware import GIB, Hardware
from magi_video.bench.memory import FLOAT32, Memory, Sharding, Workload, step_memory
from magi_video.codecs.cost import Encoder, find_encoder
from magi_video.codecs.sizes import untrained_codec
from magi_video.errors import MagiError, counted
from magi_video.files.shapes import parameters_by_part
from magi_video.models.architecture import Architecture
from magi_video.recipe import Preset, check_cure_begins
from magi_video.registry import declared
from magi_video.training.sizing import attends_flat, find_architecture, loss_share, read_frames, unlearned_frames

MFU = 0.4
"""Share of the peaks that is assumed where none is given."""
SURVEYED = 32
"""Videos that are looked through to know a data set's length."""
DAY = 86_400
WORTH = 1.25
"""How many times as fast as float32 bfloat16 must be to be taken where the recipe leaves it open, as in training."""


@dataclass(frozen=True)
class Way:
    """One way to spread the training over the devices.

    Attributes:
        sharding, gradient_checkpointing: as the preset's settings of these names.
        fits: whether it fits on the device.
        micro_batch: clips of one forward and backward on each device.
        accumulate: of them in an optimiser step.
        memory: on each device.
        seconds_per_step, days: of computing alone, at the assumed share of the peaks.
    """

    sharding: Sharding
    gradient_checkpointing: bool
    fits: bool
    micro_batch: int
    accumulate: int
    memory: Memory
    seconds_per_step: float
    days: float


@dataclass(frozen=True)
class Latents:
    """Latents on the disk.

    Attributes:
        online: whether they are encoded in every step instead (unless `magi encode` wrote them).
        bytes: of all frames, or of one clip of every video where the codec compresses time; None if the data is
            unknown.
        videos: how many; None if unknown.
        encoding_flops: to make them once; None if unknown.
        source: what is known of the data.
    """

    online: bool
    bytes: int | None
    videos: int | None
    encoding_flops: int | None
    source: str


@dataclass(frozen=True)
class Plan:
    """All figures.

    Attributes:
        preset, forcing, steps, batch_size: of the recipe.
        devices, hardware, mfu: on what.
        parameters: by part of the network, and "total".
        clip_frames, latent_frames, sequence_frames, tokens: pixel frames of a clip, its latent frames, frames that the
            transformer reads for it, tokens of each.
        flops: of an optimiser step, all devices together, by part; forward and backward.
        recomputed_flops: that gradient checkpointing adds.
        encoding_flops: of a step's clips, where they are encoded online; None if they are, and it is not known.
        given: the recipe as it stands, with its own sharding, gradient checkpointing and accumulation.
        ways: to spread it, the best first, each with the most clips at a time that fit (one, where not even that
            does); only the first that `fits` needs to be looked at.
        traffic_bytes: that each device sends and receives in a step without sharding.
        latents: on the disk.
        assumptions: on which the figures stand.
    """

    preset: str
    forcing: str
    steps: int
    batch_size: int
    devices: int
    hardware: Hardware
    mfu: float
    parameters: dict[str, int]
    clip_frames: int
    latent_frames: int
    sequence_frames: int
    tokens: int
    flops: Flops
    recomputed_flops: int
    encoding_flops: int | None
    given: Way
    ways: list[Way]
    traffic_bytes: int
    latents: Latents
    assumptions: list[str]

    @property
    def best(self) -> Way | None:
        """The first way that fits."""
        return next((way for way in self.ways if way.fits), None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        best = self.best
        return asdict(self) | {
            "flops_per_step": self.flops.total,
            "given": asdict(self.given) | {"memory_total": self.given.memory.total},
            "best": None if best is None else asdict(best) | {"memory_total": best.memory.total},
        }


def make_plan(
    name: str, preset: Preset, devices: int, hardware: Hardware, mfu: float = MFU, data: Path | None = None
) -> Plan:
    """Plan a training run, by arithmetic: nothing is built, and PyTorch not imported but to look through `data`.

    Args:
        name: of the preset.
        preset: the recipe.
        devices: processes, one on each.
        hardware: each device.
        mfu: share of the peaks that training reaches, each precision's products of their own peak.
        data: folder of the data set, to survey.

    Raises:
        MagiError: the batch does not divide among devices and accumulated parts, the cure for exposure bias would
            never begin, or a figure makes no sense.
    """
    if devices < 1:
        raise MagiError(f"devices {devices}; expected at least 1")
    if not 0 < mfu <= 1:
        raise MagiError(f"mfu {mfu}; expected a share of the peak, above 0 and at most 1")
    if hardware.memory_gib is None:
        raise MagiError("the device's memory is not known; give --device-memory")
    check_cure_begins(preset.exposure, preset.train.steps)
    batch = preset.train.batch_size
    if batch % devices:
        nearest = [n for n in range(1, batch + 1) if batch % n == 0]
        below, above = max(n for n in nearest if n <= devices or n == 1), [n for n in nearest if n > devices]
        choices = f"{below} or {above[0]}" if above else f"{below}"
        raise MagiError(
            f"a batch of {batch} does not divide among {devices} devices; {choices} would do, or --batch-size"
        )
    accumulate = preset.train.accumulate
    if batch // devices % accumulate:
        raise MagiError(
            f"--accumulate {accumulate} does not divide the {counted(batch // devices, 'clip')} of each of "
            f"{counted(devices, 'device')}"
        )
    model, encoder = find_architecture(preset), find_encoder(preset)
    sizes = Sizes.of(model)
    repeats = declared("paradigms")[preset.forcing].get("draws") or preset.exposure.diffusion_batch_mul
    latent_frames, exposure = model.num_frames, preset.exposure
    loss_of = preset.forcing, exposure.mask_ratio_min, exposure.mask_ratio_std, sizes.tokens, latent_frames
    hidden, spread = loss_share(*loss_of)  # of a batch without a sparse past, which needs the most memory
    learned, _ = loss_share(*loss_of, unlearned_frames(preset))
    frames = read_frames(preset.forcing, preset.forcing_options, latent_frames)
    flat = attends_flat(preset.forcing, preset.forcing_options)
    predicted = round(batch * latent_frames * sizes.tokens * learned)
    ahead, back = training_flops(sizes, batch, frames, predicted, repeats, flat)
    cure = declared("exposure")[exposure.exposure]
    more = exposure_flops(cure, sizes, batch, frames, latent_frames)
    ahead, back = ahead + more[0], back + more[1]
    passes = 2 if cure.get("canvas") else 1  # both are kept for the backward
    work = Workload(
        batch // devices, passes * frames, latent_frames, hidden, spread, repeats,
        trains_low(preset, hardware), hardware.fused_attention,
        attention_dropout=preset.train.attention_dropout, projection_dropout=preset.train.projection_dropout,
        mlp_dropout=preset.train.mlp_dropout, flat=flat,
    )  # fmt: skip
    online = untrained_codec(preset).temporal_factor > 1
    encoding = (batch * encoder.flops if encoder else None) if online else 0
    recomputed = sum(getattr(ahead, part) for part in BLOCK_PARTS)
    flops = ahead + back
    codec = FLOAT32 * encoder.parameters if encoder and online else 0

    def seconds(checkpointing: bool) -> float:
        quick = flops.total - flops.head + (recomputed if checkpointing else 0)
        peak = hardware.bf16_tflops if work.low_precision else hardware.float32_tflops
        slow = (flops.head + (encoding or 0)) / hardware.float32_tflops
        return (quick / peak + slow) / 1e12 / mfu / devices

    def way(sharding: Sharding, checkpointing: bool, clips: int) -> Way:
        now = replace(work, clips=clips, checkpointing=checkpointing)
        memory = step_memory(model, now, sharding, devices, codec)
        fits = memory.total <= hardware.usable * (hardware.memory_gib or 0) * GIB
        once = seconds(checkpointing)
        days = preset.train.steps * once / DAY
        return Way(sharding, checkpointing, fits, clips, work.clips // clips, memory, once, days)

    def largest(sharding: Sharding, checkpointing: bool) -> Way:
        parts = [n for n in range(1, work.clips + 1) if work.clips % n == 0]
        tried = (way(sharding, checkpointing, work.clips // n) for n in parts)
        return next((one for one in tried if one.fits), way(sharding, checkpointing, 1))

    shardings: list[Sharding] = ["none", "full"] if devices > 1 else ["none"]
    ways = [largest(sharding, checkpointing) for checkpointing in (False, True) for sharding in shardings]
    given = way(
        preset.train.sharding if devices > 1 else "none",
        preset.train.gradient_checkpointing,
        work.clips // accumulate,
    )
    parameters = parameters_by_part(model)
    total = sum(parameters.values())
    return Plan(
        preset=name,
        forcing=preset.forcing,
        steps=preset.train.steps,
        batch_size=batch,
        devices=devices,
        hardware=hardware,
        mfu=mfu,
        parameters=parameters | {"total": total},
        clip_frames=preset.data.num_frames,
        latent_frames=latent_frames,
        sequence_frames=frames,
        tokens=sizes.tokens,
        flops=flops,
        recomputed_flops=recomputed,
        encoding_flops=encoding,
        given=given,
        ways=ways,
        traffic_bytes=round(2 * FLOAT32 * total * (devices - 1) / devices),
        latents=survey(preset, model, encoder, online, data),
        assumptions=assumptions(preset, hardware, mfu, devices, encoder, online),
    )


BLOCK_PARTS = ("spatial_linear", "spatial_attention", "temporal_linear", "temporal_attention")
"""Of `Flops`, what gradient checkpointing does twice."""


def survey(preset: Preset, model: Architecture, encoder: Encoder | None, online: bool, data: Path | None) -> Latents:
    """What the latents of the data set take on a disk, from the folder or from what is known of the data set."""
    published = declared("data")[preset.data.dataset]
    videos, frames = published.get("training_videos"), published.get("mean_frames")
    source = f"{videos:,} training videos" if videos else "give --data DIR"
    if frames:
        source += f" of {frames} frames on average"
    if data is not None:
        from magi_video.training.preparation import open_videos

        folder = open_videos(preset, data, sample=SURVEYED)
        if not folder.videos:
            raise MagiError(f"{data}: no readable video ({folder.summary()})")
        looked = min(SURVEYED, folder.num_files)
        videos = round(folder.num_files * len(folder.videos) / looked)
        frames = round(sum(video.num_frames for video in folder.videos) / len(folder.videos))
        source = f"{data}: about {videos:,} videos of {frames} frames, going by {looked} of them"
    row = model.latent_channels * model.latent_height * model.latent_width * 2  # float16
    ways = 2 if preset.data.flip and not online else 1  # the mirror images have latents of their own
    if not declared("codecs")[preset.codec.codec].get("compresses", True):
        return Latents(True, 0, videos, 0, "pixels are not encoded")
    rows = model.num_frames if online else frames
    flops = encoder.flops if encoder and online else encoder.flops // preset.data.num_frames if encoder else None
    times = videos if online else videos * frames if videos and frames else None
    return Latents(
        online,
        None if videos is None or rows is None else videos * rows * row * ways,
        videos,
        None if flops is None or times is None else flops * times * ways,
        source,
    )


def trains_low(preset: Preset, hardware: Hardware) -> bool:
    """Whether the transformer's products are bfloat16: as the recipe says, or by "auto" where that is faster."""
    if preset.train.precision == "auto":
        return hardware.bf16_tflops >= WORTH * hardware.float32_tflops
    return preset.train.precision == "bf16"


def assumptions(
    preset: Preset, hardware: Hardware, mfu: float, devices: int, encoder: Encoder | None, online: bool
) -> list[str]:
    """What the figures stand on, in sentences."""
    notes = [
        f"products run at {mfu:.0%} of the peak of their precision ({hardware.source}): an assumption, not measured",
        "the transformer's products are bfloat16, the head's float32"
        if trains_low(preset, hardware)
        else "all products are float32",
        "communication and reading data are hidden behind computing",
        f"memory is an upper bound, and {1 - hardware.usable:.0%} of the device's are kept free",
    ]
    if hardware.fused_attention:
        notes.append("activations follow PyTorch's rules for GPUs, which were not measured (the CPU's were)")
    if online:
        network = f"counted as {encoder.name}, float32" if encoder else "not counted: its network is not known here"
        notes.append(f"latents depend on the interval and are encoded in every step, {network}")
    elif encoder:
        notes.append(f"latents are encoded once; the codec is counted as {encoder.name}")
    if preset.codec_steps:
        notes.append(f"the training of the codec ({preset.codec.codec}) is not counted")
    return notes
