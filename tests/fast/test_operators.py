"""How many operators PyTorch is asked for in a frame: what decides seconds of a small model, and no clock disturbs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from magi_video.bench.generation import Generator
from magi_video.bench.subject import Subject, open_subject
from magi_video.sampling.sampling import Sampling

MOST = {"realtime": 1055, "balanced": 2190, "exact": 11270}
"""Operators of a frame of Doom: counted 1,032, 2,144 and 11,050 (PyTorch 2.13), and 2 % more."""


class CountOperators(TorchDispatchMode):
    """Counts the operators that are dispatched while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def count(work: Callable[[], object]) -> int:
    """Operators that some work dispatches."""
    with CountOperators() as counter:
        work()
    return counter.count


@pytest.fixture(scope="module")
def doom() -> Subject:
    return open_subject("doom")


def second_frame(doom: Subject, speed: str) -> Callable[[], object]:
    """What makes the second frame of a rollout, as every later one is made: the frame before it shares its pass."""
    sampling = Sampling(speed=speed).resolve(doom.outline.diffusion_head, doom.preset.own_sampling)
    generator = Generator(doom, doom.load(torch.float32), sampling, 1, torch.device("cpu"))
    rollout = generator.begin(4)
    rollout.predict(generator.conditions)
    return lambda: rollout.predict(generator.conditions)


@pytest.mark.parametrize("speed", MOST)
def test_a_frame_takes_no_more_operators(doom: Subject, speed: str) -> None:
    assert count(second_frame(doom, speed)) <= MOST[speed]


def test_a_pass_of_its_own_for_the_finished_frame_would_be_counted(
    doom: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magi_video.fast.past.JOINED_PLACES", 0)
    assert count(second_frame(doom, "realtime")) > MOST["realtime"]
