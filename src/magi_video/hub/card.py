"""The model card of a model: README.md with the hub's metadata, written from what the model itself records."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from magi_video.codecs.sizes import LatentSizes
from magi_video.errors import counted, spanned
from magi_video.exposure.memory import FrameMemory
from magi_video.files.shapes import parameters_by_part
from magi_video.models.architecture import ACTION, LABEL, TEXT
from magi_video.pipeline.description import Description, own_steps
from magi_video.registry import declared
from magi_video.sampling.sampling import Sampling

LIBRARY = "magi-video"
"""Names of the data sets that a preset can ask for."""
SOURCES = {
    "vizdoom/": "Recorded in [ViZDoom](https://vizdoom.farama.org) with the [Freedoom](https://freedoom.github.io) "
    "assets (BSD).",
    "procgen/": "Recorded in [Procgen](https://github.com/openai/procgen) (MIT).",
    "ALE/": "Recorded in the [Arcade Learning Environment](https://ale.farama.org); its games are their makers'.",
}
"""What the games that a model was trained on ask to be said, by how their names begin."""


def model_card(
    model: Description,
    sizes: LatentSizes,
    name: str,
    metrics: Sequence[Mapping[str, Any]] = (),
    license_id: str | None = None,
    datasets: Sequence[str] = (),
) -> ModelCard:
    """The card of a model.

    Args:
        model: what its folder describes; its setting "training" says how it was made.
        sizes: of its codec's latents.
        name: what it is loaded by: a hub id, or a shipped model's name.
        metrics: contents of `metrics.json` files of `magi evaluate`.
        license_id: of the weights, as the hub spells it ("apache-2.0"); None if its makers have not said.
        datasets: hub ids of the data sets it was trained on.
    """
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag="text-to-video" if TEXT in model.architecture.specs else "image-to-video",
        license=license_id,
        tags=tags(model),
        datasets=list(datasets) or None,
        model_name=name.rpartition("/")[2] if metrics else None,
        eval_results=eval_results(metrics) or None,
    )
    parts = [
        f"# {_plain(name.rpartition('/')[2])}",
        summary(model),
        "## How to use",
        usage(model, name),
        "## Model",
        table(("", ""), model_facts(model, sizes)),
        "## Training",
        training(model),
        "## Scores",
        scores(metrics),
        "## Limits",
        limits(model, sizes),
        "## Licence",
        licence(model, license_id),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def tags(model: Description) -> list[str]:
    """What the hub finds the model by."""
    found = ["video-generation", "autoregressive", "masked-modeling", "diffusion", "magi"]
    found.append(f"{model.settings['forcing']}-teacher-forcing")
    found += ["world-model"] if ACTION in model.architecture.specs else []
    return found


def eval_results(metrics: Sequence[Mapping[str, Any]]) -> list[EvalResult]:
    """FVD and FID of each result, in the form of the hub's model index."""
    found = []
    for result in metrics:
        protocol = _plain(_protocol(result).get("name", "unknown protocol"))
        for figure in ("fvd", "fid"):
            if isinstance(result.get(figure), int | float):
                found.append(
                    EvalResult(
                        task_type="image-to-video",
                        dataset_type="video",
                        dataset_name=f"{protocol}, {result.get('num_fake')} clips",
                        metric_type=figure,
                        metric_name=figure.upper(),
                        metric_value=float(result[figure]),
                    )
                )
    return found


def summary(model: Description) -> str:
    """A paragraph on what the model is."""
    forcing, height, width = (model.settings[name] for name in ("forcing", "height", "width"))
    paradigm = declared("paradigms").get(forcing, {"title": _plain(forcing)})["title"]
    controls = ", under actions" if ACTION in model.architecture.specs else ""
    controls += ", of a class" if LABEL in model.architecture.specs else ""
    controls += ", from words" if TEXT in model.architecture.specs else ""
    return (
        f"Generates video of {height}×{width} pixels frame by frame{controls}: each frame by "
        f"masked diffusion. Paradigm: {paradigm}. "
        "See [arXiv 2501.12389](https://arxiv.org/abs/2501.12389)."
    )


def usage(model: Description, name: str) -> str:
    """A snippet that runs as it is."""
    lines = ["import numpy as np", "import torch", "from magi_video import MagiVideoPipeline", ""]
    lines += [f'pipe = MagiVideoPipeline.from_pretrained("{_plain(name)}")']
    size = f"({model.settings['height']}, {model.settings['width']}, 3)"
    lines.append(f"first_frame = np.zeros({size}, np.uint8)  # or a PIL image of any size")
    arguments = ""
    if names := list(model.settings["action_names"]):
        lines.append(f'actions = [pipe.action("{_plain(names[0])}")] * 32  # the one that leads to each frame, or None')
        arguments = " actions=actions,"
    if TEXT in model.architecture.specs:
        text = "a sentence" if model.vocabulary is None else _plain(model.vocabulary.example)
        arguments += f' text="{text}",'
    lines += [
        "video = pipe(",
        f"    image=first_frame, num_frames=32,{arguments} generator=torch.Generator().manual_seed(0)",
        ").frames[0]  # [frames, height, width, 3] in [0, 1]",
    ]
    commands = [
        f"magi generate {_plain(name)} --first-frame first.png --frames 100 --out samples",
        f"magi serve {_plain(name)}  # watch it, play it",
    ]
    return "\n".join(["```python", *lines, "```", "", "```bash", *commands, "```"])


def model_facts(model: Description, sizes: LatentSizes) -> list[tuple[str, str]]:
    """Rows on the network and the codec."""
    network, config = model.architecture, model.settings
    parts = parameters_by_part(network)
    head, rate = parts.pop("head"), _number(config["frame_rate"])
    position = network.temporal_position
    length = "without end" if position == "rope" else "fixed at the start, positions interpolated beyond training's"
    words = {"mask_steps": "mask step", "denoise_steps": "denoise step"}
    steps = {words[name]: count for name, count in own_steps(config, network).items() if count}
    rows = [
        ("Parameters", f"{_millions(sum(parts.values()))} transformer, {_millions(head)} diffusion head"),
        ("Codec", f"`{model.codec}`, {_millions(model.codec_parameters)} parameters"),
        ("Latent frame", f"{network.latent_channels}×{network.latent_height}×"
                         f"{network.latent_width}, {network.num_tokens} tokens"),
        ("Time", f"{counted(sizes.temporal_factor, 'frame')} a latent frame; {rate} frames/s at interval 1"),
        ("Intervals", spanned(1, network.max_interval)),
        ("Length", f"trained on {counted(sizes.num_pixel_frames(network.num_frames), 'frame')}; rollouts {length}"),
        ("Steps a frame", ", ".join(counted(count, what) for what, count in steps.items())),
    ]  # fmt: skip
    if kept := kept_in_sight(model, sizes):
        rows.append(("In sight", kept))
    if config["action_names"]:
        rows.append(("Actions", ", ".join(f"`{_plain(name)}`" for name in config["action_names"])))
    if config["class_names"]:
        rows.append(("Classes", f"{len(config['class_names'])}"))
    return rows


def training(model: Description) -> str:
    """Data and recipe, as far as they are recorded."""
    record = model.settings["training"] or {}
    preset, data = _mapping(record, "preset"), _mapping(record, "data")
    recipe, clips = _mapping(preset, "train"), _mapping(preset, "data")
    if not preset:
        return "Not recorded."
    data_sets = declared("data")
    dataset = data_sets.get(str(clips.get("dataset")), data_sets["folder"])["title"]
    games = [_plain(one) for one in _items(data, "games")]
    source = f"Gameplay of {', '.join(games)}" if games else dataset
    amounts = [counted(data[f"{unit}s"], unit) for unit in ("video", "frame") if isinstance(data.get(f"{unit}s"), int)]
    rows = [("Data", f"{source}{': ' if amounts else ''}{', '.join(amounts)}")]
    wanted = {
        "Steps": ("steps", recipe), "Clips a step": ("batch_size", recipe), "Learning rate": ("learning_rate", recipe),
        "Weight decay": ("weight_decay", recipe), "Average of weights": ("ema_decay", recipe),
        "Precision": ("precision", recipe), "Frames of a clip": ("num_frames", clips),
        "Largest interval": ("max_interval", clips),
    }  # fmt: skip
    rows += [(title, _plain(group[key])) for title, (key, group) in wanted.items() if key in group]
    rows += [("Steps made", _plain(record["steps"]))] if "steps" in record else []
    rows += [("Seed", _plain(record["seed"]))] if "seed" in record else []
    if few := _mapping(record, "distilled"):
        old = " ".join(_plain(few.get(name)) for name in ("head", "sampler", "denoise_steps"))
        rows.append(("Few-step head", f"distilled from {_plain(few.get('model'))}: {old} steps"))
    return table(("", ""), rows) + "\n\nThe whole recipe is in `model_index.json`, under `training`."


def scores(metrics: Sequence[Mapping[str, Any]]) -> str:
    """A table of figures; each needs its protocol to mean anything."""
    if not metrics:
        return "None recorded. Measure your own: `magi evaluate MODEL --data DIR --protocol NAME --out evaluation`."
    rows = []
    for result in metrics:
        protocol = _protocol(result)
        clips = f"{_number(result.get('num_real'))} real, {_number(result.get('num_fake'))} generated"
        size = f"{_number(protocol.get('frames'))} × {_number(protocol.get('interval'))}"
        figures = [_number(result.get(figure)) for figure in ("fvd", "fid")]
        paired = [_number(_mapping(result, "paired").get(name)) for name in ("psnr", "ssim", "lpips")]
        rows.append((_plain(protocol.get("name", "?")), clips, size, *figures, *paired))
    head = ("protocol", "clips", "frames × interval", "FVD", "FID", "PSNR", "SSIM", "LPIPS")
    warnings = sorted({_plain(text) for result in metrics for text in _items(result, "warnings")})
    return "\n\n".join([table(head, rows), *(f"- {text}" for text in warnings)])


def limits(model: Description, sizes: LatentSizes) -> str:
    """What not to expect, from what the model is."""
    network, config = model.architecture, model.settings
    kept = kept_in_sight(model, sizes)
    trained = counted(sizes.num_pixel_frames(network.num_frames), "frame")
    if network.temporal_position != "rope":
        length = "Rollouts longer than the training clips are generated at interpolated positions, and get worse."
    elif kept:
        length = f"What leaves the picture is remembered while a frame that shows it is in sight, of these: {kept}; "
        length += "errors add up in long rollouts."
    else:
        length = f"What leaves the picture is remembered for at most {trained}; errors add up in long rollouts."
    lines = [
        "It has seen nothing but its training data: a first frame of another kind is continued as if it were of that.",
        f"Frames are {config['height']}×{config['width']} pixels; other pictures are cropped and resized.",
        length,
        f"Intervals beyond {network.max_interval} are refused.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def kept_in_sight(model: Description, sizes: LatentSizes) -> str:
    """The frames in sight of a model that keeps more than the latest ones (`FrameMemory`), in words; else ""."""
    network = model.architecture
    memory = FrameMemory.of(network.num_frames, Sampling.of(None, **model.settings["sampling"]))
    if memory is None or network.temporal_position != "rope":
        return ""
    frame = "frame" if sizes.temporal_factor == 1 else "latent frame"
    parts = [f"the first {frame if memory.sink == 1 else counted(memory.sink, frame)}"] if memory.sink else []
    if memory.strided:
        which = "one whose number is" if memory.strided == 1 else f"{memory.strided} whose numbers are"
        multiple = "a multiple" if memory.strided == 1 else "multiples"
        parts.append(f"of the older ones the latest {which} {multiple} of {memory.stride}")
    return ", ".join([*parts, f"the latest {counted(memory.latest, frame)}"])


def licence(model: Description, license_id: str | None) -> str:
    """Of the weights, and where the data came from if that asks to be named."""
    stated = f"The weights: {_plain(license_id)}." if license_id else "No licence of the weights is stated."
    games = _items(_mapping(model.settings["training"] or {}, "data"), "games")
    sources = [text for start, text in SOURCES.items() if any(str(one).startswith(start) for one in games)]
    return " ".join([stated, *sources])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: Any) -> str:
    """A recorded value as text that cannot be taken for Markdown, HTML or a second line."""
    return re.sub(r"[`<>|\[\]\\\"\x00-\x1f\x7f-\x9f]", " ", str(value))[:200]


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else "–"


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = record.get(key)
    return found if isinstance(found, Mapping) else {}


def _items(record: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = record.get(key)
    return found if isinstance(found, list | tuple) else ()


def _protocol(result: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(result, "protocol")


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} M"
