"""What a capture leaves behind, by PyTorch's own `torch.cuda.graph` over a CUDA that only keeps count."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from threading import Thread
from typing import Any

import pytest
import torch

from magi_video.fast.cuda_capture import WARM_UPS, CudaCapture

GPU = torch.device("cuda")


class Stream:
    """Of no device."""

    def wait_stream(self, other: "Stream") -> None:
        """Nothing to wait for."""


class Cuda:
    """The current stream, the pools into which the allocator records, and where captures fail.

    Attributes:
        fails: at the "begin" of the next capture, or at its "end".
    """

    def __init__(self) -> None:
        self.main = self.current = Stream()
        self.recording: list[object] = []
        self.captures: list[tuple[Stream, object]] = []
        self.fails: str | None = None

    def set_stream(self, stream: Stream) -> None:
        self.current = stream

    def end_allocate_to_pool(self, device: int, pool: object) -> None:
        if pool not in self.recording:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording.remove(pool)

    def fail(self, where: str) -> None:
        if self.fails == where:
            self.fails = None
            raise RuntimeError(f"operation failed at the {where} of a capture")


class StreamContext:
    """`torch.cuda.StreamContext`; no generator, which would set the stream of before when it is collected."""

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self.cuda, self.stream = cuda, stream

    def __enter__(self) -> None:
        self.before, self.cuda.current = self.cuda.current, self.stream

    def __exit__(self, *_: object) -> None:
        self.cuda.current = self.before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """In place of `torch.cuda`."""
    made = Cuda()

    class Graph:
        """The order of calls is that of `CUDAGraph.cpp`."""

        def capture_begin(self, pool: object, **_: Any) -> None:
            assert pool not in made.recording, "already recording to mempool_id"
            assert not made.recording, "another capture is under way"
            made.recording.append(pool)
            made.fail("begin")
            self.captured = made.current, pool

        def capture_end(self) -> None:
            made.fail("end")
            made.end_allocate_to_pool(0, self.captured[1])
            made.captures.append(self.captured)

        def replay(self) -> None:
            """Nothing."""

    replaced = {
        "Stream": Stream, "CUDAGraph": Graph, "graph_pool_handle": object, "current_device": lambda: 0,
        "current_stream": lambda: made.current, "set_stream": made.set_stream, "stream": partial(StreamContext, made),
        "device": lambda _: nullcontext(), "synchronize": lambda: None, "empty_cache": lambda: None,
    }  # fmt: skip
    for name, one in replaced.items():
        monkeypatch.setattr(torch.cuda, name, one)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", made.end_allocate_to_pool, raising=False)
    return made


def test_all_captures_share_a_pool_and_its_stream(cuda: Cuda) -> None:
    capture, streams = CudaCapture(), []
    for _ in range(2):
        capture(lambda: streams.append(cuda.current), GPU)
    assert cuda.captures[0] == cuda.captures[1]
    assert streams == [cuda.captures[0][0]] * 2 * (WARM_UPS + 1) and cuda.main not in streams
    assert cuda.current is cuda.main


@pytest.mark.parametrize("where", ["warm-up", "begin", "work", "end"])
def test_a_capture_that_fails_leaves_the_process_as_it_was(cuda: Cuda, where: str) -> None:
    capture = CudaCapture()
    capture(lambda: None, GPU)
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        if where == "warm-up" or (where == "work" and calls > WARM_UPS):
            cuda.fails = "end" if where == "work" else None  # a capture that became invalid fails at its end as well
            raise RuntimeError("operation not permitted when stream is capturing")

    cuda.fails = where if where in ("begin", "end") else None
    with pytest.raises(RuntimeError, match="operation"):
        capture(work, GPU)
    assert cuda.current is cuda.main and not cuda.recording
    capture(lambda: None, GPU)
    assert cuda.current is cuda.main
    first, second = cuda.captures
    assert first[0] is not second[0] and first[1] is not second[1]


def test_one_capture_at_a_time(cuda: Cuda) -> None:
    """Also by another engine, which has a capture of its own."""
    captures = 0
    other = Thread(target=lambda: CudaCapture()(lambda: None, GPU))

    def work() -> None:
        nonlocal captures
        captures += 1
        if captures == WARM_UPS + 1:
            other.start()
            other.join(0.2)
            assert other.is_alive() and len(cuda.recording) == 1

    replay: Callable[[], object] = CudaCapture()(work, GPU)
    other.join(60)
    assert callable(replay) and len(cuda.captures) == 2
