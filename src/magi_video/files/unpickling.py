"""Arrays out of other people's pickles, by readers that can make arrays and plain containers and nothing else."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from magi_video.errors import MagiError

Arrays = dict[str, np.ndarray]


def read_arrays(content: bytes) -> Arrays:
    """Numeric arrays of a pickle of nested dictionaries, by their keys joined by "/".

    Raises:
        MagiError: it asks for any class but numpy's array, holds anything but arrays, or is cut off.
    """
    return _arrays(_NumpyUnpickler(io.BytesIO(content)))


def read_torchscript(content: bytes) -> Arrays:
    """Float32 parameters of a TorchScript file, by their names joined by "/"; none of its code is run.

    Raises:
        MagiError: it is not a TorchScript file of float32 parameters, or is cut off.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _arrays(_ScriptUnpickler(archive))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise MagiError(f"not a TorchScript file: {str(error) or 'there is no data.pkl in it'}") from None


def _arrays(unpickler: pickle.Unpickler) -> Arrays:
    try:
        value = unpickler.load()
    except Exception as error:  # a pickle that is not one fails in many ways
        raise MagiError(f"a pickle that is not read: {error}") from None
    arrays = dict(_leaves(value, ""))
    if not arrays:
        raise MagiError("a pickle that is not read: there are no arrays in it")
    return arrays


def _leaves(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and name:
        yield name, np.ascontiguousarray(value)
    elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            yield from _leaves(item, f"{name}/{key}" if name else key)
    elif isinstance(value, _Module):
        parts = {key: part for key, part in vars(value).items() if isinstance(part, np.ndarray | _Module)}
        yield from _leaves(parts, name)
    else:
        raise MagiError(f"a pickle that is not read: {type(value).__name__} at {name or 'the top'}, not an array")


class _NumpyUnpickler(pickle.Unpickler):
    """Dictionaries, strings, numbers and numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; only numpy arrays are admitted")


class _Module:
    """Stands for any class of a TorchScript file: attributes without behaviour."""


class _ScriptUnpickler(pickle.Unpickler):
    """Attributes of modules; float32 tensors come as arrays, lists of numbers as they are."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        data = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        self.folder = data.removesuffix("data.pkl") + "data/"
        super().__init__(io.BytesIO(archive.read(data)))

    def find_class(self, module: str, name: str) -> Any:
        admitted = {
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch", "FloatStorage"): np.float32,
            ("torch.jit._pickle", "build_intlist"): list,
            ("collections", "OrderedDict"): dict,
        }
        if module.startswith("__torch__"):
            return _Module
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; only float32 tensors are admitted")
        return admitted[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count = pid
        if not isinstance(dtype, type) or dtype is not np.float32:
            raise pickle.UnpicklingError("a tensor that is not float32")
        return np.frombuffer(self.archive.read(f"{self.folder}{key}"), "<f4", count)

    @staticmethod
    def _tensor(storage: np.ndarray, offset: int, size: tuple[int, ...], *_: Any) -> np.ndarray:
        count = int(np.prod(size))
        return storage[offset : offset + count].reshape(size)
