"""The recipes by name: each a few lines over the defaults of `recipe.py`.

magi train doom --data DIR --out RUN                     a preset by name
magi train doom --data DIR --out RUN --forcing masked    any field as a flag
magi train my-recipe.json --data DIR --out RUN           a file: {"forcing": "masked", "model": {"depth": 8}, …}
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from magi_video.codecs.config import SmallVAEConfig
from magi_video.errors import MagiError
from magi_video.files.json import read_json
from magi_video.recipe import (
    CodecConfig,
    DataConfig,
    ExposureConfig,
    ModelConfig,
    Preset,
    TrainConfig,
    check_name,
    own_steps,
)
from magi_video.registry import declared
from magi_video.sampling.sampling import Sampling
from magi_video.settings import from_json


def tiny() -> Preset:
    """Seconds on a CPU: for tests and for trying the commands."""
    return Preset(
        data=DataConfig(height=16, width=16, num_frames=4, max_interval=4),
        codec=CodecConfig(codec="pixels"),
        model=ModelConfig(patch_size=4, hidden=64, depth=2, heads=4, mlp=128, head_width=64, head_depth=2),
        train=TrainConfig(
            steps=20, batch_size=4, learning_rate=1e-3, warmup_steps=5, ema_decay=0.99, precision="float32", workers=0,
            sample_every=10, checkpoint_every=10,
        ),
        sample=Sampling(mask_steps=4, denoise_steps=10),
    )  # fmt: skip


def doom() -> Preset:
    """The demo's world: 64×64 ViZDoom with actions, a model that trains on two CPU cores and plays without end.

    Its averages end at a decay of 0.996 (step 2,250 of `ema_warmup`), not at `ema_decay`.
    """
    return Preset(
        data=DataConfig(height=64, width=64, max_interval=4),
        codec=CodecConfig(codec="small_vae"),
        model=ModelConfig(
            hidden=256, depth=5, heads=4, mlp=1024, head_width=256, temporal_position="rope", actions=True
        ),
        train=TrainConfig(
            steps=2_250, batch_size=16, learning_rate=4e-4, warmup_steps=200, ema_decay=0.999, workers=1,
            sample_every=500, checkpoint_every=250,
        ),
        sample=Sampling(mask_steps=8, denoise_steps=20),
    )  # fmt: skip


def atari() -> Preset:
    """A second world: 80×64 Boxing of Atari, 15 frames/s, one of 18 actions a frame; otherwise as `doom`."""
    return Preset(
        data=DataConfig(height=80, width=64, max_interval=4),
        codec=CodecConfig(codec="small_vae"),
        small_vae=SmallVAEConfig(steps=3_000),
        model=ModelConfig(
            hidden=256, depth=4, heads=4, mlp=1024, head_width=256, head_depth=2, temporal_position="rope",
            actions=True,
        ),
        exposure=ExposureConfig(diffusion_batch_mul=2),
        train=TrainConfig(
            steps=2_000, batch_size=16, learning_rate=4e-4, warmup_steps=200, ema_decay=0.999, workers=1,
            sample_every=500, checkpoint_every=250,
        ),
        sample=Sampling(mask_steps=8, denoise_steps=20),
    )  # fmt: skip


def coinrun() -> Preset:
    """A third world: 64×64 CoinRun of Procgen, 15 frames/s, one of 15 actions a frame, levels without end.

    Sprites are a few pixels large, so latents are 16×16 with a patch of 4: the tokens of `doom`, twice the detail. The
    flow head draws after fewer steps than the paper's. Its averages end at a decay of 0.991 (`ema_warmup`).
    """
    return Preset(
        data=DataConfig(height=64, width=64, max_interval=1),
        codec=CodecConfig(codec="small_vae"),
        small_vae=SmallVAEConfig(
            latent_channels=4, width=48, encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1, 0), batch_size=8, steps=1_800
        ),
        model=ModelConfig(
            patch_size=4, hidden=256, depth=4, heads=4, mlp=1024, head="flow", head_width=256, head_depth=2,
            temporal_position="rope", actions=True,
        ),
        exposure=ExposureConfig(diffusion_batch_mul=2),
        train=TrainConfig(
            steps=1_000, batch_size=16, learning_rate=8e-4, warmup_steps=100, ema_decay=0.995, workers=1,
            sample_every=500, checkpoint_every=250,
        ),
        sample=Sampling(mask_steps=8, denoise_steps=20),
    )  # fmt: skip


def shapes() -> Preset:
    """Text to video: 64×64 shapes whose captions say colour, shape and motion (`magi record shapes`, docs/text.md).

    The model learns the captions' words by itself. What they say is learned where the past does not show it yet, at a
    clip's first frames, so clips are as short as a motion allows: 4 frames. With rotary positions a video goes on
    without end. 16 tokens a frame, as `coinrun`. The first frame is made from nothing: training hides from a fifth of
    its tokens up, since of 16 tokens the paper's ratio would never show more than 4 beside those that are to be made.
    The steps take about 40 minutes of a CPU core of their own.
    """
    return Preset(
        data=DataConfig(height=64, width=64, num_frames=4, max_interval=1),
        codec=CodecConfig(codec="small_vae"),
        small_vae=SmallVAEConfig(
            latent_channels=4, width=32, encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1, 0), batch_size=8, steps=800
        ),
        model=ModelConfig(
            patch_size=4, hidden=160, depth=3, heads=4, mlp=640, head="flow", head_width=160, head_depth=2,
            temporal_position="rope", text=True, text_encoder="words", text_tokens=9,
        ),
        exposure=ExposureConfig(mask_ratio_min=0.2, mask_ratio_std=0.4),
        train=TrainConfig(
            steps=10_000, batch_size=8, learning_rate=1.2e-3, warmup_steps=100, ema_decay=0.995, workers=0,
            sample_every=1_000, checkpoint_every=100, keep_checkpoints=1,
        ),
        sample=Sampling(mask_steps=8, denoise_steps=20),
    )  # fmt: skip


def small() -> Preset:
    """A first look at a folder of your own videos: 64×64, minutes on two CPU cores, colours and places but few details.

    Latents of 16×16 keep twice the detail of 8×8 ones; a flow head draws something after some hundred steps, where the
    paper's head still draws noise. More `steps` make it better.
    """
    return Preset(
        data=DataConfig(height=64, width=64, num_frames=8, max_interval=2),
        codec=CodecConfig(codec="small_vae"),
        small_vae=SmallVAEConfig(
            latent_channels=4, width=32, encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1, 0), steps=1_200
        ),
        model=ModelConfig(
            patch_size=4, hidden=160, depth=3, heads=4, mlp=640, head="flow", head_width=160, head_depth=2,
            temporal_position="rope",
        ),
        train=TrainConfig(
            steps=600, batch_size=8, learning_rate=1.5e-3, warmup_steps=50, ema_decay=0.99, workers=1,
            sample_every=200, checkpoint_every=100,
        ),
        sample=Sampling(mask_steps=4, denoise_steps=10),
    )  # fmt: skip


def epochs(number: int, dataset: str, batch_size: int) -> int:
    """The optimiser steps in which every training video of a data set gives `number` clips, to the nearest step.

    The published number of videos counts: with fewer of them (Kinetics shrinks with YouTube) a run has as many steps,
    and sees each video more often.
    """
    return round(number * declared("data")[dataset]["training_videos"] / batch_size)


MAR_TRAINING: dict[str, Any] = {
    "ema_warmup": False, "attention_dropout": 0.1, "projection_dropout": 0.1, "mlp_dropout": 0.1,
}  # fmt: skip
"""Of the paper's recipes: "other hyperparameters follow the settings in MAR"."""


def ucf101() -> Preset:
    """The paper's UCF-101 model: 256×256, the SD-1.4 VAE, 0.81 G parameters, 1400 epochs of the 9,537 videos."""
    return Preset(
        data=DataConfig(dataset="ucf101", flip=0.5),
        train=TrainConfig(steps=epochs(1400, "ucf101", 128), batch_size=128, learning_rate=1e-4, **MAR_TRAINING),
    )


def ucf101_cosmos() -> Preset:
    """The paper's better UCF-101 model: as `ucf101`, on Cosmos latents: 17 frames become 5 of 16×32×32.

    NVIDIA publishes the 4×8×8 tokenizer as TorchScript, which is never loaded here: convert it to diffusers'
    `AutoencoderKLCosmos` once and name the folder with `vae`.
    """
    return Preset(
        data=DataConfig(dataset="ucf101", num_frames=17, flip=0.5),
        codec=CodecConfig(codec="video_vae", vae="nvidia/Cosmos-0.1-Tokenizer-CV4x8x8", vae_subfolder=""),
        train=TrainConfig(steps=epochs(1400, "ucf101", 128), batch_size=128, learning_rate=1e-4, **MAR_TRAINING),
    )


def k600() -> Preset:
    """The paper's Kinetics-600 model: 256×256, the OmniTokenizer VAE (17 frames become 5 of 8×32×32), 0.81 G
    parameters, 150 epochs of the 392,622 training videos."""
    return Preset(
        data=DataConfig(dataset="kinetics600", num_frames=17, flip=0.5),
        codec=CodecConfig(codec="omnitokenizer", vae="omnitokenizer", vae_subfolder=""),
        train=TrainConfig(steps=epochs(150, "kinetics600", 256), batch_size=256, learning_rate=2e-4, **MAR_TRAINING),
    )


def base() -> Preset:
    """0.19 G parameters on the paper's 256 tokens a frame: the size that published speeds are compared at."""
    return Preset(
        model=ModelConfig(hidden=768, depth=12, heads=12, mlp=3072),
        train=TrainConfig(batch_size=64),
        sample=Sampling(mask_steps=8, denoise_steps=10),
    )


RECIPES: dict[str, Callable[[], Preset]] = {
    "tiny": tiny,
    "small": small,
    "doom": doom,
    "atari": atari,
    "coinrun": coinrun,
    "shapes": shapes,
    "base": base,
    "ucf101": ucf101,
    "ucf101-cosmos": ucf101_cosmos,
    "k600": k600,
}


def baseline(recipe: Callable[[], Preset]) -> Callable[[], Preset]:
    """The same recipe under masked teacher forcing."""
    return lambda: replace(recipe(), forcing="masked")


PRESETS: dict[str, Callable[[], Preset]] = {
    name + end: make for name, recipe in RECIPES.items() for end, make in (("", recipe), ("-mtf", baseline(recipe)))
}
"""Every recipe by name, each followed by its baseline."""


def load_preset(name_or_file: str | os.PathLike[str], forcing: str | None = None, **options: Any) -> Preset:
    """A preset by name, or from a JSON file of its fields (those left out keep their defaults).

        load_preset("doom", forcing="raster", attention="flat")

    Args:
        name_or_file: one of `PRESETS`, or a file.
        forcing: another paradigm than the recipe's, with its own numbers of mask and denoise steps where it has any.
        options: hyper-parameters of the paradigm itself.

    Raises:
        MagiError: there is no such recipe, paradigm or option, or the paradigm cannot learn from such clips.
    """
    if not isinstance(name_or_file, str | os.PathLike):
        raise MagiError(f"a recipe is the name of a preset or a file, got {str(name_or_file)[:60]}")
    if name_or_file in PRESETS:
        preset = PRESETS[str(name_or_file)]()
    else:
        path = Path(name_or_file)
        if path.is_dir():
            raise MagiError(_no_recipe(path))
        if not path.is_file():
            raise MagiError(f"no preset or file {str(name_or_file)!r}: presets are {', '.join(PRESETS)}")
        preset = from_json(Preset, read_json(path), str(path))
    changes = change_paradigm(preset, forcing)
    if options:
        given = {name: str(value) for name, value in options.items()}
        changes["forcing_options"] = {**changes.get("forcing_options", preset.forcing_options), **given}
    return replace(preset, **changes)


def _no_recipe(folder: Path) -> str:
    """What to do with a folder that was given as a recipe."""
    if (folder / "run.json").is_file():
        return (
            f"{folder} is a run, not a recipe: to go on with it repeat the command that began it, its preset or file "
            f'first and --out {folder} (its recipe is in {folder / "run.json"}, under "preset")'
        )
    what = "a model" if (folder / "model_index.json").is_file() else "a folder"
    return f"{folder} is {what}, not a recipe: give a JSON file, or one of {', '.join(PRESETS)}"


def change_paradigm(preset: Preset, forcing: str | None) -> dict[str, Any]:
    """The fields of a preset that another paradigm changes, none if it has that one or None is asked for.

    Raises:
        MagiError: there is no such paradigm.
    """
    if forcing is None or forcing == preset.forcing:
        return {}
    check_name("paradigms", "forcing", forcing)
    return {"forcing": forcing, "forcing_options": {}, "sample": own_steps(forcing, preset.sample)}


def run_preset(run: Path) -> Preset:
    """The recipe that a run's folder records."""
    preset: Preset = from_json(Preset, read_json(run / "run.json").get("preset"), str(run / "run.json"))
    return preset
