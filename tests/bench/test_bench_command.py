"""`magi bench` as a user types it: the figures, the files, the refusals."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from magi_video import MagiVideoPipeline
from magi_video.bench.options import BenchOptions
from magi_video.bench.report import ready_generator
from magi_video.bench.subject import open_subject
from magi_video.cli import main
from magi_video.codecs.pixels import PixelCodec
from magi_video.fast.probes import Choice
from magi_video.sampling.sampling import Sampling

FIXED = {"seconds_per_frame", "frames_per_second", "train_clips_per_second", "train_peak_share", "peak_memory_bytes"}


@pytest.fixture(scope="module", autouse=True)
def small_peak() -> Iterator[None]:
    """The machine's peak from smaller matrices, but for the command line's own process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("magi_video.bench.machine.PEAK_SIDE", 256)
        yield


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All parts of the smallest preset, and where the files are."""
    out = tmp_path_factory.mktemp("bench")
    parts = ["--parts", "generate", "train", "uncached", "profile"]
    options = ["--frames", "6", "--uncached-frames", "4", "--train-steps", "2", "--batch", "2"]
    assert main(["bench", "tiny", "--out", str(out), *parts, *options]) == 0
    return json.loads((out / "bench.json").read_text(encoding="utf-8")) | {"folder": out}


def test_the_keys_that_scripts_rely_on(figures: dict[str, Any]) -> None:
    assert set(figures) >= FIXED | {"matmul_peak_gflops", "machine", "parameters"}
    assert len(figures["seconds_per_frame"]) == 6 and all(value > 0 for value in figures["seconds_per_frame"])
    assert figures["peak_memory_bytes"] > 10**7
    assert set(figures["matmul_peak_gflops"]) == {"bf16", "float32"}
    machine = figures["machine"]
    assert machine["torch"] == torch.__version__ and machine["threads"] == torch.get_num_threads()
    assert machine["cpu"] and machine["cores"] >= 1 and machine["capability"]
    model = open_subject("tiny").load(torch.float32)
    assert sum(figures["parameters"].values()) == sum(parameter.numel() for parameter in model.parameters())


def test_shares_and_speeds_follow_from_the_stated_figures(figures: dict[str, Any]) -> None:
    generation, training = figures["generation"], figures["training"]
    for part, total in (
        (generation, sum(generation["flops"].values())),
        (training, sum((training["flops_forward"] | {}).values()) + sum(training["flops_backward"].values())),
    ):
        assert part["flops_total"] == total and 0.5 * total < part["flops_executed"]
        smaller = min(total, part["flops_executed"])
        peak = figures["matmul_peak_gflops"][part["precision"]] * 1e9
        assert part["precision"] == "float32" and part["threads"] >= 1
        assert part["peak_share"] == pytest.approx(smaller / part["median_seconds"] / peak)
    assert figures["train_peak_share"] == training["peak_share"]
    assert figures["train_clips_per_second"] == pytest.approx(4 / training["median_seconds"])
    assert figures["frames_per_second"] == pytest.approx(2 * 6 / sum(figures["seconds_per_frame"]))
    assert generation["seconds_per_frame"] == figures["seconds_per_frame"] and generation["warm_up"]
    sampling = generation["sampling"]
    assert (sampling["mask_steps"], sampling["denoise_steps"], generation["batch"]) == (4, 10, 2)
    assert generation["decode_seconds"] is None and generation["end_to_end_frames_per_second"] is None
    assert (training["batch"], training["sequence_frames"], training["forcing"]) == (4, 8, "complete")


def test_the_other_parts(figures: dict[str, Any]) -> None:
    uncached = figures["uncached"]
    assert uncached["frames"] == len(uncached["seconds_per_frame"]) == 4
    assert uncached["line_cached"]["r2"] <= 1 and uncached["line_uncached"]["r2"] <= 1
    assert set(figures["profile"]) == {"generation", "training"}
    assert {"spatial", "temporal", "head"} <= set(figures["profile"]["generation"]["by_part"])


def test_the_picture_is_a_png(figures: dict[str, Any]) -> None:
    from PIL import Image

    with Image.open(figures["folder"] / "bench.png") as picture:
        assert picture.format == "PNG" and picture.width > 2 * picture.height
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50, "something is drawn"


def test_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "magi_video", "bench", "tiny", "--json", "f.json", "--frames", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "share of the peak" in done.stdout and "not counted" in done.stdout and "clips/s" in done.stdout
    written = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert set(written) >= FIXED and written["kind"] == "preset" and written["train_clips_per_second"] > 0


def test_the_shipped_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--frames", "4", "--mask-steps", "2", "--denoise-steps", "3", "--train-batch", "1", "--train-steps", "1"]
    assert main(["bench", "doom", *options, "--json", "-", "--plot", str(tmp_path / "deep" / "plot.png")]) == 0
    told = json.loads(capsys.readouterr().out)
    generation = told["generation"]
    assert told["kind"] == "model" and len(told["seconds_per_frame"]) == 4 and told["training"]["batch"] == 1
    assert (generation["sampling"]["mask_steps"], generation["sampling"]["denoise_steps"]) == (2, 3)
    assert generation["decode_seconds"] > 0 and generation["encode_seconds"] > 0
    seconds = generation["median_seconds"] + generation["decode_seconds"] + generation["encode_seconds"]
    assert generation["end_to_end_frames_per_second"] == pytest.approx(1 / seconds)
    assert (tmp_path / "deep" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_it_says_where_longer_videos_may_take_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    options = ["--parts", "generate", "--frames", "1", "--speed", "realtime", "--precision", "float32", "--json", "-"]
    assert main(["bench", "doom", *options]) == 0
    generation = json.loads(capsys.readouterr().out)["generation"]
    assert generation["engine"] == "torch" and "1 frame would not pay for loading graphs" in generation["engine_why"]


def test_auto_is_what_generation_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    by_graphs = Choice("float32", "graphs are quicker")
    monkeypatch.setattr("magi_video.bench.report.choose_with_graphs", lambda *_: by_graphs)
    subject, low, device = open_subject("tiny"), Choice("bf16", "quicker"), torch.device("cpu")
    sampling = Sampling().resolve(subject.outline.diffusion_head, subject.preset.own_sampling)
    for options, expected in ((BenchOptions(), by_graphs), (BenchOptions(engine="torch"), low)):
        generator, choice = ready_generator(subject, options, sampling, low, device, lambda *_: None)
        assert choice == expected and next(generator.model.parameters()).dtype == expected.dtype


def test_a_models_folder_and_a_single_part(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = open_subject("tiny-mtf").load(torch.float32)
    pipe = MagiVideoPipeline(model, PixelCodec(), forcing="masked", height=16, width=16, mask_steps=3, denoise_steps=2)
    pipe.save_pretrained(tmp_path / "model")
    options = ["--parts", "generate", "--frames", "2", "--precision", "float32", "--json", "-"]
    options += ["--setting", "fast"]
    assert main(["bench", str(tmp_path / "model"), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "model" and told["training"] is None and told["train_clips_per_second"] is None
    fast = Sampling("fast").resolve(model.diffusion_head, Sampling(mask_steps=3, denoise_steps=2))
    assert told["generation"]["sampling"] == asdict(fast) | {"guide": list(fast.guide)}
    share = told["generation"]["flops_executed"] / told["generation"]["median_seconds"]
    assert told["generation"]["peak_share"] <= 1.0001 * share / told["matmul_peak_gflops"]["float32"] / 1e9


@pytest.mark.parametrize(("arguments", "message"), [
    (["nothing"], "no model or preset 'nothing'"),
    (["nothing.json"], "no model or preset 'nothing.json'"),
    (["tiny", "--frames", "0"], "frames must be at least 1, got 0"),
    (["tiny", "--first-step", "1000"], "--first-step must lie in 0…999, got 1000"),
    (["tiny", "--train-batch", "-1"], "--train-batch must be at least 1"),
    (["tiny", "--mask-steps", "0"], "--mask-steps must lie in 1…"),
    (["tiny", "--parts", "uncached", "--uncached-frames", "0"], "--uncached-frames must be at least 1"),
    (["tiny", "--device", "cuda"], "device 'cuda' is not available here"),
    (["tiny", "--json", "/proc/nowhere/f.json"], "/proc/nowhere"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["bench", *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("magi bench: ") and "\n" not in error
