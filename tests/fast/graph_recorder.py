"""A recorder in place of CUDA's: what is captured is kept as operators on memory, and replayed on that very memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from magi_video.fast.cuda_capture import Capture
from magi_video.fast.cuda_graph import CudaGraphEngine

aten = torch.ops.aten
WAITS = {aten.lift_fresh, aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.randn, aten.rand}
"""What a stream that is being captured forbids: values of the host, and those that the host would wait for or draw."""


class Recorded(TorchDispatchMode):
    """The operators of some work, with the memory of their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = [one for one in tree_leaves(args) if isinstance(one, Tensor) and one.dtype == torch.bool]
        if func.overloadpacket in WAITS or (func.overloadpacket in (aten.index, aten.index_put) and chosen):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tree_leaves(made)))
        return made

    def replay(self) -> None:
        """The same operators; what they made before is overwritten, and what nobody else holds is lost at the end."""
        own: list[Tensor] = []
        for func, args, kwargs, made in self.calls:
            for held, new in zip(made, tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(held, Tensor) and held.data_ptr() != new.data_ptr():
                    held.copy_(new)
                    own.append(held)
        for one in own:  # the next graph in the pool takes the memory
            if one.is_floating_point():
                one.fill_(torch.nan)


class Recorder(Capture):
    """Stands in for `CudaCapture`.

    Args:
        failing_ends: captures, of the first ones, that fail when all work is recorded.
        drops: whether an operator that writes to its first argument is left out of the recording.
    """

    device_type = "cpu"

    def __init__(
        self, failing_ends: int = 0, drops: Callable[[Any, Tensor], bool] = lambda func, written: False
    ) -> None:
        self.made = self.replays = 0
        self.failing_ends, self.drops = failing_ends, drops

    def __call__(self, work: Callable[[], object], device: torch.device) -> Callable[[], object]:
        work()
        with Recorded() as recorded:
            work()
        if self.failing_ends:
            self.failing_ends -= 1
            raise RuntimeError("operation failed due to a previous error during capture\nat its end")
        self.made += 1
        recorded.calls = [
            one for one in recorded.calls if not (one[1] and self.drops(one[0].overloadpacket, one[1][0]))
        ]

        def replay() -> None:
            self.replays += 1
            with torch.no_grad():  # a graph knows nothing of gradients
                recorded.replay()

        return replay


def make_engine(**options: Any) -> tuple[CudaGraphEngine, Recorder]:
    """An engine that captures by a recorder, and the recorder."""
    recorder = Recorder()
    return CudaGraphEngine(capture=recorder, **options), recorder
