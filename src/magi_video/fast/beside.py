"""Work that goes on beside other work: a frame is decoded and written while the next one is predicted."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

T = TypeVar("T")


class Beside(Generic[T]):
    """One thread that works through items in their order, while its owner makes the next ones.

        with Beside(write, ahead=items_ahead(device)) as beside:
            for item in make():
                beside.put(item)

    That is what `work_beside` does where the items are an iterator.

    Leaving the block waits for the items that were put; leaving it by an exception drops those that wait. No thread
    is left either way. The thread computes as its owner does: with gradients or without, with as many CPU threads.

    Args:
        work: takes the items as an iterator, and uses each before it asks for the next. Runs in the thread.
        ahead: items that may wait while one is worked on; 0 works in turns: `put` then returns when the item is done.
        when_room: called in the thread whenever there is room for another item.
    """

    def __init__(
        self,
        work: Callable[[Iterator[T]], object],
        ahead: int = 1,
        when_room: Callable[[], object] = lambda: None,
    ) -> None:
        self._work, self._ahead, self._when_room = work, ahead, when_room
        self._items: deque[T] = deque()
        self._busy = self._complete = self._closed = self._over = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._settings = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="magi-beside", daemon=True)
        self._thread.start()

    @property
    def has_room(self) -> bool:
        """Whether `put` would return at once, or raise."""
        with self._changed:
            return self._over or self._held < max(1, self._ahead + 1)

    def put(self, item: T) -> None:
        """Hand over an item; waits for room. Nothing happens if `work` has returned.

        Raises:
            BaseException: what `work` raised, as it was raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._held <= self._ahead)
            if not self._over:
                self._items.append(item)
                self._changed.notify_all()
                if not self._ahead:
                    self._changed.wait_for(lambda: self._over or not self._held)
        self._raise()

    def finish(self) -> None:
        """Wait until all items are worked on, and end the thread; errors as of `put`."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()
        self._thread.join()
        self._raise()

    def settle(self) -> None:
        """`finish` after an error that is known already: another one is passed over."""
        with suppress(Exception):
            self.finish()

    def close(self) -> None:
        """Drop the items that wait and end the thread, after the item at hand."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()

    @property
    def _held(self) -> int:
        return len(self._items) + self._busy

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        inference, gradients, threads = self._settings
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                self._work(self._take())
        except _ClosedError:
            pass
        except BaseException as error:
            self._error = error
        with self._changed:
            self._items.clear()
            self._busy, self._over = False, True
            self._changed.notify_all()
        self._when_room()

    def _take(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            self._when_room()
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._complete or self._closed)
                if self._closed:
                    raise _ClosedError
                if not self._items:
                    return
                self._busy = True
                item = self._items.popleft()
            yield item


class _ClosedError(BaseException):
    """Ends `work` where it asks for an item that will not come."""


def work_beside(work: Callable[[Iterator[T]], object], items: Iterator[T], ahead: int) -> None:
    """Work through items while the next ones are made.

    Args:
        work, ahead: as of `Beside`; with 0 no thread is needed, and none is begun.
        items: made here, in the caller's thread.
    """
    if not ahead:
        work(items)
        return
    with Beside(work, ahead) as beside:
        for item in items:
            beside.put(item)


def items_ahead(device: torch.device, threads: int | None = None) -> int:
    """How many items to work ahead of `Beside`: 1 where something is idle meanwhile, else 0.

    On a GPU the CPU is. On a CPU it is a core that the model's threads leave free: where they take all, there is none
    to work beside them.

    Args:
        device: where the items are made.
        threads: of the CPU that make them; PyTorch's number if not given.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(device.type != "cpu" or (threads or torch.get_num_threads()) < cores)
