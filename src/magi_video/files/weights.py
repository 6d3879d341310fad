"""Reading model folders that others wrote: names resolved, configurations and weights checked, nothing unpickled.

A configuration is believed only as far as weights lie beside it: before anything is allocated the model is outlined on
PyTorch's meta device, which costs nothing, and the outline may not have more tensors or numbers than the files hold.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from magi_video.errors import MagiError, first_line
from magi_video.files.json import read_json
from magi_video.files.limits import MAX_JSON_BYTES, MAX_TENSORS, machine_memory

if TYPE_CHECKING:  # imported where a model is built: names and headers are read without it
    import torch

    from magi_video.files.shapes import Shape

SHIPPED = Path(__file__).parents[1] / "weights"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHTS = "diffusion_pytorch_model"
HEADER_BYTES = 8
MAX_QUOTED = 320
"""Characters of a message of others."""
MODULES_PER_TENSOR = 16
"""A layer has some parts without weights, but not without number."""
SPARE_NUMBERS = 2**20
"""Of buffers that are computed, not stored."""
MAX_NUMBER = 2**20
"""Of a whole number in a config of others: vocabularies are the largest, and a loop may run to it."""
MAX_LAYERS = 2**12
"""Of a whole number named after layers, of which each takes a library's config some microseconds or a module."""
NO_SIZES = ("theta", "base", "position_embeddings")
"""Ends of names that larger numbers may have: bases of rotary positions, and tables, which the outline weighs."""


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if (folder / "model_index.json").is_file())


def resolve_model(name: str | Path) -> Path:
    """Folder of a model given as a folder, the name of a shipped model, or a hub id (downloaded into the hub's cache).

    Raises:
        MagiError: there is no such model, or the hub cannot be reached.
    """
    check_model_name(name)
    if is_local(name):
        return Path(name) if Path(name).is_dir() else SHIPPED / str(name)
    return download_files(str(name), ["*.json", "*.safetensors"])


def is_local(name: str | Path) -> bool:
    """Whether a model is on this machine: a folder, or the name of a shipped model."""
    return Path(name).is_dir() or str(name) in shipped_models()


def is_hub_id(name: str | Path) -> bool:
    """Whether a name is spelt as the hub's ids are."""
    return HUB_ID.fullmatch(str(name)) is not None and not str(name).startswith(".")


def check_model_name(name: str | Path) -> None:
    """Raise a `MagiError` unless a name is that of a folder, of a shipped model, or spelt as an id of the hub."""
    if is_local(name) or is_hub_id(name):
        return
    from magi_video.presets import PRESETS  # for a message alone; a pipeline needs no recipes

    if str(name) in PRESETS:
        raise MagiError(
            f"{name} is a preset, a recipe without weights: magi train {name} makes a model of it, and "
            f"magi plan {name} says what that takes"
        )
    raise MagiError(
        f"no model {str(name)!r}: give a folder, a hub id, or one of {', '.join(shipped_models()) or 'none'}"
    )


def read_config(name: str, **place: Any) -> dict[str, Any]:
    """Read `config.json` of a folder or a hub id; `place` may hold subfolder and revision."""
    return read_json(_locate(str(name), place, ["config.json"]) / "config.json")


def class_name(config: dict[str, Any]) -> str:
    """The class that a config of diffusers names, fit for a message; "None" if it names none."""
    return str(config.get("_class_name"))[:60]


def load_strictly(model_class: Any, name: str, torch_dtype: torch.dtype | None = None, **place: Any) -> Any:
    """Load a network, ours (`models.configured`) or one of diffusers, in evaluation mode, in float32 by default.

    `place` may hold subfolder, revision and variant.

    Raises:
        MagiError: something is missing or damaged; the config describes other weights than there are, or more than
            this machine's memory holds; the weights are not safetensors, or not all finite.
    """
    import torch

    from magi_video.models.configured import Network

    torch_dtype = torch_dtype or torch.float32
    variant = place.get("variant")
    end = f"{variant}.safetensors" if variant else "safetensors"
    wanted = ["config.json", f"{WEIGHTS}.{end}", f"{WEIGHTS}*.index*.json", f"{WEIGHTS}-*-of-?????.{end}"]
    folder = _locate(str(name), place, wanted)
    where = f"{model_class.__name__} from {_where(str(name), place)}"
    try:
        config = read_json(folder / "config.json")
        files = weight_files(folder, WEIGHTS, variant)
        _check_outline(model_class, config, files, folder, torch_dtype)
        if issubclass(model_class, Network):
            model = model_class.from_weights(config, files, torch_dtype, _where(str(name), place))
        else:
            model = _from_diffusers(model_class, folder, variant, torch_dtype, _where(str(name), place))
    except MagiError as error:
        raise MagiError(_one_line(error)) from error
    except Exception as error:  # a config of wrong values fails wherever it is first used, in any way
        raise MagiError(f"cannot load {where}: {_one_line(error)}") from error
    check_finite(model, _where(str(name), place))
    return model


def _from_diffusers(model_class: Any, folder: Path, variant: str | None, dtype: torch.dtype, where: str) -> Any:
    """A network of diffusers; its own reader casts, shards and splits as its class needs it."""
    from magi_video.models.configured import lacking

    model, info = model_class.from_pretrained(
        str(folder), use_safetensors=True, torch_dtype=dtype, output_loading_info=True, variant=variant
    )
    for problem in ("missing", "unexpected", "mismatched"):
        if keys := sorted(map(str, info.get(f"{problem}_keys", []))):
            raise lacking(where, problem, keys[0])
    # diffusers notes where a module was loaded from and saves it along: a private path, nobody else's business.
    model.register_to_config(_name_or_path="")
    return model


def check_finite(model: torch.nn.Module, where: str) -> None:
    """Refuse weights with NaN or infinity among them."""
    import torch

    for key, weight in model.named_parameters():
        if weight.numel() and not torch.stack(weight.detach().aminmax()).isfinite().all():
            raise MagiError(f"{where}: {key} is not finite: a training that diverged, or damage")


def _check_outline(
    model_class: Any, config: dict[str, Any], files: list[Path], folder: Path, dtype: torch.dtype
) -> None:
    from magi_video.files.shapes import architecture_of, weight_shapes
    from magi_video.models.transformer import MagiVideoTransformer

    check_numbers(config, folder)
    if issubclass(model_class, MagiVideoTransformer):
        if not files:
            raise MagiError(f"cannot load {model_class.__name__} from {folder}: no {WEIGHTS}.safetensors there")
        check_shapes(weight_shapes(architecture_of(config, str(folder))), files, folder)
        check_memory(sum(stored_sizes(files)), dtype, folder)
        return
    sizes = stored_sizes(files)
    if not sizes:
        lack = f"cannot load {model_class.__name__} from {folder}: no {WEIGHTS}.safetensors there"
    else:
        lack = not_described(folder, sizes)
    outline(lambda: model_class.from_config(config), sizes, dtype, folder, lack)


def check_shapes(described: Iterable[tuple[str, Shape]], files: list[Path], folder: Path) -> None:
    """Refuse weights that have not the names and shapes that a config describes, from the files' headers.

    Args:
        described: by the config; it is read to the first that is not stored, however many there are.
        files: with the weights.
        folder: named in errors.

    Raises:
        MagiError: which weight.
    """
    stored = dict(stored_shapes(files))
    count = 0
    for name, shape in described:
        if stored.get(name) != shape:
            found = f"{name} is {list(stored[name])}, not {list(shape)}" if name in stored else f"missing {name}"
            raise MagiError(f"{folder} does not hold the weights its config describes: {found}")
        count += 1
    if count < len(stored):
        raise MagiError(f"{folder} holds {len(stored) - count} tensors that its config does not describe")


def check_memory(numbers: int, dtype: torch.dtype, where: Path) -> None:
    """Refuse weights of so many numbers together that this machine has no memory for them.

    Raises:
        MagiError: what they need, and what there is.
    """
    needed, memory = numbers * dtype.itemsize, machine_memory()
    if needed > memory:
        raise MagiError(f"{where}: needs {needed / 2**30:.1f} GiB; this machine has {memory / 2**30:.1f} GiB of memory")


def check_numbers(config: dict[str, Any], where: Path) -> None:
    """Refuse a config with whole numbers that are no sizes, or with quantised weights, before anything is built of it.

    Raises:
        MagiError: which number.
    """
    if "quantization_config" in config:
        raise MagiError(f"{where}: quantised weights; expected plain ones")
    waiting: list[tuple[str, Any]] = [("config.json", config)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(key), one) for key, one in value.items()]
        elif isinstance(value, list):
            waiting += [(name, one) for one in value]
        elif isinstance(value, int) and not name.endswith(NO_SIZES):
            most = MAX_LAYERS if "layers" in name or "depth" in name else MAX_NUMBER
            if abs(value) > most:
                raise MagiError(f"{where}: {name[:60]} is {value}; expected at most {most}")


def outline(
    build: Callable[[], Any],
    sizes: list[int],
    dtype: torch.dtype,
    where: Path,
    lack: str,
    missing: tuple[int, int] = (0, 0),
) -> Any:
    """A model on the meta device, where it costs nothing; refused if it has more than the weights beside its config.

    Args:
        build: makes it.
        sizes: of the stored tensors, in numbers.
        dtype: in which they will be held.
        where: named if they need more memory than this machine has.
        lack: the message about a model that has more than is stored.
        missing: tensors that need not be stored, and their numbers together.

    Raises:
        MagiError: it has more tensors or numbers than are stored; or more than this machine's memory holds.
    """
    import torch

    from magi_video.models.configured import outlined

    numbers = sum(sizes)
    check_memory(numbers, dtype, where)
    with torch.random.fork_rng(devices=[]), outlined(), _at_most(len(sizes) + missing[0], lack):
        made = build()
    described = sum(tensor.numel() for tensor in made.state_dict().values())
    computed = sum(buffer.numel() for buffer in made.buffers())
    if described > numbers + missing[1] or computed > numbers + SPARE_NUMBERS:
        raise MagiError(lack)
    return made


def not_described(folder: Path, sizes: list[int]) -> str:
    """The message about a config that describes more than these weights."""
    return (
        f"{folder} does not hold the weights its config describes, but fewer: "
        f"{len(sizes)} tensors of {sum(sizes)} numbers together"
    )


@contextmanager
def _at_most(tensors: int, lack: str) -> Iterator[None]:
    """While a model is built, let it have so many parameters, and not many more parts."""
    from torch.nn.modules import module as torch_module

    counts = {"parameters": 0, "parts": 0}
    most = {"parameters": tensors, "parts": MODULES_PER_TENSOR * (tensors + 1)}

    thread = threading.get_ident()

    def count(kind: str) -> None:
        counts[kind] += threading.get_ident() == thread  # the hooks are everyone's
        if counts[kind] > most[kind]:
            raise MagiError(lack)

    hooks = [
        torch_module.register_module_parameter_registration_hook(lambda *_: count("parameters")),
        torch_module.register_module_module_registration_hook(lambda *_: count("parts")),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def weight_files(folder: Path, stem: str, variant: str | None = None) -> list[Path]:
    """The safetensors files of a model, by its index if it has one; none where there is neither that nor a file.

    Args:
        folder: with the files.
        stem: of their names: `diffusion_pytorch_model` of diffusers, `model` of transformers.
        variant: "fp16" for example.

    Raises:
        MagiError: the index names anything but safetensors files beside it.
    """
    index = folder / f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json"
    single = folder / f"{stem}{f'.{variant}' if variant else ''}.safetensors"
    if not index.exists():
        return [single] if single.exists() else []
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise MagiError(f"{index}: expected a weight_map of file names")
    for name in named.values():
        if PurePath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise MagiError(f"{index}: names {name[:60]!r}; expected safetensors files beside it")
    return [folder / name for name in sorted(set(named.values()))]


def stored_sizes(files: list[Path]) -> list[int]:
    """How many numbers each tensor of a model's weights has, from the files' headers."""
    return [math.prod(shape) for _, shape in stored_shapes(files)]


def stored_shapes(files: list[Path]) -> list[tuple[str, Shape]]:
    """Name and shape of each tensor of a model's weights, from the files' headers."""
    shapes: list[tuple[str, Shape]] = []
    for file in files:
        shapes += header_shapes(file)
        if len(shapes) > MAX_TENSORS:
            raise MagiError(f"{file.parent}: more than {MAX_TENSORS} tensors")
    return shapes


def header_shapes(file: Path) -> list[tuple[str, Shape]]:
    """Name and shape of each tensor of a safetensors file, from its header; `MagiError` if it is no such file."""
    if not file.is_file():
        raise MagiError(f"{file}: no such regular file")
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(HEADER_BYTES), "little")
    if length > MAX_JSON_BYTES:
        raise MagiError(f"{file}: a header of {length} bytes; expected at most {MAX_JSON_BYTES}")
    try:
        # Refuses headers that overlap, leave gaps or go past the end; "numpy" since "pt" would import torch.
        with safe_open(file, framework="numpy") as tensors:
            return [(name, tuple(tensors.get_slice(name).get_shape())) for name in tensors.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise MagiError(f"{file}: not a whole safetensors file ({_one_line(error)})") from None


def _locate(name: str, place: dict[str, Any], files: list[str]) -> Path:
    """The folder with these files, of a folder's name or a hub id; those of the hub are fetched into its cache."""
    subfolder = place.get("subfolder") or ""
    local = name.startswith((".", "/", "~")) or name.count("/") != 1
    if Path(name).is_dir():
        return Path(name) / subfolder
    if local:
        raise MagiError(f"no folder {name}; expected a folder with config.json and safetensors weights, or a hub id")
    wanted = [f"{subfolder}/{file}" if subfolder else file for file in files]
    return download_files(name, wanted, place.get("revision")) / subfolder


def download_files(name: str, files: list[str], revision: str | None = None) -> Path:
    """The files of these patterns of a hub id, in the hub's cache; `MagiError` if they are not to be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except Exception as error:  # the hub client raises many kinds; all mean "not available"
        reason = first_line(error)
        raise MagiError(f"model {name!r}: no such folder, and not to be had from the hub ({reason})") from None


def _where(name: str, place: dict[str, Any]) -> str:
    return f"{name}/{place['subfolder']}" if place.get("subfolder") else name


def _one_line(error: Exception) -> str:
    # json's and safetensors' own messages are short; diffusers' run over several lines, the first says it.
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1] + "…"
