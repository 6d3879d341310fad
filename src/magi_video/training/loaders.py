"""What goes wrong in the processes that load data, told in a line."""

import multiprocessing
import multiprocessing.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from magi_video.errors import MagiError


@contextmanager
def loading_told(batches: Any, step: int) -> Iterator[None]:
    """While batches of a `DataLoader` are used.

    Args:
        batches: its iterator.
        step: optimiser steps done.

    Raises:
        MagiError: what a process raised, without its traceback; or one died, or gave nothing for `LOADER_SECONDS`.
    """
    try:
        yield
    except MagiError as error:
        raise MagiError(str(error).splitlines()[-1].split(f"{MagiError.__name__}: ", 1)[-1]) from None
    except RuntimeError as error:  # PyTorch raises it wherever the main process is when the other one dies
        if "DataLoader" not in str(error):
            raise
        told = " ".join(str(error).split())[:200]
        end_workers(batches)
        raise MagiError(f"loading data failed at step {step} ({told}); the same command continues") from None


@contextmanager
def workers_ended(batches: Any) -> Iterator[None]:
    """End the processes of a `DataLoader`'s iterator with what uses it, or when Python exits before.

    At exit Python sends SIGTERM to what is left and waits; but these processes do not heed it (`stopping.py`).
    """
    workers = list(getattr(batches, "_workers", ()))
    at_exit = multiprocessing.util.Finalize(None, _kill, args=(workers,), exitpriority=0)
    try:
        yield
    finally:
        at_exit.cancel()
        end_workers(batches)


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        worker.kill()


def end_workers(batches: Any) -> None:
    """End the processes for certain: one that hangs heeds no signal but SIGKILL, and would be waited for at exit."""
    workers = [worker for worker in getattr(batches, "_workers", ()) if worker in multiprocessing.active_children()]
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()  # PyTorch no longer watches them, and their death is no error
    for worker in workers:
        worker.kill()
        worker.join()
