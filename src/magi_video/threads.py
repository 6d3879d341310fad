"""How many CPU threads a model is worth.

PyTorch takes all cores. A small model's threads wait for one another at every product, and when something else wants a
core as well, all of them wait for the one that lost it. Doom on two cores: 42 ms for two frames with one thread and 31
with two, but with a page beside it 23 ms a frame with one and 34 with two (docs/serve.md).
"""

import time
from collections.abc import Callable
from typing import Any

import torch

TRIALS = 3
GAIN = 1.5
"""How much faster all cores must be than one by themselves: beside a page they lose more than one does."""
LONG_SECONDS = 1.0
"""Work that takes as long with all cores is not tried with one: its products are large enough for many."""


def choose_threads(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> int:
    """Set PyTorch's number of threads to one, or leave it, whichever suits some work; returns the number.

    Args:
        work: done a few times each way.
        clock: tells seconds.
    """

    def fastest(number: int) -> float:
        torch.set_num_threads(number)
        work()
        seconds = []
        for _ in range(TRIALS):
            began = clock()
            work()
            seconds.append(clock() - began)
            if seconds[-1] > LONG_SECONDS:
                break
        return min(seconds)

    many = torch.get_num_threads()
    if many > 1:
        with_many = fastest(many)
        if with_many > LONG_SECONDS or fastest(1) > GAIN * with_many:
            torch.set_num_threads(many)
    return torch.get_num_threads()
