"""Why loading failed, in a line: what PyTorch says of the processes that load, made plain."""

import pytest
from torch.utils.data import DataLoader, Dataset

from magi_video.errors import MagiError
from magi_video.training.loaders import loading_errors

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
