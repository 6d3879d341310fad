"""What "auto" means: measured once, said in a line, and left alone where something else is asked for."""

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.fast import probes
from magi_video.fast.precision import modern
from magi_video.fast.probes import choose_precision, gain_of
from magi_video.recipe import Preset
from magi_video.settings import from_json

pytestmark = pytest.mark.usefixtures("measured")


@pytest.mark.parametrize(("gain", "chosen", "line"), [
    (3.14, "bf16", "is 3.1× as fast"), (1.1, "float32", "is 1.1× as fast"), (0.05, "float32", "takes 20.0× as long"),
])  # fmt: skip
def test_the_quicker_one_is_taken_and_the_line_says_why(
    monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str, line: str
) -> None:
    monkeypatch.setattr(probes, "low_precision_gain", lambda *_: gain)
    choice = choose_precision("auto", "cpu", "training")
    assert choice.precision == chosen
    wanted = ", which is chosen from 1.25× on" if chosen == "float32" and gain > 1 else ""
    expected = f"precision: {chosen} (in bf16 a training-shaped product {line} as in float32 on this CPU{wanted})"
    assert str(choice) == expected


def test_what_is_asked_for_is_kept_and_a_machine_that_is_slow_at_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "low_precision_gain", lambda *_: 0.1)
    assert str(choose_precision("float32", "cpu", "training")) == "precision: float32 (as asked)"
    slow = choose_precision("bf16", "cpu", "training", reason="as the run began")
    assert slow.precision == "bf16" and slow.dtype == torch.bfloat16
    assert slow.why.startswith("as the run began; in bf16 a training-shaped product takes 10.0× as long")
    with pytest.raises(MagiError, match="unknown precision 'no': choose from auto, float32, bf16"):
        choose_precision("no", "cpu", "training")


@pytest.mark.parametrize(("work", "shape"), [
    ("training", ()), ("convolution", ()), ("detector", ()), ("generation", (16, 64, 128, 4, 64, 2)),
])  # fmt: skip
def test_every_piece_of_work_can_be_measured_and_leaves_no_trace(work: probes.Work, shape: tuple[int, ...]) -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    assert 0 < probes.low_precision_gain(work, shape) < 1000
    assert probes.low_precision_gain(work, shape) == probes.low_precision_gain(work, shape), "measured once a process"
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_num_threads(), torch.is_grad_enabled())


def test_a_hopeless_way_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], [0, 0]
    monkeypatch.setattr("time.thread_time", lambda: now[0])

    def takes(side: int, seconds: float) -> None:
        calls[side] += 1
        now[0] += seconds

    assert gain_of(lambda: takes(0, 1e-3), lambda: takes(1, 1.0)) == pytest.approx(1e-3)
    assert calls == [2, 2]
    calls[:] = [0, 0]
    assert gain_of(lambda: takes(0, 3e-3), lambda: takes(1, 1e-3)) == pytest.approx(3)
    assert calls == [1 + probes.TRIALS] * 2


def test_without_probes_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> float:
        raise AssertionError("measured")

    monkeypatch.setattr(probes, "low_precision_gain", never)
    monkeypatch.setenv("MAGI_PROBES", "off")
    assert str(choose_precision("auto", "cpu", "generation", (1,) * 6)) == "precision: float32 (MAGI_PROBES=off)"
    assert str(choose_precision("bf16", "cpu", "training")) == "precision: bf16 (as asked)"
    monkeypatch.setenv("MAGI_PROBES", "no")
    with pytest.raises(MagiError, match=r"^MAGI_PROBES must be on or off, got 'no'$"):
        choose_precision("auto", "cpu", "training")


def test_recipes_of_earlier_versions_load_under_todays_names() -> None:
    assert [modern(name) for name in ("no", "bfloat16", "bf16", "float32", "auto", None, [])] == [
        "float32", "bf16", "bf16", "float32", "auto", None, [],
    ]  # fmt: skip
    for old, new in (("no", "float32"), ("bf16", "bf16")):
        preset = from_json(Preset, {"train": {"precision": old}, "small_vae": {"precision": "bfloat16"}}, "old")
        assert (preset.train.precision, preset.small_vae.precision) == (new, "bf16")
    with pytest.raises(MagiError, match="must be one of auto, float32, bf16"):
        from_json(Preset, {"train": {"precision": "fp8"}}, "new")


def test_the_precision_of_training_reaches_the_codec_unless_it_has_its_own() -> None:
    def codec_precision(train: str, own: str) -> str:
        recipe = {"codec": {"codec": "small_vae"}, "train": {"precision": train}, "small_vae": {"precision": own}}
        return from_json(Preset, recipe, "").codec_precision

    assert codec_precision("float32", "auto") == "float32" and codec_precision("auto", "auto") == "auto"
    assert codec_precision("float32", "bf16") == "bf16"
