"""Work beside other work: in order, bounded, its errors its owner's, and no thread left behind."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.fast import beside as module
from magi_video.fast.beside import Beside, items_ahead, work_beside


@pytest.fixture(autouse=True)
def no_thread_is_left(threads_left: Callable[..., list[threading.Thread]]) -> Iterator[None]:
    yield
    assert not threads_left()


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_items_are_worked_on_in_order_and_all_of_them(ahead: int) -> None:
    done: list[int] = []

    def work(items: Iterator[int]) -> None:
        for item in items:
            time.sleep(0.001 * (item % 3))
            done.append(item)

    with Beside(work, ahead) as beside:
        for item in range(20):
            beside.put(item)
            assert len(done) >= item - ahead, "no more than one in work and `ahead` that wait"
            if not ahead:
                assert done[-1] == item, "in turns"
    assert done == list(range(20))


@pytest.mark.parametrize("ahead", [0, 1])
def test_an_iterator_is_worked_through_in_a_thread_only_where_that_helps(ahead: int) -> None:
    made_in, done = set(), []

    def make() -> Iterator[int]:
        for item in range(5):
            made_in.add(threading.current_thread())
            yield item

    def work(items: Iterator[int]) -> None:
        for item in items:
            done.append((item, threading.current_thread()))

    work_beside(work, make(), ahead)
    here = threading.current_thread()
    assert made_in == {here} and [item for item, _ in done] == list(range(5))
    assert all((thread is here) == (ahead == 0) for _, thread in done)


def test_it_works_while_the_next_item_is_made() -> None:
    made = threading.Event()

    def work(items: Iterator[int]) -> None:
        next(items)
        assert made.wait(20), "the first item waits for the second to be made"
        assert list(items) == [2]

    with Beside(work) as beside:
        beside.put(1)
        made.set()
        beside.put(2)


def test_room_is_told() -> None:
    room, go_on = threading.Semaphore(0), threading.Event()

    def work(items: Iterator[int]) -> None:
        for _ in items:
            go_on.wait(20)

    with Beside(work, ahead=1, when_room=room.release) as beside:
        assert room.acquire(timeout=20) and beside.has_room
        beside.put(1)
        assert beside.has_room
        beside.put(2)
        assert not beside.has_room, "one in work, one that waits"
        go_on.set()
        assert room.acquire(timeout=20) and beside.has_room


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_reaches_the_owner_as_itself(ahead: int) -> None:
    error = MagiError("the disk is full")

    def work(items: Iterator[int]) -> None:
        for item in items:
            if item == 2:
                raise error

    made = []
    with pytest.raises(MagiError) as raised, Beside(work, ahead) as beside:
        for item in range(1000):
            made.append(item)
            beside.put(item)
    assert raised.value is error and len(made) <= 2 + ahead + 2, "at the next item, not at the end"
    with pytest.raises(MagiError, match="full"), Beside(work, ahead=5) as beside:
        beside.put(2)  # nothing is put after it: leaving the block tells


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), MagiError("no")])
def test_an_error_of_the_owner_drops_what_waits(error: BaseException) -> None:
    done, ended = [], []

    def work(items: Iterator[int]) -> None:
        try:
            for item in items:
                time.sleep(0.05)
                done.append(item)
            ended.append("complete")
        finally:
            ended.append("left")

    with pytest.raises(type(error)), Beside(work, ahead=10) as beside:
        for item in range(10):
            beside.put(item)
        raise error
    assert len(done) < 10 and ended == ["left"], "the end of the items is not theirs"
    beside.close()


def test_work_that_ends_early_takes_no_more() -> None:
    with Beside(next) as beside:
        for item in range(5):
            beside.put(item)


@pytest.mark.parametrize("inference", [True, False])
def test_it_computes_as_its_owner(inference: bool) -> None:
    found = []

    def work(_: Iterator[int]) -> None:
        found.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_num_threads()))

    with torch.inference_mode(inference), torch.set_grad_enabled(False):
        Beside(work).finish()
    assert found == [(inference, False, torch.get_num_threads())]


def test_it_works_ahead_where_a_core_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert items_ahead(cpu, 1) == 1 and items_ahead(cpu, 2) == 0 and items_ahead(torch.device("cuda"), 2) == 1
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert items_ahead(cpu) == 0
