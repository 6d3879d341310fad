"""Arrays and tensors of pickles that others wrote, by readers that make these and plain containers and nothing else."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magi_video.errors import MagiError

Arrays = dict[str, np.ndarray]
FindClass = Callable[[str, str], Any]
MAX_PICKLE_BYTES = 100_000_000
DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


def read_arrays(content: bytes) -> Arrays:
    """Numeric arrays of a pickle of nested dictionaries, by their keys joined by "/".

    Raises:
        MagiError: it asks for any class but numpy's array, holds anything but arrays, or is cut off.
    """
    try:
        value = _NumpyUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a pickle that is not one fails in many ways
        raise MagiError(f"a pickle that is not read: {error}") from None
    return _arrays(value)


def read_torchscript(content: bytes) -> Arrays:
    """Float32 parameters of a TorchScript file, by their names joined by "/"; none of its code is run.

    Raises:
        MagiError: it is not a TorchScript file of float32 parameters, or is cut off.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            archive = TorchArchive(file, _script_class)
            return _arrays(_read_script(archive.content(), archive))
    except zipfile.BadZipFile as error:
        raise MagiError(f"not a TorchScript file: {error}") from None


def _script_class(module: str, name: str) -> Any:
    """What stands for a class that a TorchScript file names: attributes without behaviour for its own."""
    if module.startswith("__torch__"):
        return type("_Module", (StandIn,), {})
    if (module, name) == ("torch.jit._pickle", "build_intlist"):
        return list
    raise pickle.UnpicklingError(f"it asks for {module}.{name}; only float32 tensors are admitted")


def _read_script(value: Any, archive: TorchArchive) -> Any:
    """The tensors of a module's attributes as arrays; what else it has is left out."""
    if isinstance(value, StandIn):
        parts = {name: part for name, part in value.attributes.items() if isinstance(part, StoredTensor | StandIn)}
        return {name: _read_script(part, archive) for name, part in parts.items()}
    if not isinstance(value, StoredTensor):
        return value
    if value.dtype is not torch.float32:
        raise MagiError("a pickle that is not read: a tensor that is not float32")
    return archive.read(value).numpy()


def _arrays(value: Any) -> Arrays:
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


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the archive."""

    key: str
    dtype: torch.dtype
    stored: int
    """Numbers in its storage."""
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    stored: int


class TorchArchive:
    """What PyTorch saved: a zip archive of a pickle and of raw tensors.

    Args:
        archive: the open file.
        find_class: gives what stands for a class of other names, by module and name; `StandIn` if not given.

    Raises:
        zipfile.BadZipFile: it is no such archive, or is cut off; so in the methods.
    """

    def __init__(self, archive: zipfile.ZipFile, find_class: FindClass | None = None) -> None:
        self.archive = archive
        self.find_class = find_class or (lambda *_: type("_Unknown", (StandIn,), {}))
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise zipfile.BadZipFile("no data.pkl in it")
        self.pickle, self.folder = pickles[0], pickles[0].removesuffix("data.pkl") + "data/"

    def content(self) -> Any:
        """What the pickle describes, tensors as `StoredTensor`."""
        if self.archive.getinfo(self.pickle).file_size > MAX_PICKLE_BYTES:
            raise zipfile.BadZipFile(f"its data.pkl is larger than {MAX_PICKLE_BYTES} bytes")
        try:
            return _TorchUnpickler(io.BytesIO(self.archive.read(self.pickle)), self.find_class).load()
        except Exception as error:  # a pickle that is not one fails in many ways
            raise zipfile.BadZipFile(f"a pickle that is not read: {error}") from None

    def read(self, tensor: StoredTensor) -> Tensor:
        """A tensor's numbers."""
        num_bytes = tensor.stored * tensor.dtype.itemsize
        last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
        # Tensors that overlap themselves would be larger in memory than in the file.
        if min((tensor.offset, last, *tensor.stride)) < 0 or max(last + 1, math.prod(tensor.shape)) > tensor.stored:
            raise zipfile.BadZipFile("a tensor beyond its storage")
        try:
            info = self.archive.getinfo(self.folder + tensor.key)
        except KeyError:
            raise zipfile.BadZipFile(f"no storage {tensor.key}") from None
        if info.file_size != num_bytes or info.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile(f"storage {tensor.key}: {info.file_size} bytes; expected {num_bytes}, stored")
        numbers = torch.frombuffer(bytearray(self.archive.read(info)), dtype=tensor.dtype)
        return numbers.as_strided(tensor.shape, tensor.stride, tensor.offset)


class StandIn(dict[Any, Any]):
    """Stands for an object of any class: its constructor and its state are ignored."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = {str(name): one for name, one in state.items()}

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        """Itself."""
        return self

    def append(self, _: Any) -> None:
        """Nothing."""

    def extend(self, _: Any) -> None:
        """Nothing."""


class _TorchUnpickler(pickle.Unpickler):
    """Containers, numbers, strings, notes about tensors; for the rest what `others` gives."""

    def __init__(self, file: io.BytesIO, others: FindClass) -> None:
        super().__init__(file)
        self.others = others

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        return self.others(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count = pid
        if not isinstance(dtype, torch.dtype) or not isinstance(count, int):
            raise pickle.UnpicklingError("a storage of unknown numbers")
        return _Storage(str(key), dtype, count)


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> StoredTensor:
    shape, steps = tuple(map(int, size)), tuple(map(int, stride))
    if len(shape) != len(steps) or len(shape) > 8:
        raise pickle.UnpicklingError("a tensor of unlike sizes and strides")
    return StoredTensor(storage.key, storage.dtype, storage.stored, int(offset), shape, steps)
