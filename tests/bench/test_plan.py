"""`magi plan`: figures that must hold, and the command as a user types it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from magi_video.bench.counting import count_executed
from magi_video.bench.hardware import DATA_SHEETS, Hardware, find_hardware
from magi_video.bench.plan import make_plan
from magi_video.bench.subject import build, make_subject
from magi_video.bench.training import Stepper
from magi_video.cli import main
from magi_video.errors import MagiError
from magi_video.presets import load_preset
from tests.data.examples import write_numbered

H100 = DATA_SHEETS["h100"]


def test_operations_are_those_that_a_real_step_runs() -> None:
    import torch

    preset = load_preset("tiny")
    # Every token hidden: then nothing is left to chance; the last block's unread half and padding are the difference.
    preset = replace(preset, exposure=replace(preset.exposure, mask_ratio_min=1.0))
    plan = make_plan("tiny", preset, 1, H100)
    subject = make_subject("tiny", preset)
    stepper = Stepper(subject, build(preset), preset.train.batch_size, "float32", torch.device("cpu"))
    counted = count_executed(stepper.compute_gradient)
    assert counted is not None and 0.8 * plan.flops.total < counted <= plan.flops.total
    assert plan.parameters["total"] == sum(p.numel() for p in stepper.model.parameters())
    assert plan.sequence_frames == 2 * plan.latent_frames == 8


def test_a_canvas_keeps_two_passes_and_resampling_one_without_gradient() -> None:
    base = load_preset("base")
    plans = {
        name: make_plan(name, replace(base, exposure=replace(base.exposure, exposure=name)), 1, H100)
        for name in ("none", "noise", "resampling", "canvas")
    }
    flops = {name: plan.flops.total for name, plan in plans.items()}
    assert flops["none"] == flops["noise"] < flops["resampling"] < 1.4 * flops["none"] < flops["canvas"]
    memory = {name: plan.given.memory.total for name, plan in plans.items()}
    assert memory["none"] == memory["resampling"] < memory["canvas"]


def test_the_papers_models() -> None:
    k600, cosmos = (make_plan(name, load_preset(name), 64, H100) for name in ("k600", "ucf101-cosmos"))
    assert (k600.clip_frames, k600.latent_frames, k600.sequence_frames, k600.tokens) == (17, 5, 10, 256)
    assert k600.parameters["total"] == pytest.approx(808.7e6, rel=1e-3)
    # Two passes over 5 frames of 257 places through 786 M weights, forward and twice backward, and attention.
    layers = 256 * 6 * 10 * 257 * 786.4e6
    assert k600.flops.spatial_linear + k600.flops.temporal_linear == pytest.approx(layers, rel=1e-3)
    assert k600.latents.online and k600.latents.bytes == 392_622 * 5 * 8 * 32 * 32 * 2
    assert cosmos.encoding_flops and cosmos.encoding_flops > 1e13 and cosmos.latents.online
    # OmniTokenizer's encoder: 8 layers of width 512 on 5 frames of 1024 patches, and their attention.
    assert k600.encoding_flops and 1 < k600.encoding_flops / (256 * 5 * 1024 * 2 * 8 * 12 * 512**2) < 2
    ucf101 = make_plan("ucf101", load_preset("ucf101"), 8, H100)
    assert ucf101.encoding_flops == 0
    assert ucf101.latents.bytes == 2 * 9_537 * 180 * 4 * 32 * 32 * 2  # each frame as it is and mirrored
    mtf = make_plan("k600", load_preset("k600-mtf"), 64, H100)
    assert mtf.flops.spatial_linear * 2 == k600.flops.spatial_linear and mtf.flops.head == k600.flops.head


def test_the_largest_micro_batch_that_fits_is_found() -> None:
    preset = load_preset("k600")
    micro = {}
    for memory in (24, 40, 79, 139):
        plan = make_plan("k600", preset, 8, replace(H100, memory_gib=memory))
        for way in plan.ways:
            assert way.micro_batch * way.accumulate == 32
            assert way.fits == (way.memory.total <= 0.9 * memory * 2**30)
        micro[memory] = plan.ways[0].micro_batch
    assert micro[24] <= micro[40] <= micro[79] < micro[139]
    small = make_plan("k600", preset, 8, replace(H100, memory_gib=1))
    assert small.best is None and all(way.micro_batch == 1 for way in small.ways)


def test_the_recipe_as_given_is_judged_before_other_ways(capsys: pytest.CaptureFixture[str]) -> None:
    def first_line(*flags: str) -> str:
        assert main(["plan", "ucf101", "--devices", "8", "--hardware", "h100", *flags]) == 0
        return capsys.readouterr().out.splitlines()[0]

    assert first_line().startswith("as given: does not fit: 16 clips at a time")
    assert first_line("--accumulate", "8").startswith("as given: fits: 2 clips at a time")
    preset = load_preset("ucf101")
    asked = replace(preset.train, accumulate=4, sharding="full", gradient_checkpointing=True)
    given = make_plan("ucf101", replace(preset, train=asked), 8, H100).given
    assert (given.micro_batch, given.accumulate, given.sharding, given.gradient_checkpointing) == (4, 4, "full", True)
    whole = make_plan("ucf101", replace(preset, train=replace(asked, sharding="none")), 8, H100).given
    assert given.fits and given.memory.weights < whole.memory.weights / 7
    alone = make_plan("ucf101", replace(preset, train=asked), 1, H100).given
    assert alone.sharding == "none", "one device has nobody to share with"


def test_time_follows_from_operations_peaks_and_share() -> None:
    preset = load_preset("k600")
    hardware = Hardware("x", 1000, 100, 1000)
    plan = make_plan("k600", preset, 4, hardware, mfu=0.5)
    quick = (plan.flops.total - plan.flops.head) / 1000e12
    slow = (plan.flops.head + (plan.encoding_flops or 0)) / 100e12  # float32
    assert plan.ways[0].seconds_per_step == pytest.approx((quick + slow) / 0.5 / 4)
    assert plan.ways[0].days == pytest.approx(plan.ways[0].seconds_per_step * preset.train.steps / 86_400)
    checkpointed = next(way for way in plan.ways if way.gradient_checkpointing)
    more = checkpointed.seconds_per_step - plan.ways[0].seconds_per_step
    assert more == pytest.approx(plan.recomputed_flops / 1000e12 / 0.5 / 4)
    assert plan.recomputed_flops == pytest.approx((plan.flops.total - plan.flops.head) / 3, rel=0.01)


def test_a_folder_is_surveyed_by_a_few_videos(tmp_path: Path) -> None:
    for number in range(3):
        write_numbered(tmp_path / f"{number}.mp4", 10)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    plan = make_plan("doom", load_preset("doom"), 1, H100, data=tmp_path)
    assert plan.latents.videos == 3 and plan.latents.bytes == 3 * 10 * 8 * 8 * 8 * 2
    assert "3 videos of 10 frames" in plan.latents.source


def test_the_command_prints_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["plan", "k600", "--devices", "64", "--hardware", "h200"]) == 0
    told = capsys.readouterr().out
    for words in (
        "k600 on 64 × h200",
        "total 808.7 M",
        "17 frames → 5 latent frames",
        "--sharding none",
        "40%",
        "assumed",
    ):
        assert words in told


def test_the_command_prints_json_and_takes_fields_of_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--batch-size", "8", "--depth", "3", "--steps", "1000", "--json"]
    assert main(["plan", "tiny", "--devices", "2", "--peak-tflops", "10", "--device-memory", "4", *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["batch_size"], told["steps"], told["hardware"]["float32_tflops"]) == (8, 1000, pytest.approx(2 / 3))
    assert told["best"]["micro_batch"] == 4 and told["best"]["memory_total"] < 2**30
    assert told["flops_per_step"] == sum(told["flops"].values()) and len(told["ways"]) == 4


@pytest.mark.parametrize(("arguments", "message"), [
    (["k600", "--devices", "100"], "a batch of 256 does not divide among 100 devices; 64 or 128 would do"),
    (["k600", "--devices", "1000"], "256 would do"),
    (["k600", "--devices", "8", "--accumulate", "3"], "--accumulate 3 does not divide the 32 clips of each of 8"),
    (["k600", "--devices", "0"], "devices 0; expected at least 1"),
    (["k600", "--devices", "1", "--hardware", "h1000"], "unknown hardware 'h1000'; expected one of a100,"),
    (["k600", "--devices", "1", "--peak-tflops", "-3"], "peak-tflops -3.0; expected a number above 0"),
    (["k600", "--devices", "1", "--peak-tflops", "nan"], "--peak-tflops must be a finite number"),
    (["k600", "--devices", "1", "--peak-tflops", "100"], "give --device-memory"),
    (["k600", "--devices", "1", "--mfu", "40"], "mfu 40.0; expected a share"),
    (["k600", "--devices", "1", "--data", "/nowhere"], "/nowhere: no such folder"),
    (["k700", "--devices", "1"], "no preset or file 'k700'"),
    (["--devices", "1"], "name a preset first"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["plan", *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("magi plan: ") and "\n" not in error


def test_this_machine_is_measured() -> None:
    hardware = find_hardware("cpu", None, None, None)
    assert hardware.bf16_tflops > 0 and hardware.memory_gib and not hardware.fused_attention
    given = find_hardware("h100", 500, None, 40)
    assert (given.bf16_tflops, given.float32_tflops, given.memory_gib) == (500, 67, 40)
    with pytest.raises(MagiError, match="name the hardware"):
        find_hardware(None, None, None, None)
