"""Kernels that round otherwise: used where they are right and faster, settled once, and as a run began."""

import pytest
import torch

from magi_video.distributed import Processes
from magi_video.fast.kernel_choice import (
    FAST_FLOAT32,
    KERNELS,
    LINEAR_KERNELS,
    PACKED_WEIGHTS,
    Kernel,
    settle_kernels,
    use_fast_float32,
)

pytestmark = pytest.mark.usefixtures("settled_kernels")


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(("works", "gain", "pays"), [(True, 1.2, True), (True, 1.05, False), (False, 9.0, False)])
def test_a_kernel_pays_where_it_is_right_and_clearly_faster(works: bool, gain: float, pays: bool) -> None:
    asked: list[float] = []
    kernel = Kernel(lambda: works, lambda: asked.append(gain) or gain)  # type: ignore[func-returns-value]
    assert [kernel.pays, kernel.used, kernel.pays] == [pays] * 3
    assert asked == [gain] * works, "measured once, and only where it works"
    kernel.settled = not pays
    assert kernel.used is not pays


def test_without_probes_no_kernel_pays() -> None:
    def never() -> float:
        raise AssertionError("measured")

    assert not Kernel(lambda: True, never).pays


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("name", list(KERNELS))
def test_every_kernel_can_be_measured_and_leaves_no_trace(name: str) -> None:
    def state() -> tuple[object, ...]:
        return torch.get_num_threads(), torch.is_grad_enabled(), torch.get_float32_matmul_precision()

    kernel, before, drawn = KERNELS[name], state(), torch.get_rng_state()
    if not kernel.works:
        assert not kernel.pays
        pytest.skip("this CPU lacks it")
    assert 0 < kernel.gain < 1000
    assert state() == before and torch.equal(torch.get_rng_state(), drawn)


def test_the_fast_path_of_float32_products_is_float32_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "pays", True)
    on = use_fast_float32()
    assert on == KERNELS[FAST_FLOAT32].works
    assert torch.get_float32_matmul_precision() == ("medium" if on else "highest")
    a, b = torch.randn(2, 64, 64).unbind(0)
    exact = a.double() @ b.double().T
    assert (torch.nn.functional.linear(a, b) - exact).abs().max() < 1e-4 * exact.abs().max()
    monkeypatch.setattr(Kernel, "pays", False)
    assert not use_fast_float32() and torch.get_float32_matmul_precision() == "highest"


def test_what_a_run_began_with_is_kept_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "pays", True)
    works = {PACKED_WEIGHTS: True, LINEAR_KERNELS: False}
    for name, one in works.items():
        monkeypatch.setattr(KERNELS[name], "works", one)
    assert settle_kernels(works, kept={PACKED_WEIGHTS: False, "other": True}) == dict.fromkeys(works, False)
    assert settle_kernels(works, Processes("cpu"), dict.fromkeys(works, True)) == works
    assert settle_kernels(works, kept={PACKED_WEIGHTS: "yes"})[PACKED_WEIGHTS], "a record that says no such thing"
    assert {name: KERNELS[name].used for name in works} == works
