"""The worlds that the paper's claims are measured on, at three scales. Chosen before any model was compared:

- `balls`: two bouncing balls, five frames given, no actions. Where they go only the past tells; the clearest test, and
  the state of the world can be read from its pixels (`experiments.oracle`).
- `gameplay`: Doom's deathmatch, five frames given, no actions: a turning or walking player goes on turning or walking.
- `coinrun`: Procgen's CoinRun, five frames and the player's keys given; levels of the test are never seen in training.
  What a key does, its pixels show (`experiments.inverse`).
- `ucf101`: natural video, the first frame given, interval 3: the paper's own comparison.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from magi_video.codecs.config import SmallVAEConfig
from magi_video.fast.precision import Precision
from magi_video.recipe import CodecConfig, DataConfig, ExposureConfig, ModelConfig, Preset, TrainConfig
from magi_video.sampling.sampling import Sampling

Scale = Literal["smoke", "cpu", "gpu"]
WorldName = Literal["balls", "coinrun", "gameplay", "ucf101"]


@dataclass(frozen=True)
class World:
    """Data, recipe and evaluation of one world at one scale."""

    name: WorldName
    preset: Preset
    """Recipe of the CTF model; every other run of the world is this with a field changed."""
    given: int
    """Frames given before generation."""
    interval: int
    """Frames of the video from one frame of an evaluated clip to the next."""
    num_clips: int
    """Clips in each of the two disjoint real sets; as many are generated."""
    game: str | None = None
    """What is recorded; None: the data is given."""
    episodes: int = 0
    """Episodes recorded for training, and as many again for the two real sets."""
    train_frames: int = 0
    """Longest episode of the training set."""
    test_frames: int = 0
    """Longest episode of the test set; long rollouts are compared with it."""
    clips_per_video: int = 1
    """Clips that a test video gives to its real set."""
    frames: int = 16
    """Frames of an evaluated clip."""
    detector_precision: Precision = "auto"
    """Of I3D's convolutions; "auto": the quicker one on this machine. docs/reproduction.md says what that changes."""
    fid: bool = True
    """Whether the per-frame FID is taken too: the costliest of the scores."""
    actions: bool = False
    """Whether models are given the actions that lead to each frame."""
    oracle: Literal["balls", "keys"] | None = None
    """What else than FVD and the paired scores can be read from the pixels: a name of `measure.ORACLES`."""
    oracle_steps: int = 1000
    """Training steps of an oracle that is a network."""
    rollouts: int = 32
    """Of the recipes `drift` and `ablation`: rollouts of each model."""
    rollout_lengths: tuple[int, ...] = (16, 64, 256, 1000)
    """Of the recipe `drift`: the lengths that are compared, in frames."""
    long_frames: int = 256
    """Of the recipes `rollout` and `ablation`: the longest rollout, in frames."""
    endless: bool = False
    """Whether an episode goes on for as long as it is recorded."""


def cpu_preset(
    steps: int, *, interval: int, dataset: Literal["folder", "ucf101"] = "folder", vae: SmallVAEConfig
) -> Preset:
    """Within 40 minutes on one CPU core with AVX-512 and bf16: 2.2 M parameters, 64 tokens a frame, 64×64 pixels.

    The latents are 16×16×4: on 8×8 ones the codec loses what small things look like, whatever the channels, and a patch
    of 2 makes 64 tokens of 16 numbers of them. With 16 tokens a frame a ratio of 70 to 100 % would hide whole past
    frames from masked teacher forcing, which the paper's 256 tokens do not.
    """
    return Preset(
        data=DataConfig(dataset=dataset, height=64, width=64, max_interval=interval),
        codec=CodecConfig(codec="small_vae"),
        small_vae=vae,
        model=ModelConfig(
            hidden=160, depth=3, heads=4, mlp=640, head_width=160, head_depth=2, temporal_position="rope"
        ),
        exposure=ExposureConfig(diffusion_batch_mul=2),
        train=TrainConfig(
            steps=steps, batch_size=2, learning_rate=1e-3, warmup_steps=200, ema_decay=0.998, workers=0,
            sample_every=0, checkpoint_every=200, keep_checkpoints=1,
        ),
        sample=Sampling(mask_steps=8, denoise_steps=20),
    )  # fmt: skip


def with_actions(preset: Preset) -> Preset:
    """The same recipe for a model that is given the actions."""
    return replace(preset, model=replace(preset.model, actions=True))


def gpu_preset(preset: Preset, steps: int) -> Preset:
    """The same recipe for a model eighty times as large (0.18 G parameters), meant for one accelerator."""
    return replace(
        preset,
        small_vae=replace(preset.small_vae, width=64, steps=20_000),
        model=replace(preset.model, hidden=768, depth=12, heads=12, mlp=3072, head_width=768, head_depth=3),
        exposure=replace(preset.exposure, diffusion_batch_mul=4),
        train=replace(
            preset.train, steps=steps, batch_size=64, learning_rate=2e-4, warmup_steps=1000, ema_decay=0.9995,
            workers=8, checkpoint_every=2000,
        ),
        sample=Sampling(mask_steps=12, denoise_steps=50),
    )  # fmt: skip


FINE: dict[str, Any] = {"latent_channels": 4, "encoder_blocks": (0, 1, 1), "decoder_blocks": (1, 1, 0)}
"""Of the small VAE: two halvings, 64×64 pixels become 16×16×4."""

CPU_WORLDS = (
    World(
        "balls",
        cpu_preset(4800, interval=2, vae=SmallVAEConfig(width=32, steps=1000, **FINE)),
        given=5,
        interval=1,
        num_clips=128,
        game="magi/BouncingBalls-v0",
        episodes=512,
        train_frames=64,
        test_frames=128,
        oracle="balls",
        endless=True,
    ),
    World(
        "coinrun",
        with_actions(cpu_preset(4800, interval=2, vae=SmallVAEConfig(steps=2000, batch_size=8, **FINE))),
        given=5,
        interval=1,
        num_clips=256,
        game="procgen/coinrun",
        episodes=600,
        train_frames=200,
        test_frames=200,
        actions=True,
        oracle="keys",
    ),
    World(
        "gameplay",
        cpu_preset(4800, interval=4, vae=SmallVAEConfig(steps=2000, batch_size=8, **FINE)),
        given=5,
        interval=2,
        num_clips=128,
        fid=False,
        game="vizdoom/deathmatch",
        episodes=32,
        train_frames=1050,
        test_frames=1050,
        clips_per_video=8,
    ),
    World(
        "ucf101",
        cpu_preset(4800, interval=6, dataset="ucf101", vae=SmallVAEConfig(steps=2000, batch_size=8, **FINE)),
        given=1,
        interval=3,
        num_clips=512,
    ),
)

GPU_WORLDS = tuple(
    replace(
        world,
        preset=gpu_preset(world.preset, steps=10_000),
        episodes=8 * world.episodes,
        num_clips=2048,
        detector_precision="float32",
    )
    for world in CPU_WORLDS
)


def smoke_preset(preset: Preset) -> Preset:
    """Seconds: the same recipe for a model of 32×32 pixels without a codec; nothing is learned."""
    return replace(
        preset,
        data=replace(preset.data, height=32, width=32, num_frames=10),
        codec=CodecConfig(codec="pixels"),
        model=replace(preset.model, patch_size=4, hidden=32, depth=2, heads=2, mlp=64, head_width=32, head_depth=1),
        train=replace(preset.train, steps=4, warmup_steps=2, checkpoint_every=4, precision="float32"),
        sample=Sampling(mask_steps=2, denoise_steps=2),
    )


SMOKE_WORLDS = tuple(
    replace(
        world,
        preset=smoke_preset(world.preset),
        num_clips=3,
        fid=False,
        frames=10,
        episodes=world.episodes and 16,
        train_frames=min(world.train_frames, 64),
        test_frames=min(world.test_frames, 64),
        clips_per_video=1,
        oracle_steps=20,
        rollouts=3,
        rollout_lengths=(10, 30, 40),
        long_frames=42,
    )
    for world in CPU_WORLDS
)

SCALES: dict[Scale, tuple[World, ...]] = {"smoke": SMOKE_WORLDS, "cpu": CPU_WORLDS, "gpu": GPU_WORLDS}
