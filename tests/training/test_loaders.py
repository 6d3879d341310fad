"""Why loading failed, in a line: what PyTorch says of the processes that load, made plain."""

import os
import signal
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from magi_video.errors import MagiError
from magi_video.training.loaders import loading_errors, workers_ended

SHARED = "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"


class Failing(Dataset[int]):
    """Raises what it is given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(SHARED), r"unable to allocate shared memory.*give --workers 0, or more of it \(docker run"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError("12 GiB"), "MemoryError: 12 GiB; perhaps for lack of memory: fewer --workers"),
        (MagiError("a.mp4: the video ends before frame 3"), r"^a\.mp4: the video ends before frame 3$"),
    ],
)
def test_what_a_process_raised_is_told_in_a_line(error: Exception, told: str) -> None:
    with pytest.raises(MagiError, match=told) as caught, loading_errors(7):
        next(iter(DataLoader(Failing(error), num_workers=1)))
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("DataLoader worker (pid 5) is killed by signal: Bus error. It is possible that dataloader's workers are out "
         "of shared memory. Please try to raise your shared memory limit.", "--workers 0, or more of it"),
        ("DataLoader worker (pid 5) is killed by signal: Killed. ", "lack of memory: fewer --workers"),
        ("DataLoader timed out after 900 seconds", "timed out after 900 seconds; the same command continues"),
    ],
)  # fmt: skip
def test_a_process_that_died_is_told_of(message: str, told: str) -> None:
    with pytest.raises(MagiError, match=f"at step 3: DataLoader .*{told}"), loading_errors(3):
        raise RuntimeError(message)


def test_processes_that_cannot_begin_are_told_of() -> None:
    with (
        pytest.raises(MagiError, match="Resource temporarily unavailable; perhaps for lack of memory"),
        loading_errors(0),
    ):
        raise BlockingIOError(11, "Resource temporarily unavailable")


def test_an_error_of_the_training_itself_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), loading_errors(0):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


class Numbers(Dataset[int]):
    """0, 1, 2 and so on."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> int:
        return index


def test_a_death_told_while_something_else_is_under_way_is_one_line() -> None:
    batches = iter(DataLoader(Numbers(), num_workers=1))
    with (
        pytest.raises(MagiError, match=r"^loading data failed at step 5: DataLoader worker .*continues$"),
        workers_ended(batches, lambda: 5),
    ):
        os.kill(batches._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        time.sleep(30)  # a checkpoint, for example
    assert not batches._workers[0].is_alive()  # type: ignore[attr-defined]


def test_a_death_told_while_the_processes_are_ended_hides_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = iter(DataLoader(Numbers(), num_workers=1))
    shut_down = batches._shutdown_workers  # type: ignore[attr-defined]

    def told_late() -> None:
        shut_down()
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")

    monkeypatch.setattr(batches, "_shutdown_workers", told_late)
    with pytest.raises(MagiError, match=r"^the disk is full$"), workers_ended(batches, lambda: 5):
        raise MagiError("the disk is full")
    with workers_ended(batches, lambda: 5):  # and a run that is through is no failure
        pass
    assert not batches._workers[0].is_alive()  # type: ignore[attr-defined]
