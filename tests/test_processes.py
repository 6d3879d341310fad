"""Forked processes of tests: a failure of any of them is known at once."""

import os
import signal
import time

import pytest

from tests.processes import wait_for_all


def forked(seconds: float, code: int) -> int:
    child = os.fork()
    if not child:
        time.sleep(seconds)
        os._exit(code)
    return child


@pytest.mark.parametrize("place", [0, 1])
def test_whichever_fails_first_ends_the_wait(place: int) -> None:
    children = [forked(60, 0)]
    children.insert(place, forked(0.1, 3))
    began = time.monotonic()
    codes = wait_for_all(children, patience=0.2)
    assert codes[place] == 3 and codes[1 - place] == -signal.SIGKILL and time.monotonic() - began < 30


def test_codes_come_in_the_order_of_the_processes() -> None:
    assert wait_for_all([forked(0.2, 0), forked(0, 0)]) == [0, 0]
    assert wait_for_all([forked(0.3, 0), forked(0, 7)], patience=20) == [0, 7], "one that ends by itself is not killed"
