"""What a model's folder holds, from its JSON files and the headers of its weights: no network is built, and PyTorch not
imported. The weights themselves are not looked at; loading the model does that.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magi_video.codecs.sizes import LatentSizes
from magi_video.errors import MagiError, spanned
from magi_video.files.json import read_json
from magi_video.files.shapes import architecture_of, parameters_by_part, weight_shapes
from magi_video.files.weights import (
    WEIGHTS,
    check_shapes,
    class_name,
    resolve_model,
    stored_shapes,
    weight_files,
)
from magi_video.models.architecture import ACTION, LABEL, TEXT, Architecture, check_first_step
from magi_video.registry import CLASS, declared
from magi_video.sampling.sampling import Sampling
from magi_video.settings import from_json

if TYPE_CHECKING:
    from magi_video.files.words import Vocabulary

INDEX_FILE = "model_index.json"
ENCODER_FOLDER = "text_encoder"
"""Of a model that takes text."""
PIPELINES = ("MagiVideoPipeline", "MagiPipeline")
TRANSFORMERS = ("MagiVideoTransformer", "MagiTransformer")
"""Names of the classes in saved files, today's first."""
FORMER_SAMPLING = ("mask_steps", "denoise_steps", "first_step")
"""Fields of `sampling` that earlier versions wrote beside the other settings."""
DEFAULTS: dict[str, Any] = {
    "forcing": "complete", "height": 256, "width": 256, "frame_rate": 25.0, "action_names": [], "class_names": [],
    "forcing_options": {}, "sampling": {}, "training": {},
}  # fmt: skip
"""Of `MagiVideoPipeline`'s settings."""
MAX_SETTING = 16384
"""Of sides in pixels, steps and frames/s."""
STEPS = ("mask_steps", "denoise_steps")


@dataclass(frozen=True)
class Description:
    """Of a model.

    Attributes:
        settings: of the pipeline, those that were left out at their defaults.
        architecture: of the transformer.
        codec: name of the codec's class.
        codec_parameters: numbers in its weights.
        code_use: how a discrete codec's codes are used, in words; "" of a continuous one.
        vocabulary: the words that the model learned from its captions; None of one that takes no text, or any.
    """

    settings: dict[str, Any]
    architecture: Architecture
    codec: str
    codec_parameters: int
    code_use: str = ""
    vocabulary: "Vocabulary | None" = None


def read_index(folder: Path) -> dict[str, Any]:
    """The settings in the `model_index.json` of a pipeline's folder.

    Raises:
        MagiError: there is no such file, or it is one of another class.
    """
    if not (folder / INDEX_FILE).exists():
        raise MagiError(f"{folder}: not the folder of a model: it has no {INDEX_FILE}")
    index = read_json(folder / INDEX_FILE)
    if class_name(index) not in PIPELINES:
        raise MagiError(f"{folder}: not a {PIPELINES[0]} but {class_name(index)!r}")
    settings = {name: value for name, value in index.items() if not name.startswith("_")}
    former = {name: settings.pop(name) for name in FORMER_SAMPLING if name in settings}
    if former:
        settings["sampling"] = {name: value for name, value in former.items() if value is not None}
    return settings


def describe_model(name: str | Path) -> Description:
    """Describe a model given by its folder, its hub id or the name of a shipped one.

    Raises:
        MagiError: there is no such model, a file of it is missing, or its weights are not those that it describes.
    """
    folder = resolve_model(name)
    settings = {name: value for name, value in read_index(folder).items() if value is not None}
    settings = DEFAULTS | settings
    architecture = read_architecture(folder / "transformer")
    check_settings(settings, architecture, None, str(folder / INDEX_FILE))
    if settings["forcing"] not in tuple(declared("paradigms")):
        raise MagiError(f"{folder}: unknown forcing {str(settings['forcing'])[:60]!r}")
    config = read_json(folder / "codec" / "config.json")
    codec = class_name(config)
    known = [values[CLASS] for values in declared("codecs").values()]
    if codec not in known:
        raise MagiError(f"{folder / 'codec'} holds {codec}; expected a codec: {', '.join(known)}")
    stored = stored_shapes(weight_files(folder / "codec", WEIGHTS))
    parameters = sum(math.prod(shape) for _, shape in stored)
    vocabulary = None
    if TEXT in architecture.specs:
        from magi_video.files.words import read_vocabulary  # most models take no text

        vocabulary = read_vocabulary(folder / ENCODER_FOLDER)
    return Description(settings, architecture, codec, parameters, read_use(config), vocabulary)


def check_settings(settings: dict[str, Any], architecture: Architecture, codec: LatentSizes | None, where: str) -> None:
    """Refuse the settings of a model's `model_index.json` that make no sense or do not fit its transformer and codec
    (where that is loaded).

    Raises:
        MagiError: which setting, and what was expected.
    """

    def refuse(name: str, expected: str) -> None:
        raise MagiError(f"{where}: {name} is {str(settings.get(name))[:60]}; expected {expected}")

    for name in ("height", "width"):
        value = settings.get(name, 1)
        if type(value) is not int or not 1 <= value <= MAX_SETTING:
            refuse(name, f"a whole number from 1 to {MAX_SETTING}")
    own = from_json(Sampling, settings.get("sampling") or {}, f"{where}: sampling")
    if own.first_step is not None:
        try:
            check_first_step(architecture.head, own.first_step)
        except MagiError as error:
            raise MagiError(f"{where}: {error}") from None
    rate = settings.get("frame_rate", 1)
    if type(rate) not in (int, float) or not 0 < rate <= MAX_SETTING:
        refuse("frame_rate", "a number of frames/s above 0")
    for name, condition in (("action_names", "action"), ("class_names", "label")):
        names = settings.get(name) or []
        if not isinstance(names, list) or not all(isinstance(one, str) and one.isprintable() for one in names):
            refuse(name, "a list of names")
        spec = architecture.specs.get(condition)
        if names and len(names) != (spec.size if spec else 0):
            refuse(name, f"{spec.size if spec else 'no'} names, as the transformer knows")
    if not isinstance(settings.get("training") or {}, dict):
        refuse("training", "an object")
    if codec is None:
        return
    latent = (codec.latent_channels, *codec.latent_size(settings.get("height", 256), settings.get("width", 256)))
    if latent != (architecture.latent_channels, architecture.latent_height, architecture.latent_width):
        refuse("height", f"the size whose latents the transformer makes, not {latent[0]} channels of {latent[1:]}")


def read_use(config: dict[str, Any]) -> str:
    """What a codec's `config.json` says of the use of its codes, in words; "" if it has none."""
    share, perplexity = config.get("codes_used"), config.get("perplexity")
    if not isinstance(share, int | float) or not isinstance(perplexity, int | float):
        return ""
    return f"{share:.0%} of them used, perplexity {perplexity:,.0f}"


def read_architecture(folder: Path) -> Architecture:
    """The architecture in a transformer's folder, whose weights have the shapes that it asks for.

    Raises:
        MagiError: they have not, or the folder holds no transformer.
    """
    config = read_json(folder / "config.json")
    if class_name(config) not in TRANSFORMERS:
        raise MagiError(f"{folder} holds {class_name(config)}; expected {TRANSFORMERS[0]}")
    architecture = architecture_of(config, str(folder))
    files = weight_files(folder, WEIGHTS)
    if not files:
        raise MagiError(f"{folder}: no {WEIGHTS}.safetensors there")
    check_shapes(weight_shapes(architecture), files, folder)
    return architecture


def model_facts(model: str) -> dict[str, Any]:
    """A model's parameters, paradigm, codec, data and training, as JSON values."""
    described = describe_model(model)
    settings, architecture, training = described.settings, described.architecture, described.settings["training"]
    head, row = parameters_by_part(architecture)["head"], declared("paradigms")[settings["forcing"]]
    return {
        "model": model,
        "forcing": settings["forcing"],
        "forcing_options": settings["forcing_options"],
        "paradigm": _table1_columns(row),
        "frame": f"{settings['height']}×{settings['width']} pixels, {architecture.num_tokens} tokens of "
        f"{architecture.token_dim}",
        "trained_frames": architecture.num_frames,
        "intervals": spanned(1, architecture.max_interval),
        "frame_rate": settings["frame_rate"],
        "temporal_position": architecture.temporal_position,
        "transformer_parameters": sum(parameters_by_part(architecture).values()) - head,
        "head": _head(architecture),
        "head_parameters": head,
        "codec": described.codec,
        "codec_parameters": described.codec_parameters,
        **({"codes": described.code_use} if described.code_use else {}),
        "latent": f"{architecture.latent_channels}×{architecture.latent_height}×{architecture.latent_width}",
        "conditions": list(architecture.specs),
        "actions": list(settings["action_names"]),
        "classes": list(settings["class_names"]),
        **({} if described.vocabulary is None else {"words": described.vocabulary.words}),
        **own_steps(settings, architecture),
        **_other_sampling(settings["sampling"], row, architecture),
        "training_steps": training.get("steps"),
        "training_seed": training.get("seed"),
        "training_data": training.get("data"),
        **_distilled(training),
        "metrics": training.get("metrics"),
    }


def own_steps(settings: dict[str, Any], architecture: Architecture) -> dict[str, int | None]:
    """A model's own mask and denoise steps; None of those that its paradigm does not have.

    Args:
        settings: of the pipeline.
        architecture: of the transformer.
    """
    own, row = vars(Sampling.of(None, **settings["sampling"]).complete()), declared("paradigms")[settings["forcing"]]
    if architecture.codes:
        own = own | {"denoise_steps": 1}  # codes are drawn, not denoised
    return {name: own[name] if row.get("steps", {}).get(name) != 0 else None for name in STEPS}


def _distilled(training: dict[str, Any]) -> dict[str, Any]:
    """Which head the few-step head learned from, where a model has one."""
    record, wanted = training.get("distilled"), ("model", "head", "sampler", "denoise_steps", "energy_distance")
    return {"distilled": {name: record.get(name) for name in wanted}} if isinstance(record, dict) else {}


def _other_sampling(sampling: dict[str, Any], row: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Its own choices besides the steps, as far as its head, its paradigm and its conditions make use of them."""
    useless = set(STEPS)
    if architecture.codes:
        useless |= {"sampler", "first_step"}
    else:
        useless |= {"top_k", "top_p", "order", "choice_temperature"}
    if row.get("steps", {}).get("mask_steps") == 0:
        useless |= {"order", "choice_temperature", "refresh"}
    if not row.get("frame_cache", True):
        useless.add("refresh")
    guided = [name for name in (LABEL, TEXT, ACTION) if name in architecture.specs]
    if not guided:
        useless |= {"guidance_scale", "guidance_schedule", "guide"}
    found = {name: value for name, value in sampling.items() if name not in useless}
    return found | {name: [one for one in found[name] if one in guided] for name in ("guide",) if name in found}


def _head(architecture: Architecture) -> str:
    """Its kind and sizes."""
    if architecture.head == "velocity":
        return f"{architecture.head}, a linear layer"
    if architecture.codes:
        return f"{architecture.head}, {architecture.codes} codes"
    return f"{architecture.head}, {architecture.head_depth} blocks of {architecture.head_width}"


def _table1_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Its columns in the paper's table 1."""
    return {
        "makes a": row["unit"],
        "time": row["temporal_attention"],
        "cache": "yes" if row["cached"] else "no",
        "context": "any" if row["variable_context"] else "fixed",
        "past in training": row["past"],
    }
