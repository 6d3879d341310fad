"""Networks that know how they were built: their arguments as a frozen `config`, and one folder to be saved in.

The conventions are those of diffusers (`config.json` with `_class_name`, weights in one safetensors file,
`from_config`, `save_pretrained`, `from_pretrained`) without its base classes: importing them takes longer than
importing PyTorch.
"""

import functools
import inspect
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from magi_video.errors import MagiError

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"

Arguments = ParamSpec("Arguments")
Owner = TypeVar("Owner", bound="Configured")


class FrozenConfig(Mapping[str, Any]):
    """Settings by name, `config["depth"]` or `config.depth`, that nobody changes."""

    __slots__ = ("_values",)
    _values: dict[str, Any]

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", dict(values))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no setting {name!r}; there are {', '.join(self._values)}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are frozen; change {name} with register_to_config")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"FrozenConfig({self._values!r})"

    def __reduce__(self) -> tuple[type["FrozenConfig"], tuple[dict[str, Any]]]:
        return FrozenConfig, (self._values,)


class Configured:
    """Has a `config`: what its constructor was given, under `capture_config`, and what was registered since."""

    config_name = CONFIG
    """File that the config is saved in."""
    _config = FrozenConfig({})

    @property
    def config(self) -> FrozenConfig:
        """The settings."""
        return self._config

    def register_to_config(self, **settings: Any) -> None:
        """Set or replace settings."""
        self._config = FrozenConfig({**self._config, **settings})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build from settings; those that the constructor does not know are left out."""
        known = inspect.signature(cls.__init__).parameters
        return cls(**{name: value for name, value in config.items() if name in known and name != "self"})

    def saved_config(self) -> dict[str, Any]:
        """What is written: the settings, and the name of the class."""
        return {"_class_name": type(self).__name__, **self.config}

    def save_config(self, save_directory: str | Path) -> None:
        """Write the config into a folder, which is made if needed."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.saved_config(), indent=2, sort_keys=True)
        (folder / self.config_name).write_text(text + "\n", encoding="utf-8")


def capture_config(
    init: Callable[Concatenate[Owner, Arguments], None],
) -> Callable[Concatenate[Owner, Arguments], None]:
    """Let a constructor's arguments, defaults included, be the config."""
    signature = inspect.signature(init)

    def captured(self: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        self.register_to_config(**dict(list(given.arguments.items())[1:]))
        init(self, *args, **kwargs)

    functools.update_wrapper(captured, init)
    return captured


class Network(Configured, nn.Module):
    """A module with a config, that one folder holds."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights (of the buffers, where there are none)."""
        return next((one.dtype for one in self._tensors() if one.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Of the weights (of the buffers, where there are none)."""
        return next((one.device for one in self._tensors()), torch.device("cpu"))

    def _tensors(self) -> Iterator[torch.Tensor]:
        yield from self.parameters()
        yield from self.buffers()

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `config.json` and, where there are weights, one safetensors file, in the precision that they have."""
        self.save_config(save_directory)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        if weights:
            save_file(weights, Path(save_directory) / WEIGHTS, {"format": "pt"})

    @classmethod
    def from_pretrained(cls, folder: str | Path, torch_dtype: torch.dtype = torch.float32) -> Self:
        """Load from a folder written by `save_pretrained`, in evaluation mode.

        Nothing is unpickled. Files of others are checked first by `magi_video.files.weights.load_strictly`.

        Raises:
            MagiError: the weights are not those that the config describes.
        """
        folder = Path(folder)
        file = folder / WEIGHTS
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return cls.from_weights(config, [file] if file.exists() else [], torch_dtype, str(folder))

    @classmethod
    def from_weights(cls, config: Mapping[str, Any], files: Sequence[Path], dtype: torch.dtype, where: str) -> Self:
        """Build from settings, with the weights of safetensors files, in evaluation mode.

        No random number is drawn, and no weight is held twice.

        Args:
            config: as for `from_config`.
            files: with the weights.
            dtype: of all floating-point weights and buffers.
            where: named in errors.

        Raises:
            MagiError: the weights are not those that the config describes.
        """
        with weightless():
            network = cls.from_config(config)
        missing = network.state_dict()
        loaded: dict[str, torch.Tensor] = {}
        for file in files:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118  (no mapping)
                    expected = missing.pop(name, None)
                    if expected is None:
                        raise lacking(where, "unexpected", name)
                    if list(expected.shape) != stored.get_slice(name).get_shape():
                        raise lacking(where, "mismatched", name)
                    weight = stored.get_tensor(name)
                    # A copy: what was read is mapped from the file, which may be replaced.
                    loaded[name] = weight.to(dtype if expected.is_floating_point() else expected.dtype, copy=True)
        if missing:
            raise lacking(where, "missing", sorted(missing)[0])
        network.load_state_dict(loaded, assign=True)
        return network.to(dtype).eval()


def lacking(where: str, problem: str, name: str) -> MagiError:
    """The error about weights that a config does not describe, by the first that is missing, unexpected or of another
    shape (mismatched)."""
    return MagiError(f"{where} does not hold the weights its config describes: {problem} {name}")


class Undrawn(TorchFunctionMode):
    """Nothing is drawn for tensors on the meta device: PyTorch would import its compiler to draw no numbers."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_"):
            tensor = args[0] if args else kwargs["tensor"]  # of the method, and of torch.nn.init
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def outlined() -> Iterator[None]:
    """Modules built meanwhile have shapes and no numbers: all of their tensors are on the meta device."""
    with Undrawn(), torch.device("meta"):
        yield


@contextmanager
def weightless() -> Iterator[None]:
    """Modules built meanwhile have buffers, and parameters without memory, on the meta device."""
    thread = threading.get_ident()

    def strip(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        if threading.get_ident() != thread:  # the hook is everyone's
            return parameter
        return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)

    hook = torch_module.register_module_parameter_registration_hook(strip)  # type: ignore[arg-type]  # it may return one
    try:
        with Undrawn():
            yield
    finally:
        hook.remove()
