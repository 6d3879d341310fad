"""One thread for a small model, and threads that wait without holding a core."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.fast.threads import REST, SMALL_PRODUCT, WINDOW, Pace, check_threads, choose_threads, wait_passively


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("flops", "asked", "chosen"), [
    (8e6, None, 1), (SMALL_PRODUCT, None, 1), (SMALL_PRODUCT + 1, None, 4), (8e6, 2, 2), (1e12, 3, 3),
])  # fmt: skip
def test_small_products_get_one_thread_unless_another_number_is_asked_for(
    flops: float, asked: int | None, chosen: int
) -> None:
    assert choose_threads(flops, asked) == chosen == torch.get_num_threads()


def test_a_number_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose_threads(8e6) == 4


@pytest.mark.parametrize("number", [0, -1, 1025])
def test_a_senseless_number_is_refused(number: int) -> None:
    with pytest.raises(MagiError, match="threads must lie in"):
        check_threads(number)


def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise() -> None:
    environment: dict[str, str] = {}
    wait_passively(environment)
    assert environment == {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        environment = {name: "active"}
        wait_passively(environment)
        assert environment == {name: "active"}


def test_the_command_says_how_to_wait_before_torch_is_there(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from magi_video.cli import main\n"
        f"main(['generate', 'doom', '--frames', '2', '--mask-steps', '1', '--denoise-steps', '1', '--engine', 'torch',"
        f" '--out', {str(tmp_path / 'made')!r}])\n"
        "assert 'torch' in sys.modules\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP", "KMP"))}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["passive"], done.stderr


def run(pace: Pace, frames: int, seconds: dict[int, float], period: float = 0.03) -> list[int]:
    """Numbers of threads of so many frames, which take as long as their number says."""
    numbers = []
    for _ in range(frames):
        numbers.append(torch.get_num_threads())
        pace.frame(seconds[numbers[-1]], period)
    return numbers


def test_a_pace_that_falls_has_the_other_number_tried_and_the_faster_kept() -> None:
    torch.set_num_threads(1)
    pace = Pace(1, 4)
    assert set(run(pace, 3 * WINDOW, {1: 0.02, 4: 0.01})) == {1}, "the pace holds: nothing is tried"
    assert run(pace, 3 * WINDOW, {1: 0.2, 4: 0.1})[-1] == 4, "faster, and kept"
    numbers = run(pace, 3 * WINDOW + REST, {1: 2.0, 4: 0.1})
    assert set(numbers[: REST - WINDOW]) == {4}, "not tried again at once"
    assert 1 in numbers and numbers[-1] == 4, "tried, slower, and given up"


def test_a_number_that_the_user_has_said_stays() -> None:
    assert set(run(Pace(), 4 * WINDOW, {4: 1.0})) == {4}
