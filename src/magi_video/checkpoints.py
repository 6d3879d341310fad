"""Training checkpoints: a folder a step, complete or not there at all, read without unpickling.

    checkpoints/step_00001000/model.safetensors … state.json

Everything is written beside its final place, flushed to the disk, and renamed. So a full disk, a kill or a power cut
leaves the previous checkpoint as the newest one.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from magi_video.errors import MagiError

STATE_NAME = "state.json"


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

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors saved under `name`, on the CPU."""
        return load_file(self.folder / f"{name}.safetensors")


def save_checkpoint(
    root: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], keep: int = 2
) -> Path:
    """Write a checkpoint and drop all but the newest `keep`.

    Args:
        root: folder of the run's checkpoints.
        step: optimiser steps done.
        tensors: file name (without suffix) → tensors by name.
        state: JSON values.
        keep: at least 1.

    Raises:
        MagiError: it cannot be written (disk full, folder read-only); older checkpoints are untouched.
    """
    final = root / f"step_{step:08d}"
    part = root / f".part-{os.getpid()}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, values in tensors.items():
            contiguous = {key: value.detach().contiguous().cpu() for key, value in values.items()}
            save_file(contiguous, part / f"{name}.safetensors")
        sizes = {file.name: file.stat().st_size for file in part.iterdir()}
        (part / STATE_NAME).write_text(json.dumps({"step": step, "sizes": sizes, "state": state}), encoding="utf-8")
        for file in [*part.iterdir(), part]:
            flush_to_disk(file)
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        flush_to_disk(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise MagiError(f"{final}: cannot save the checkpoint ({error}); earlier ones are kept") from None
    for old in sorted(root.glob("step_*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest_checkpoint(root: Path) -> Checkpoint | None:
    """The newest complete checkpoint; ones that were damaged since are passed over."""
    for folder in sorted(root.glob("step_*"), reverse=True):
        try:
            content = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
            complete = all((folder / name).stat().st_size == size for name, size in content["sizes"].items())
            if complete:
                return Checkpoint(folder, int(content["step"]), content["state"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
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


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`; hyper-parameters stay those of `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
