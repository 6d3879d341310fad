"""How work becomes a CUDA graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, Protocol

import torch
from typing_extensions import override

WARM_UPS = 3
"""Runs before a capture: libraries choose kernels and allocate their workspaces in the first ones."""
CAPTURING = Lock()
"""Held during a capture: one alone may be under way in a process (`torch.cuda.graph`)."""


class Capture(Protocol):
    """Makes of work on memory that stays where it is what does the same work again."""

    device_type: str
    """Where it can."""

    def __call__(self, work: Callable[[], object], device: torch.device) -> Callable[[], object]:
        """Called with no gradients and no cached casts; the work is done at least once.

        Raises:
            Exception: the work cannot be captured. Other work can be as before.
        """
        ...


class CudaCapture(Capture):
    """`torch.cuda.CUDAGraph`s. Those of a device share a memory pool, and so the stream in which they are captured:
    memory is reused in the stream alone that it was allocated in."""

    device_type = "cuda"

    def __init__(self) -> None:
        self._pools: dict[int, tuple[Any, torch.cuda.Stream]] = {}

    @override
    def __call__(self, work: Callable[[], object], device: torch.device) -> Callable[[], object]:
        with CAPTURING, torch.cuda.device(device):
            number, before = torch.cuda.current_device(), torch.cuda.current_stream()
            if number not in self._pools:
                self._pools[number] = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
            pool, stream = self._pools[number]
            graph = torch.cuda.CUDAGraph()
            try:
                stream.wait_stream(before)
                with torch.cuda.stream(stream):  # that of the capture: libraries keep a workspace for each
                    for _ in range(WARM_UPS):
                        work()
                before.wait_stream(stream)
                # Another thread may decode meanwhile: what it does is no error of this capture.
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    work()
            except BaseException:
                # Where a capture fails at its end, the allocator goes on recording into the pool, which no other
                # capture can then use, and frees nothing of its own accord.
                del self._pools[number]
                with suppress(RuntimeError):  # it is not recording
                    torch._C._cuda_endAllocateToPool(number, pool)
                raise
            finally:
                torch.cuda.set_stream(before)  # `torch.cuda.graph` does not if the capture fails at its end
        return graph.replay


@contextmanager
def uncached_casts() -> Iterator[None]:
    """Under autocast, weights are cast in the graph: casts that autocast keeps are freed where its block ends."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
