"""What a recipe makes, by arithmetic: latents, transformer, hidden tokens. Imports no PyTorch."""

import math
from collections.abc import Mapping
from typing import Any

from magi_video.codecs.sizes import LatentSizes, untrained_codec
from magi_video.errors import MagiError
from magi_video.models.architecture import ACTION, CATEGORICAL, LABEL, NOISE_LEVEL, TEXT, Architecture
from magi_video.recipe import Preset, check_learnable
from magi_video.registry import declared
from magi_video.sampling.sampling import PAST_STRIDE

ACTIONS, CLASSES, WORD_SIZE = 6, 101, 384
"""Of data that is not there yet: as many actions as the shipped Doom model has, classes as UCF-101 has, and numbers of
a word's vector as the presets' text encoder gives."""
FINEST = 2**16
"""Parts of a frame that are counted one by one when hidden tokens are counted."""


def find_architecture(
    preset: Preset,
    codec: LatentSizes | None = None,
    *,
    actions: int = ACTIONS,
    classes: int = CLASSES,
    word_size: int = WORD_SIZE,
) -> Architecture:
    """The preset's transformer, fitted to a codec and to data.

    Args:
        preset: the recipe.
        codec: of which the latents are; the preset's own, untrained, if there is none yet.
        actions: columns of an action, if the preset takes actions.
        classes: of the videos, if it takes labels.
        word_size: numbers in a vector of the text encoder, if it takes text.

    Raises:
        MagiError: no model can have these sizes, the codec does not take the recipe's frames, or the paradigm cannot
            learn from them.
    """
    codec = codec or untrained_codec(preset)
    model, drop = preset.model, preset.model.condition_drop
    latent_height, latent_width = codec.latent_size(preset.data.height, preset.data.width)
    cure = declared("exposure")[preset.exposure.exposure]
    levels = preset.exposure.noise_levels if cure.get("injects") else 0
    conditions: dict[str, dict[str, Any]] = {NOISE_LEVEL: {"size": levels + 1}}
    conditions |= declared("paradigms")[preset.forcing].get("conditions", {})
    if model.actions:
        conditions[ACTION] = {"size": actions, "kind": "vector", "drop": drop}
    if model.text:
        conditions[TEXT] = {"size": word_size, "kind": "sequence", "tokens": model.text_tokens, "drop": drop}
    if model.labels:
        conditions[LABEL] = {"size": classes, "drop": drop}
    if preset.data.sparse_past and codec.temporal_factor > 1:
        raise MagiError(
            "sparse_past is for codecs that encode every frame by itself; this one encodes clips as a whole"
        )
    frames = codec.num_latent_frames(preset.data.num_frames)
    kind = "latent frames" if codec.temporal_factor > 1 else "frames"
    check_learnable(preset.forcing, preset.forcing_options, model.head, frames, kind)
    return Architecture(
        latent_channels=codec.latent_channels,
        latent_height=latent_height,
        latent_width=latent_width,
        patch_size=model.patch_size,
        num_frames=frames,
        width=model.hidden,
        depth=model.depth,
        heads=model.heads,
        mlp_width=model.mlp,
        head=declared("paradigms")[preset.forcing].get("head") or model.head,
        head_width=model.head_width,
        head_depth=model.head_depth,
        max_interval=preset.data.max_interval,
        conditions=conditions,
        temporal_position=model.temporal_position,
        codes=codec.codes if model.head == CATEGORICAL else None,
        canvas=bool(cure.get("canvas")),
    )


def hidden_share(minimum: float, std: float, tokens: int) -> tuple[float, float]:
    """Share of a frame's tokens that training hides: its mean and its standard deviation.

    `MaskRatio` draws the ratio from a normal with its centre at 1, cut off below `minimum`, and hides ceil(N · ratio)
    tokens.

    Args:
        minimum: least ratio, in (0, 1].
        std: of the normal.
        tokens: N.
    """
    tokens = min(tokens, FINEST)
    lowest = _normal((minimum - 1) / std)
    mean = square = 0.0
    for count in range(tokens):
        reached = max(count / tokens, minimum)
        # The probability that more than `count` tokens are hidden.
        more = 1.0 if count < minimum * tokens else (0.5 - _normal((reached - 1) / std)) / (0.5 - lowest)
        mean += more / tokens
        square += more * (2 * count + 1) / tokens**2
    return mean, math.sqrt(max(0.0, square - mean * mean))


def own_options(forcing: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Every hyper-parameter of a paradigm itself: as given, else its default."""
    return {**declared("paradigms")[forcing].get("options", {}), **options}


def read_frames(forcing: str, options: Mapping[str, str], frames: int) -> int:
    """Frames that the transformer reads in training for a clip.

    Args:
        forcing: name of the paradigm.
        options: of the paradigm itself.
        frames: T, of the clip.
    """
    values, given = declared("paradigms")[forcing], own_options(forcing, options)
    if window := values.get("training_window"):
        return int(given[window]) + 1
    by_option = [of[given[name]] for name, of in values.get("training_frames_of", {}).items()]
    return (by_option or [values["training_frames"]])[0] * frames


def attends_flat(forcing: str, options: Mapping[str, str]) -> bool:
    """Whether every layer attends among all tokens of all frames."""
    return own_options(forcing, options).get("attention") == "flat"


def unlearned_frames(preset: Preset) -> float:
    """Frames of a clip, on average, that have no loss since their neighbour is not before them (`sparse_past`).

    Of videos much longer than a clip: the shorter ones have fewer, those too short for a sparse past none.
    """
    if not preset.data.sparse_past:
        return 0.0
    sample = preset.sample
    sink, strided, stride = sample.sink_frames or 0, sample.strided_frames or 0, sample.past_stride or PAST_STRIDE
    # The strided ones, but for a first frame, and the first of the latest, unless a strided one is its neighbour.
    gaps = strided + 1 - 1 / stride - (not sink) if strided else 1.0
    return preset.data.sparse_past * gaps


def loss_share(
    forcing: str, minimum: float, std: float, tokens: int, frames: int, unlearned: float = 0.0
) -> tuple[float, float]:
    """Share of a clip's tokens that have a loss, on average, and its standard deviation from frame to frame.

    Args:
        forcing: name of the paradigm.
        minimum, std, tokens: as of `hidden_share`.
        frames: of the clip.
        unlearned: as of `unlearned_frames`.
    """
    values = declared("paradigms")[forcing]
    learned = {"all": frames - unlearned, "later": frames - 1 - unlearned, "one": 1}[values.get("loss_frames", "all")]
    share = values.get("loss_share")
    mean, spread = hidden_share(minimum, std, tokens) if share is None else (share, 0.0)
    return mean * learned / frames, spread


def _normal(value: float) -> float:
    """Distribution function of the standard normal."""
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))
