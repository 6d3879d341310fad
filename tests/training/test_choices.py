"""What a run leaves to the machine is settled once, and kept by the run wherever it goes on."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from magi_video.fast.kernel_choice import KERNELS, Kernel, missing_kernels, settle_kernels
from magi_video.recipe import Preset
from magi_video.training.choices import CHOSEN, settle_choices

pytestmark = pytest.mark.usefixtures("settled_kernels")
CPU = torch.device("cpu")


def with_precision(preset: Preset, precision: str) -> Preset:
    return dataclasses.replace(preset, train=dataclasses.replace(preset.train, precision=precision))


def record(run: Path, precision: str, **more: object) -> None:
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"preset": {"train": {"precision": precision}}, **more}))


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(("recorded", "kept"), [("bf16", "bf16"), ("no", "float32"), ("float32", "float32")])
def test_a_run_goes_on_in_the_precision_that_it_began_with(
    recipe: Callable[..., Preset], tmp_path: Path, recorded: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magi_video.fast.probes.low_precision_gain", lambda *_: 0.1)
    auto = with_precision(recipe(), "auto")
    record(tmp_path / "run", recorded, **{CHOSEN: {"linear_kernels": kept == "bf16"}})
    settled, chosen = settle_choices(auto, tmp_path / "run", CPU, begun=True)
    assert settled.train.precision == chosen.precision == kept
    assert chosen.kernels["linear_kernels"] == (kept == "bf16")
    assert chosen.why.startswith("as the run began")
    assert ("takes 10.0× as long" in str(chosen)) == (kept == "bf16"), "a machine that is slow at it says so"


@pytest.mark.parametrize("used", [True, False])
def test_a_run_goes_on_with_the_kernels_that_it_began_with(
    recipe: Callable[..., Preset], tmp_path: Path, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = {"fast_float32": used, "linear_kernels": used}
    monkeypatch.setattr(Kernel, "pays", not used)
    for name in kernels:
        monkeypatch.setattr(KERNELS[name], "works", True)
    record(tmp_path / "run", "bf16", **{CHOSEN: kernels})
    auto = with_precision(recipe(), "auto")
    _, chosen = settle_choices(auto, tmp_path / "run", CPU, begun=True)
    assert chosen.kernels == kernels
    _, anew = settle_choices(with_precision(recipe(), "bf16"), tmp_path / "run", CPU, begun=False)
    assert anew.kernels == dict.fromkeys(kernels, not used)


@pytest.mark.parametrize(
    "chosen", [None, [1], "fast", {"fast_float32": "yes", "linear_kernels": 1}, {"kernels": {"linear_kernels": True}}]
)
def test_what_is_no_choice_in_a_record_is_chosen_anew(
    recipe: Callable[..., Preset], tmp_path: Path, chosen: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path / "run", "bf16", **({} if chosen is None else {CHOSEN: chosen}))
    for pays in (True, False):
        monkeypatch.setattr(Kernel, "pays", pays)
        _, found = settle_choices(with_precision(recipe(), "bf16"), tmp_path / "run", CPU, begun=True)
        assert found.kernels == {"fast_float32": pays, "linear_kernels": pays}


def test_a_machine_that_lacks_a_kernel_does_not_make_the_run_forget_it(
    recipe: Callable[..., Preset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = {"fast_float32": True, "linear_kernels": True}
    record(tmp_path / "run", "bf16", **{CHOSEN: kernels})
    asked = with_precision(recipe(), "bf16")
    for name, works in (("fast_float32", False), ("linear_kernels", True)):
        monkeypatch.setattr(KERNELS[name], "works", works)
    _, here = settle_choices(asked, tmp_path / "run", CPU, begun=True)
    used = settle_kernels(kernels, kept=here.kernels)
    assert here.kernels == kernels and used == kernels | {"fast_float32": False}
    assert missing_kernels(here.kernels, used).startswith("not on this CPU: fast_float32;")
    _, elsewhere = settle_choices(asked, tmp_path / "run", torch.device("mps"), begun=True)
    assert elsewhere.record() == {"precision": "bf16", "why": "as asked"} | kernels, "nor does one without a CPU's"
    _, begun = settle_choices(asked, tmp_path / "none", torch.device("mps"), begun=False)
    assert not begun.kernels, "what was never chosen is not recorded"


def test_where_nothing_is_trained_yet_the_machine_chooses_anew(recipe: Callable[..., Preset], tmp_path: Path) -> None:
    record(tmp_path / "run", "bf16")
    settled, chosen = settle_choices(with_precision(recipe(), "auto"), tmp_path / "run", CPU, begun=False)
    assert settled.train.precision == "float32" and "linear_kernels" not in chosen.kernels
    asked, _ = settle_choices(with_precision(recipe(), "bf16"), tmp_path / "run", CPU, begun=False)
    assert asked.train.precision == "bf16"
