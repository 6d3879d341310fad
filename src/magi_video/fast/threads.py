"""How many CPU threads a model is worth, and how they wait for one another.

PyTorch takes all cores. A small model's threads wait for one another at every product, and when something else wants a
core as well, all of them wait for the one that lost it. So a model with small products gets one thread, whatever the
machine; and threads that wait sleep, instead of holding a core that another one needs.
"""

import os
import statistics
from collections.abc import MutableMapping

from magi_video.errors import MagiError

MOST_THREADS = 1024

SMALL_PRODUCT = 50_000_000
"""Floating-point operations of a product up to which one thread does as well as two (docs/performance.md)."""
WAITING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
"""For GNU's OpenMP, which PyTorch's own builds carry, and for Intel's."""
WINDOW, REST = 24, 480
"""Frames over which the pace is measured, and frames after a change of threads in which none is tried."""
SPIN = ("GOMP_SPINCOUNT", *WAITING)


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of OpenMP sleep while they wait; to be called before PyTorch is imported.

    Threads that spin hold their core: beside other work each barrier then lasts as long as the system lets the other
    work run. Where the user has set any of these variables, nothing is changed.
    """
    if not any(name in environment for name in SPIN):
        environment.update(WAITING)


def check_threads(asked: int | None) -> None:
    """Raise a `MagiError` unless so many threads may be asked for; None asks for none."""
    if asked is not None and not 1 <= asked <= MOST_THREADS:
        raise MagiError(f"threads must lie in 1…{MOST_THREADS}, got {asked}")


def use_threads(asked: int | None) -> None:
    """Set PyTorch's number of threads to the one that is asked for; None leaves it."""
    import torch

    if asked is not None:
        torch.set_num_threads(asked)


def choose_threads(product_flops: float, asked: int | None = None) -> int:
    """Set PyTorch's number of threads to what products of a size are worth; returns the number.

    Args:
        product_flops: floating-point operations of the largest product that is computed again and again.
        asked: the number, if the user has said it. Where OMP_NUM_THREADS says it, that stays.
    """
    import torch

    use_threads(asked)
    if asked is None and product_flops <= SMALL_PRODUCT and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return torch.get_num_threads()


class Pace:
    """Chooses the number of threads anew when frames fall behind the pace they are wanted at.

    Another number is tried for some frames, and kept if they come faster. Called in the thread that computes: PyTorch's
    number of threads is that thread's.

    Args:
        threads: the number at the beginning; None where the user has said it, or no CPU computes: it stays.
        most: the other number that is tried.
    """

    def __init__(self, threads: int | None = None, most: int = 1) -> None:
        self.threads, self._other = threads, 1 if threads == most else most
        self._seconds: list[float] = []
        self._before: float | None = None
        self._rest = 0

    def frame(self, seconds: float, period: float) -> None:
        """A frame took so long, and one is wanted every `period` seconds."""
        if self.threads is None or self._other == self.threads:
            return
        self._seconds.append(seconds)
        self._rest = max(0, self._rest - 1)
        if len(self._seconds) < WINDOW:
            return
        median = statistics.median(self._seconds)
        self._seconds.clear()
        if self._before is not None:  # the other number has been tried
            if median >= self._before:
                self._swap()
            self._before, self._rest = None, REST
        elif median > period and not self._rest:
            self._before = median
            self._swap()

    def _swap(self) -> None:
        import torch

        assert self.threads is not None
        self.threads, self._other = self._other, self.threads
        torch.set_num_threads(self.threads)
