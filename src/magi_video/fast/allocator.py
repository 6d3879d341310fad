"""The C library's allocator, set to keep what a training step frees for the next one.

glibc maps every block above 32 MB afresh and gives the top of its heap back above 64 MB, so that a step over large
tensors spends a third of its time in page faults (docs/performance.md). Elsewhere than on glibc nothing happens.
"""

import ctypes

# Parameters of mallopt(3): M_MMAP_MAX = 0 maps no block by itself, M_TRIM_THRESHOLD = −1 returns nothing, M_TOP_PAD
# grows the heap in large pieces.
KEEP = {-4: 0, -1: -1, -2: 256 * 2**20}


def keep_freed_memory() -> bool:
    """Let this process keep freed memory instead of returning it to the system; for good.

    Returns:
        Whether there was a glibc to tell.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (other C libraries have a mallopt that means other things)
    except (OSError, AttributeError):
        return False
    return all(libc.mallopt(parameter, value) for parameter, value in KEEP.items())
