"""Every paradigm from the command line: trained, described, planned, measured, generated with, exported or refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from magi_video.cli import main
from magi_video.errors import MagiError
from magi_video.paradigms import PARADIGMS, make_paradigm
from magi_video.pipeline import MagiVideoPipeline
from magi_video.registry import declared
from magi_video.video.image import write_image
from magi_video.video.video import write_video
from tests.training.conftest import moving_square, videos

__all__ = ["videos"]

SMALL = [
    "--height", "16", "--width", "16", "--num-frames", "6", "--max-interval", "2", "--codec", "pixels",
    "--patch-size", "8", "--hidden", "32", "--depth", "1", "--heads", "2", "--mlp", "64", "--head-width", "32",
    "--head-depth", "1", "--batch-size", "2", "--workers", "0", "--mask-steps", "2", "--denoise-steps", "2",
]  # fmt: skip


@pytest.fixture(scope="module", params=list(PARADIGMS))
def model(request: pytest.FixtureRequest, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model after four steps, with a stop in between, and the name of its paradigm."""
    name, out = request.param, tmp_path_factory.mktemp(request.param) / "run"
    for steps in ("2", "4"):
        command = ["train", "tiny", "--data", str(videos), "--out", str(out), "--forcing", name, *SMALL]
        assert main([*command, "--actions", "--steps", steps, "--sample-every", "4"]) == 0
    return name, out


def test_it_trained_and_says_what_it_is(model: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    name, folder = model
    losses = [json.loads(row)["loss"] for row in (folder / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all() and (folder / "samples" / "step_00000004.png").exists()
    pipe = MagiVideoPipeline.from_pretrained(folder)
    row = declared("paradigms")[name]
    assert pipe.config.forcing_options == {key: str(value) for key, value in row.get("options", {}).items()}
    assert main(["info", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["forcing"] == name and facts["paradigm"]["makes a"] == row["unit"]
    assert facts["mask_steps"] == (None if row.get("steps", {}).get("mask_steps") == 0 else 2)


@pytest.mark.parametrize("given", [0, 1, 5])
def test_it_goes_on_from_nothing_a_frame_or_several_or_says_why_not(
    model: tuple[str, Path], given: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, folder = model
    video, command = moving_square(5, 0, 1), ["generate", str(folder), "--frames", "8", "--out", str(tmp_path / "out")]
    if given == 1:
        write_image(tmp_path / "first.png", video[0])
        command += ["--first-frame", str(tmp_path / "first.png")]
    if given == 5:
        write_video(tmp_path / "given.mp4", video, 10.0, crf=4)
        command += ["--context", str(tmp_path / "given.mp4"), "--context-frames", "5"]
    try:
        make_paradigm(name).check_context(given, 8)
    except MagiError as refusal:
        assert main(command) == 1
        assert str(refusal) in capsys.readouterr().err.replace("\n", " ")
        return
    assert main(command) == 0, capsys.readouterr().err
    assert (tmp_path / "out" / "sample_000.mp4").stat().st_size > 0


def test_plan_and_bench_know_it(
    model: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder = model
    assert main(["plan", "tiny", "--devices", "1", "--json", "--forcing", name, "--num-frames", "6"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["flops_per_step"] > 0
    monkeypatch.setattr("magi_video.bench.machine.PEAK_SIDE", 128)
    command = [
        "bench",
        str(folder),
        "--out",
        str(tmp_path),
        "--frames",
        "4",
        "--train-steps",
        "1",
        "--train-batch",
        "2",
    ]
    assert main(command) == 0, capsys.readouterr().err
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert len(figures["seconds_per_frame"]) == 4 and figures["generation"]["flops_executed"] > 0
    if not PARADIGMS[name].cached:
        assert main([*command, "--parts", "uncached"]) == 1
        assert f"{name} has no cache to leave out" in capsys.readouterr().err


def test_it_is_exported_or_refused_in_a_line(
    model: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, folder = model
    if PARADIGMS[name].frame_cache and PARADIGMS[name].steps.get("mask_steps") != 0:
        pytest.skip("exported as every model of masked frames is: tests/hub/test_export.py")
    assert main(["export", str(folder), "--out", str(tmp_path / "programs")]) == 1
    assert f"not for the paradigm {name}" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "programs").exists()
