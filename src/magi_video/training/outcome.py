"""What came of an optimiser step, read from the device without making it wait.

On a GPU the numbers of a step are read when the next step has been launched: the host is always a step ahead, and the
GPU never waits for it. On a CPU they are there at once.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from magi_video.training.optimization import SpikeGuard


@dataclass(frozen=True)
class Outcome:
    """Of one step.

    Attributes:
        step: its number, from 1.
        loss: mean over the tokens that count.
        norm: of the gradient.
        stop: whether some process was asked to stop.
        usual: running mean of the gradient norm.
        accepted, skipped, in_a_row: steps that were taken, and those that were not, up to this one.
        learning_rate: of the step.
        seconds: that it took, or from the step before if that ended later than this one began.
    """

    step: int
    loss: float
    norm: float
    stop: bool
    usual: float
    accepted: int
    skipped: int
    in_a_row: int
    learning_rate: float
    seconds: float

    @property
    def taken(self) -> bool:
        """Whether the weights have changed."""
        return self.in_a_row == 0


class Reading:
    """The outcome of a step, on its way from the device.

    Args:
        step: its number.
        loss_norm_stop: `[3]`, float64.
        guard: that judged the step.
        learning_rate: of the step.
        began: when the step was begun, by `time.perf_counter`.
    """

    def __init__(
        self, step: int, loss_norm_stop: Tensor, guard: SpikeGuard, learning_rate: float, began: float
    ) -> None:
        self.step, self.learning_rate, self.began = step, learning_rate, began
        values = torch.cat([loss_norm_stop, guard.values])
        # From a GPU to pinned memory, which the copy fills when the step is done.
        self._values = values.to("cpu", non_blocking=values.is_cuda)
        self._done: torch.cuda.Event | None = None
        if values.is_cuda:
            self._done = torch.cuda.Event()
            self._done.record()

    def read(self, before: float) -> Outcome:
        """Wait for the step to end.

        Args:
            before: when the step before had been read.
        """
        if self._done is not None:
            self._done.synchronize()
        loss, norm, stop, usual, accepted, skipped, in_a_row = self._values.tolist()
        return Outcome(
            step=self.step,
            loss=loss,
            norm=norm,
            stop=stop > 0,
            usual=usual,
            accepted=int(accepted),
            skipped=int(skipped),
            in_a_row=int(in_a_row),
            learning_rate=self.learning_rate,
            seconds=time.perf_counter() - max(self.began, before),
        )


def steps_behind(device: torch.device) -> int:
    """How many steps have been launched after the one that is read."""
    return int(device.type == "cuda")
