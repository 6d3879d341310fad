"""One process or many, started by `accelerate launch` or `torchrun`: who does what, and bringing results together.

Results travel as objects over gloo, whatever the devices are. A mistake in one process is raised in all of them, so
that none waits for ever.
"""

from __future__ import annotations

import atexit
import datetime
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Full, Queue
from typing import Any, TypeVar

import torch
from torch import Tensor

from magi_video.errors import MagiError

S = TypeVar("S")
T = TypeVar("T")
PIECES_AHEAD = 4
"""Of one job of `run_ahead`, waiting to be taken."""
PATIENCE = datetime.timedelta(days=7)
"""How long a process waits for the others: they may be hours apart."""
STALL = datetime.timedelta(hours=1)
"""How long training waits for a gradient of the others: they are steps apart. Then a hung job fails."""


def find_device(device: str | torch.device) -> torch.device:
    """A device that is there; "auto" is a GPU, or else the CPU.

    Raises:
        MagiError: this machine does not have it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(str(device).split(":")[0], False):
        there = ", ".join(name for name, present in available.items() if present)
        raise MagiError(f"device {str(device)!r} is not available here: there is {there}")
    return torch.device(device)


class Processes:
    """The processes of this run.

    Args:
        device: "auto", "cpu", "cuda" or "mps"; with many processes each takes its own GPU.

    Attributes:
        index: number of this process, 0 for the main one.
        count: how many there are.
        device: where this process computes.
    """

    def __init__(self, device: str | torch.device = "auto") -> None:
        self.index, self.count, self._group = 0, 1, None
        self.device = find_device(device)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            if not torch.distributed.is_initialized():
                atexit.register(_leave)
            state = PartialState(cpu=self.device.type == "cpu", timeout=STALL)
            self.index, self.count = state.process_index, state.num_processes
            if self.device.type != "cpu":
                self.device = state.device
            self._group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.index == 0

    def mine(self, number: int) -> range:
        """The items of 0…number − 1 that this process does."""
        return range(self.index, number, self.count)

    def each(self, work: Callable[[], T]) -> list[T]:
        """Every process does its work; all get everybody's result, in the order of the processes."""
        result, error = _attempt(work)
        if self.count == 1:
            return [_raised(result, error)]
        gathered: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(gathered, (result if error is None else None, error), group=self._group)
        first = next((error for _, error in gathered if error is not None), None)
        return [_raised(one, first) for one, _ in gathered]

    def together(self, work: Callable[[], T]) -> T:
        """Every process does the work and keeps its own result."""
        result, error = _attempt(work)
        self.each(lambda: _raised(None, error))
        return _raised(result, error)

    def main_first(self, work: Callable[[], T]) -> T:
        """As `together`, but the others begin when the main process is done: they find its downloads and indices."""
        result, error = _attempt(work) if self.main else (None, None)
        self.each(lambda: _raised(None, error))
        if not self.main:
            result, error = _attempt(work)
        self.each(lambda: _raised(None, error))
        return result  # type: ignore[return-value]

    def to_main(self, work: Callable[[], T]) -> list[T]:
        """Every process does its work; the main one gets everybody's result, the others an empty list."""
        result = self.together(work)
        if self.count == 1:
            return [result]
        gathered: list[Any] | None = [None] * self.count if self.main else None
        torch.distributed.gather_object(result, gathered, dst=0, group=self._group)
        return gathered or []

    def gather(self, values_MX: Tensor) -> Tensor:
        """Every process's values `[M, …]` on its device, one process's after the other's: `[processes · M, …]`."""
        if self.count == 1:
            return values_MX
        every = [torch.empty_like(values_MX) for _ in range(self.count)]
        torch.distributed.all_gather(every, values_MX.contiguous())
        return torch.cat(every)

    def once(self, work: Callable[[], T]) -> T:
        """The main process does the work while the others wait; all get its result."""
        return self.each(lambda: work() if self.main else None)[0]  # type: ignore[return-value]


def side_by_side(count: int, device: torch.device, most: int | None = None) -> int:
    """How many of so many items `one_by_one` works on at a time; each has one core of a CPU.

    Args:
        count: of items.
        device: where they compute; a GPU does them one after the other.
        most: bound on the cores.
    """
    return 1 if device.type != "cpu" else max(1, min(torch.get_num_threads(), count, most or count))


def one_by_one(
    work: Callable[[S], T], items: Sequence[S], device: torch.device, most: int | None = None
) -> Iterator[T]:
    """`work` for every item, the results in order. On a CPU each item has one core, and cores work side by side.

    How many cores share one product decides how its sums are grouped, so results that may not depend on the number of
    cores or processes are each computed on one.

    Args:
        work: for one item; runs in a thread.
        items: what is to be done.
        device: where it computes; on a GPU items are done one after the other.
        most: bound on the cores, where an item needs much memory.
    """
    threads = torch.get_num_threads()
    workers = side_by_side(len(items), device, most)
    if workers == 1:
        torch.set_num_threads(1 if device.type == "cpu" else threads)
        try:
            yield from map(work, items)
        finally:
            torch.set_num_threads(threads)
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def run_ahead(jobs: Iterable[Callable[[], Iterator[Any]]], workers: int) -> Generator[Iterator[Any]]:
    """What each job yields, job after job, while `workers` threads work ahead: a job each, a few pieces of it.

    Each thread computes on one core, so that no result depends on how many there are. Every iterator must be used up
    before the next is taken; an error in a job is raised in its iterator.
    """
    end, stopped, threads = object(), threading.Event(), torch.get_num_threads()

    def put(queue: Queue[Any], piece: Any) -> None:
        while not stopped.is_set():
            try:
                return queue.put(piece, timeout=0.2)
            except Full:
                continue

    def produce(job: Callable[[], Iterator[Any]], queue: Queue[Any]) -> None:
        try:
            for piece in job():
                put(queue, piece)
                if stopped.is_set():
                    return
            put(queue, end)
        except BaseException as error:
            put(queue, error)

    def consume(queue: Queue[Any]) -> Iterator[Any]:
        while (piece := queue.get()) is not end:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    begun: deque[Queue[Any]] = deque()
    try:
        for job in jobs:
            queue: Queue[Any] = Queue(PIECES_AHEAD)
            pool.submit(produce, job, queue)
            begun.append(queue)
            if len(begun) > workers:
                yield consume(begun.popleft())
        while begun:
            yield consume(begun.popleft())
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _leave() -> None:
    """Without this a process that ends first may take the others down."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except (MagiError, OSError) as error:
        return None, error


def _raised(result: Any, error: Exception | None) -> Any:
    if error is not None:
        raise error
    return result
