"""The number of threads is the one that suits the work."""

from collections.abc import Iterator

import pytest
import torch

from magi_video.threads import choose_threads


@pytest.fixture(autouse=True)
def many_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("with_one", "with_four", "chosen"),
    [(1.0, 0.9, 1), (0.1, 0.1, 1), (0.4, 0.1, 4), (0.01, 0.5, 1), (20.0, 5.0, 4), (0.001, 5.0, 4)],
)
def test_one_thread_unless_many_gain(with_one: float, with_four: float, chosen: int) -> None:
    now, done = 0.0, []

    def work() -> None:
        nonlocal now
        done.append(torch.get_num_threads())
        now += {1: with_one, 4: with_four}[torch.get_num_threads()]

    assert choose_threads(work, lambda: now) == chosen == torch.get_num_threads()
    assert with_four < 1 or 1 not in done, "what takes long is not tried with one"


def test_a_single_core_is_left_alone() -> None:
    torch.set_num_threads(1)
    assert choose_threads(lambda: pytest.fail("tried")) == 1
