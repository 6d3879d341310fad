"""The processes that load data: what each loads, what goes wrong, as one line, and their end."""

import multiprocessing
import multiprocessing.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.utils.data import DataLoader

from magi_video.data.clips import ClipDataset, ClipRequest, ClipSampler
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.files.limits import LOADER_SECONDS
from magi_video.training.stopping import ignore_stop_signals

MOST_SHOWN = 200
"""Characters of a message of others."""
FULL_SHARED_MEMORY = ("shared memory", "(shm)", "/torch_", "Bus error")
"""In what PyTorch says where no more batches fit into the memory that processes share."""
NO_MEMORY = ("signal: Killed", "Cannot allocate memory", "MemoryError", "Resource temporarily unavailable")
"""In what is said where the system ended a process, or let none begin."""


class _Endless:
    """A batch sampler without end."""

    def __init__(self, batches: Callable[[], Iterator[list[ClipRequest]]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        return self.batches()


def clip_loader(
    clips: ClipDataset, sampler: ClipSampler, micro: int, processes: Processes, workers: int
) -> DataLoader[dict[str, torch.Tensor]]:
    """A process's clips in the order of the sampler, without end.

    Args:
        clips: the data set.
        sampler: the order, for all processes together, from the run's position on.
        micro: clips in a batch of one process.
        processes: process r takes the r-th share of every group, so that the global order is everyone's.
        workers: processes that load; 0 for this one.
    """

    def requests() -> Iterator[list[ClipRequest]]:
        stream = iter(sampler)
        while True:
            group = [next(stream) for _ in range(micro * processes.count)]
            first = micro * processes.index
            yield group[first : first + micro]

    return DataLoader(
        clips,
        batch_sampler=_Endless(requests),
        num_workers=workers,
        persistent_workers=False,
        worker_init_fn=ignore_stop_signals,
        timeout=LOADER_SECONDS if workers else 0,
        prefetch_factor=4 if workers else None,
        pin_memory=processes.device.type == "cuda",
    )


@contextmanager
def loading_errors(step: int) -> Iterator[None]:
    """While batches of a `DataLoader` are used.

    Args:
        step: optimiser steps done.

    Raises:
        MagiError: what a process raised, without its traceback; or one died, or gave nothing for `LOADER_SECONDS`.
    """
    try:
        yield
    except MagiError as error:
        raise MagiError(str(error).splitlines()[-1].split(f"{MagiError.__name__}: ", 1)[-1]) from None
    except (RuntimeError, OSError, EOFError, MemoryError) as error:
        # PyTorch raises a RuntimeError wherever the main process is when another one dies; one that dies while it sends
        # a batch is met as the end of its connection (EOFError, or an OSError).
        if isinstance(error, RuntimeError | MemoryError) and "DataLoader" not in str(error):
            raise
        raise MagiError(f"loading data failed at step {step}: {loading_reason(error)}") from None


def loading_reason(error: Exception) -> str:
    """Why loading failed, and what helps, in a line: of a process's traceback its last line says it."""
    text = str(error) or ("a loading process ended while it sent a batch" if isinstance(error, EOFError) else "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = lines[-1] if "Traceback" in text else " ".join(lines)
    message = (message or type(error).__name__)[:MOST_SHOWN]
    if any(sign in text for sign in FULL_SHARED_MEMORY):
        more = "give --workers 0, or more of it (docker run --shm-size=8g)"
        return f"{message}; the shared memory (/dev/shm) is full: {more}"
    if any(sign in text for sign in NO_MEMORY):
        return f"{message}; perhaps for lack of memory: fewer --workers need less; the same command continues"
    return f"{message}; the same command continues"


@contextmanager
def workers_ended(batches: Any, step: Callable[[], int]) -> Iterator[None]:
    """End the processes of a `DataLoader`'s iterator with what uses it, or when Python exits before.

    At exit Python sends SIGTERM to what is left and waits; but these processes do not heed it (`stopping.py`).

    Args:
        batches: the iterator.
        step: gives the optimiser steps done.

    Raises:
        MagiError: a process died, and PyTorch reported it (in a signal handler) while something else was being done.
    """
    workers = list(getattr(batches, "_workers", ()))  # none where this process itself loads
    at_exit = multiprocessing.util.Finalize(None, _kill, args=(workers,), exitpriority=0)
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise MagiError(f"loading data failed at step {step()}: {loading_reason(error)}") from None
    finally:
        at_exit.cancel()
        if workers:
            with suppress(RuntimeError):  # a death may be reported only now; the error that ends the run stays
                batches._shutdown_workers()  # PyTorch no longer watches them, and their death is no error
        _kill(workers)


def _kill(workers: list[Any]) -> None:
    """For certain: a process that hangs heeds no signal but SIGKILL."""
    for worker in workers:
        worker.kill()
        worker.join()
