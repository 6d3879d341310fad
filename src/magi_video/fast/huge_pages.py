"""Huge pages for weights that are read from beginning to end in every pass.

With pages of 4 kB a processor looks up an address for each 1,024 numbers of a weight, in a virtual machine through two
tables. With pages of 2 MB it has nothing to look up: a mask step of Doom takes 0.9 of its time (docs/performance.md).
Linux gives them where it is asked (`transparent_hugepage/enabled` is `madvise` or `always`); elsewhere nothing happens.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HUGE = 1 << 21
"""Bytes of a huge page, and what its address is a multiple of."""
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
"""Of madvise(2): let memory have huge pages from now on; move what is there into them (Linux 6.1)."""
MAPS = Path("/proc/self/maps")


@contextmanager
def huge_pages() -> Iterator[None]:
    """Put memory that is allocated meanwhile, by any thread, into huge pages when it ends.

    Costs about a millisecond for 2 MB; memory does not move to other addresses. Pieces below 2 MB stay as they are.
    """
    before = private_memory()
    yield
    for start, end in private_memory().items():
        fresh = before.get(start, start)  # heaps grow at their end
        first, last = -(-fresh // HUGE) * HUGE, end // HUGE * HUGE
        if first < last:
            advise(first, last - first)


def private_memory() -> dict[int, int]:
    """Beginning and end of the heap and of other memory of this process that is no file's; empty where unknown."""
    regions = {}
    with suppress(OSError):
        for line in MAPS.read_text().splitlines():
            addresses, access, _, _, inode, *name = line.split(maxsplit=5)
            if access == "rw-p" and inode == "0" and (not name or name[0] == "[heap]"):
                start, end = (int(one, 16) for one in addresses.split("-"))
                regions[start] = end
    return regions


def advise(start: int, size: int) -> None:
    """Ask for huge pages in a range of memory; the system may decline."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if madvise(start, size, MADV_HUGEPAGE) == 0:
        madvise(start, size, MADV_COLLAPSE)
