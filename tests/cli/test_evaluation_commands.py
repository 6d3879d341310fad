"""`magi evaluate` and `magi score` as a user types them, with small networks in place of the pretrained ones."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.cli import main
from magi_video.evaluation.features import Detectors
from magi_video.video.video import read_frames, write_video
from tests.cli.test_commands import run
from tests.evaluation.networks import small_detectors
from tests.training.conftest import moving_square


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, the same as arrays and a little spoilt, and a model trained on them by the command."""
    root = tmp_path_factory.mktemp("evaluation")
    for name in ("videos", "real", "fake"):
        (root / name).mkdir()
    for number in range(4):
        video = moving_square(20, number, 1)
        write_video(root / "videos" / f"{number}.mp4", video, 10.0, crf=4)
        np.save(root / "real" / f"{number}.npy", video)
        np.save(root / "fake" / f"{number}.npy", np.clip(video.astype(int) + 9, 0, 255).astype(np.uint8))
    options = ["--steps", "2", "--checkpoint-every", "2", "--sample-every", "0", "--hidden", "32"]
    data, out = str(root / "videos"), str(root / "run")
    assert main(["train", "tiny", "--data", data, "--out", out, "--temporal-position", "rope", *options]) == 0
    return root


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAGI_CACHE", str(tmp_path / "cache"))

    def load(device: torch.device, image: bool, perceptual: bool, side: int | None) -> Detectors:
        found = small_detectors()
        return dataclasses.replace(found, image=found.image if image else None)

    monkeypatch.setattr(Detectors, "load", load)


def test_evaluate_generates_scores_and_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["evaluate", folder / "run", "--data", folder / "videos", "--num", 4, "--out", tmp_path / "out"]
    code, out, err = run(capsys, *command)
    assert code == 0 and "Traceback" not in err
    for word in ("FVD", "FID", "PSNR", "4 real, 4 generated; small", "warning", "report.html", "metrics.json"):
        assert word in out, word
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"fvd", "fid", "per_frame", "protocol"} <= set(written) and written["model"] == str(folder / "run")
    assert len(list((tmp_path / "out" / "samples").glob("*.npy"))) == 4
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    code, out, _ = run(capsys, *command, "--json")
    assert code == 0 and json.loads(out) == written
    code, _, err = run(capsys, *command, "--seed", 3)
    assert code == 1 and "made with other settings (seed 0 → 3)" in err


def test_score_compares_any_two_folders(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--out", tmp_path / "out", "--json"]
    code, out, _ = run(capsys, "score", folder / "real", folder / "fake", "--paired", *options)
    paired = json.loads(out)
    assert code == 0 and paired == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 25 < paired["paired"]["psnr"] < 35 and paired["num_real"] == 4
    code, out, _ = run(capsys, "score", folder / "videos", folder / "fake", "--num", 3, "--no-fid", *options)
    videos = json.loads(out)
    assert code == 0 and videos["fid"] is None and videos["num_real"] == 3 and "paired" not in videos
    code, out, _ = run(
        capsys, "score", folder / "videos", folder / "videos", "--frames", 12, "--no-over-length", *options
    )
    assert code == 0 and json.loads(out)["protocol"]["frames"] == 12


@pytest.mark.parametrize(("argv", "message"), [
    (["score", "{root}/real", "{root}/nowhere"], "no such folder"),
    (["score", "{root}/nowhere", "{root}/fake"], "no such folder"),
    (["score", "{root}/real", "{root}/fake", "--protocol", "fvd"], "expected one of magi-ucf101,"),
    (["score", "{root}/videos", "{root}/fake", "--protocol", "latte", "--num", "4"], "no video of at least 46"),
    (["score", "{root}/real", "{root}/fake", "--protocol", "videogpt"], "256 expected; --num 4"),
    (["score", "{root}/real", "{root}/fake", "--frames", "9"], "at least 10"),
    (["score", "{root}/real", "{root}/fake", "--frames", "40"], "no clip of at least 40 frames"),
    (["score", "{root}/real", "{root}/fake", "--num", "5"], "4 real clips of 16 frames (0 left out), 5 expected"),
    (["score", "{root}/real", "{root}/fake", "--context-frames", "16"], "at least one generated frame"),
    (["score", "{root}/real", "{root}/fake", "--num-real", "3", "--paired"], "cannot be paired"),
    (["score", "{root}/run", "{root}/fake"], "no usable video"),
    (["score", "{root}/real", "{root}/fake", "--device", "tpu"], "not available"),
    (["evaluate", "nope", "--data", "{root}/videos"], "no model"),
    (["evaluate", "{root}/run", "--data", "{root}/nowhere"], "no such folder"),
    (["evaluate", "{root}/run", "--data", "{root}/real"], "no usable video"),
    (["evaluate", "{root}/run", "--data", "{root}/videos", "--protocol", "magi-k600"], "50000 expected; --num 4"),
    (["evaluate", "{root}/run", "--data", "{root}/videos", "--interval", "5"], "interval must lie in 1…4"),
    (["evaluate", "{root}/run", "--data", "{root}/videos", "--actions"], "takes no action"),
    (["evaluate", "{root}/run", "--data", "{root}/videos", "--labels"], "takes no label"),
    (["evaluate", "{root}/run", "--data", "{root}/videos", "--sampler", "heun"], "unknown sampler"),
    (["evaluate", "{root}/run", "--data", "{root}/videos", "--batch-size", "0"], "--batch-size must be at least 1"),
    (["evaluate", "{root}/run", "--data", "{root}/videos", "--denoise-steps", "0"], "steps must lie in 1…1,000"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str], message: str
) -> None:
    filled = [one.replace("{root}", str(folder)) for one in argv]
    code, _, err = run(capsys, *filled, "--out", tmp_path / "out")
    lines = [line for line in err.splitlines() if line.startswith(f"magi {argv[0]}: ")]
    assert code == 1 and len(lines) == 1 and message in lines[0], err
    assert "Traceback" not in err and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below"):
        code, _, err = run(capsys, "score", folder / "real", folder / "fake", "--out", out)
        assert code == 1 and f"magi score: {out}: results cannot be written there" in err and "clips" not in err


def test_a_folder_of_video_files_can_be_scored_though_they_differ_from_arrays(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "score", folder / "real", folder / "videos", "--out", tmp_path, "--json", "--paired")
    assert code == 0 and json.loads(out)["paired"]["psnr"] < 60
    assert not np.array_equal(read_frames(folder / "videos" / "0.mp4"), np.load(folder / "real" / "0.npy"))
