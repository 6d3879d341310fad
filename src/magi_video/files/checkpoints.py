"""Training checkpoints: a folder a step, complete or not there at all, read without unpickling.

    checkpoints/step_00001000/model.safetensors … state.json

Everything is written beside its final place, flushed to the disk, and renamed. So a full disk, a kill or a power cut
leaves the previous checkpoint as the newest one.

Many processes write what one process writes: tensors that are sharded between them are gathered one at a time, and the
main process appends each to its file. Nobody holds more than one whole tensor, and any number of processes can go on
from the result. (`torch.distributed.checkpoint` writes in parallel, but what it writes is tied together by a pickle.)
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from magi_video.errors import MagiError
from magi_video.files.json import read_text

STATE_NAME = "state.json"
PIECE_BYTES = 2**24
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


@dataclass(frozen=True)
class Checkpoint:
    """One that is complete on disk.

    Attributes:
        folder: where it lies.
        step: optimiser steps done.
        state: the JSON values saved with it.
    """

    folder: Path
    step: int
    state: dict[str, Any]

    def file(self, name: str) -> Path:
        """Where the tensors saved under `name` lie."""
        return self.folder / f"{name}.safetensors"

    def tensors(self, name: str) -> Iterator[tuple[str, Tensor]]:
        """The tensors saved under `name` with their own names, one at a time, on the CPU.

        Raises:
            MagiError: the file was damaged after it was written.
        """
        try:
            with safe_open(self.file(name), framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    yield key, file.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise MagiError(f"{self.file(name)}: damaged ({error}); delete {self.folder} to go on without it") from None


def save_checkpoint(
    root: Path,
    step: int,
    tensors: dict[str, dict[str, Tensor]],
    state: dict[str, Any],
    keep: int = 2,
    *,
    writes: bool = True,
) -> Checkpoint:
    """Write a checkpoint and drop all but the newest `keep`.

    Args:
        root: folder of the run's checkpoints.
        step: optimiser steps done.
        tensors: file name (without suffix) → tensors by name, sharded or not.
        state: JSON values.
        keep: at least 1.
        writes: False in all processes but one, if there are many: they give their shards.

    Raises:
        MagiError: it cannot be written (disk full, folder read-only); older checkpoints are untouched. Raised in the
            process that writes.
    """
    final = checkpoint_folder(root, step)
    wholes = {name: map(whole, values.values()) for name, values in tensors.items()}
    if writes:
        part = root / f".part-{os.getpid()}"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            files = {}
            for name, values in tensors.items():
                file_name = f"{name}.safetensors"
                files[file_name] = write_tensors(part / file_name, values, wholes[name])
            content = {"step": step, "files": files, "state": state}
            text = json.dumps(content | {"crc32": digest(content)})
            (part / STATE_NAME).write_text(text, encoding="utf-8")
            for file in [*part.iterdir(), part]:
                flush_to_disk(file)
            if final.exists():  # damaged, or it would not be made again
                shutil.rmtree(final)
            part.rename(final)
            flush_to_disk(root)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            exhaust(wholes.values())
            raise MagiError(f"{final}: cannot save the checkpoint ({error}); earlier ones are kept") from None
        drop_old(root, final, keep)
    exhaust(wholes.values())
    return Checkpoint(final, step, state)


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"step_{step:08d}"


def checkpoint_steps(root: Path) -> list[int]:
    """The steps of which there are checkpoints, in order; whether they are whole is not looked at."""
    return sorted(int(digits) for folder in root.glob("step_*") if (digits := folder.name[5:]).isdecimal())


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from its shards; every process that holds one must call this."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that is to be sharded as `like` is; the tensor itself if that is not sharded."""
    if not isinstance(like, DTensor):
        return tensor
    # No source rank: every process has read the tensor, nothing is sent.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def exhaust(streams: Iterable[Iterator[Tensor]]) -> None:
    """Take what is left: the other processes wait for everyone to take part in gathering every tensor."""
    for stream in streams:
        for _ in stream:
            pass


def write_tensors(path: Path, tensors: dict[str, Tensor], wholes: Iterable[Tensor]) -> list[int]:
    """A safetensors file, tensor by tensor (the library's own function wants all of them at once).

    Args:
        path: the file.
        tensors: name → a tensor of the shape and type to be written.
        wholes: their values, in order.

    Returns:
        The file's size in bytes and its CRC-32.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    crc = zlib.crc32(head)
    with path.open("wb") as file:
        file.write(head)
        for value in wholes:
            data = value.cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            file.write(data)
            crc = zlib.crc32(data, crc)
    return [len(head) + end, crc]


def digest(content: dict[str, Any]) -> int:
    """CRC-32 of JSON values."""
    return zlib.crc32(json.dumps(content).encode())


def is_whole(path: Path, size: int, crc: int) -> bool:
    """Whether a file is what was written."""
    found = 0
    if path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            found = zlib.crc32(piece, found)
    return found == crc


def drop_old(root: Path, newest: Path, keep: int) -> None:
    """Remove all checkpoints but the newest one and the `keep` − 1 before it, and whatever was left half-written.

    Ones with a later step are damaged: training would have gone on from them.
    """
    others = [folder for folder in sorted(root.glob("step_*")) if folder != newest]
    before = [folder for folder in others if folder.name < newest.name]
    kept = before[max(0, len(before) - (keep - 1)) :]
    for folder in [*others, *root.glob(".part-*")]:
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def latest_checkpoint(root: Path) -> Checkpoint | None:
    """The newest one that is as it was written; ones that were damaged since are passed over.

    Raises:
        MagiError: there are some, but all are damaged: to begin again is not for us to decide.
    """
    folders = sorted(root.glob("step_*"), reverse=True)
    for folder in folders:
        try:
            content = json.loads(read_text(folder / STATE_NAME))
            crc = content.pop("crc32")
            whole = crc == digest(content) and folder.name == f"step_{content['step']:08d}"
            if whole and all(is_whole(folder / name, *facts) for name, facts in content["files"].items()):
                return Checkpoint(folder, content["step"], content["state"])
        except (MagiError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    if folders:
        raise MagiError(f"{root}: none of its checkpoints is as it was written; delete them to begin again")
    return None


def flush_to_disk(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors: "<parameter number>.<name>"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value) for index, one in state.items() for name, value in one.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Inverse of `optimizer_tensors`, each process taking its shards; hyper-parameters stay those of `optimizer`.

    Raises:
        MagiError: they are of another model.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors:
        index, _, name = key.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise MagiError(f"the checkpoint's optimiser has a parameter {key!r}; expected {len(parameters)} of them")
        parameter = parameters[int(index)]
        if value.ndim and value.shape != parameter.shape:
            raise MagiError(f"the checkpoint's {key} is {list(value.shape)}; expected {list(parameter.shape)}")
        if value.ndim:  # not the step: like its parameter, in memory layout too
            value = torch.empty_like(parameter).copy_(shard_like(value, parameter))
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def restore_tensors(targets: dict[str, Tensor], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copy saved tensors into tensors of the same names, each process taking its shards.

    Raises:
        MagiError: they are of another model.
    """
    missing = set(targets)
    with torch.no_grad():
        for name, value in tensors:
            if name not in targets or value.shape != targets[name].shape:
                there = list(targets[name].shape) if name in targets else "no such tensor"
                raise MagiError(
                    f"the checkpoint's {name} is {list(value.shape)}; expected {there} "
                    "(other actions or classes in the data make another model)"
                )
            targets[name].copy_(shard_like(value, targets[name]))
            missing.discard(name)
    if missing:
        raise MagiError(f"the checkpoint lacks {min(missing)}")
