"""Processes that know of each other, as torchrun starts them, made by forks: all that they need is imported already."""

import faulthandler
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable

import torch
from accelerate.state import AcceleratorState

PATIENCE = 240
"""Seconds after which a process that hangs tells where, and ends."""

GRACE = 20.0
"""Seconds that the others have to end by themselves when one has failed."""


def in_processes(count: int, work: Callable[[int], int | None]) -> list[int]:
    """Do some work in so many processes, each of which is given its number; returns their exit codes: what the work
    returns, 1 where it raises.

    A launch by torchrun itself, which takes seconds, is tested in `tests/distributed`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return wait_for_all([_fork(number, count, port, work) for number in range(count)])


def wait_for_all(children: list[int], patience: float = GRACE) -> list[int]:
    """Exit codes of processes, whichever ends first. Where one fails the others, which may wait for it, are ended.

    Args:
        children: process ids.
        patience: seconds that the others have to end by themselves.
    """
    codes: dict[int, int] = {}
    failed_at: float | None = None
    while len(codes) < len(children):
        for child in children:
            if child in codes:
                continue
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
            elif failed_at is not None and time.monotonic() > failed_at + patience:
                os.kill(child, signal.SIGKILL)
        if failed_at is None and any(codes.values()):
            failed_at = time.monotonic()
        time.sleep(0.02)
    return [codes[child] for child in children]


def _fork(number: int, count: int, port: int, work: Callable[[int], int | None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(count)}
        AcceleratorState._reset_state(reset_partial_state=True)  # what earlier tests made of it
        torch.set_num_threads(1)
        code = work(number) or 0
        assert torch.distributed.get_world_size() == count, "each worked alone"
        torch.distributed.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(code)
