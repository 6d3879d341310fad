"""Two processes train the model that one trains: replicated or sharded, resumed at another number, stopped."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from magi_video.cli import main
from magi_video.files.checkpoints import latest_checkpoint
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.presets import load_preset
from magi_video.recipe import ExposureConfig, Preset
from magi_video.training.run import train
from tests.distributed.worker import run_all
from tests.processes import in_processes

STEPS = 4
TOLERANCE = 1e-5
"""Largest difference of a weight after four steps of 1e-3: sums of float32 numbers, grouped otherwise (1.2e-7 here)."""


OPTIONS = {"resampling": {"plain_steps": "1"}, "error-bank": {"size": "6", "share": "0.8"}}


def variant(forcing: str = "complete", head: str = "epsilon", exposure: str = "noise", **settings: Any) -> Preset:
    """A tiny recipe with actions, which are often dropped."""
    preset = load_preset("tiny")
    train = {"steps": STEPS, "checkpoint_every": 2, "sample_every": 0, "log_every": 1, "warmup_steps": 1}
    return dataclasses.replace(
        preset,
        forcing=forcing,
        exposure=ExposureConfig(exposure=exposure, exposure_options=OPTIONS.get(exposure, {})),
        model=dataclasses.replace(preset.model, actions=True, condition_drop=0.4, head=head),
        train=dataclasses.replace(preset.train, **train | settings),
    )


CURES = ("resampling", "error-bank", "canvas")
JOBS: dict[str, Preset] = {
    **{cure: variant(exposure=cure, sharding="full") for cure in CURES},
    "replicated": variant(),
    "sharded": variant(sharding="full", sample_every=4),
    "replicated in parts": variant(accumulate=2),
    "sharded in parts": variant(sharding="full", accumulate=2, gradient_checkpointing=True),
    "masked flow": variant("masked", "flow"),
    "masked flow sharded": variant("masked", "flow", sharding="full"),
    "resumed by two": variant(sharding="full"),
    "stopped": variant(sharding="full", checkpoint_every=100),
}


def launch(processes: int, *arguments: str | Path) -> subprocess.Popen[str]:
    """Python processes that know of each other, by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [*command, *map(str, arguments)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def generate(run: Path, out: Path) -> list[str]:
    """Arguments of a command that makes three videos."""
    sizes = {"num": 3, "frames": 3, "mask-steps": 2, "denoise-steps": 3}
    options = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    return ["generate", str(run), "--out", str(out), "--save-arrays", *options]


@pytest.fixture(scope="module")
def alone(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What one process makes of the recipes."""
    root = tmp_path_factory.mktemp("alone")
    recipes = {"complete": variant(), "masked flow": variant("masked", "flow")}
    recipes |= {cure: variant(exposure=cure) for cure in CURES}
    return {name: train(preset, videos, root / name) for name, preset in recipes.items()}


@pytest.fixture(scope="module")
def together(videos: Path, alone: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs that two processes made, by name."""
    root = tmp_path_factory.mktemp("together")
    shutil.copytree(alone["complete"], root / "resumed by two")
    shutil.rmtree(root / "resumed by two" / "checkpoints" / f"step_{STEPS:08d}")
    jobs = [
        {
            "preset": dataclasses.asdict(preset),
            "data": str(videos),
            "out": str(root / name),
            "stop": [1, 2, signal.SIGTERM] if name == "stopped" else None,
        }
        for name, preset in JOBS.items()
    ]
    jobs.append({"command": generate(alone["complete"], root / "generated"), "out": str(root / "generated")})
    jobs = json.loads(json.dumps(jobs))  # recipes as run records hold them
    assert in_processes(2, lambda _: run_all(jobs)) == [0, 0]
    return root


def tensors(run: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    files = (run / "checkpoints" / f"step_{step:08d}").glob("*.safetensors")
    return {f"{file.stem}/{key}": value for file in files for key, value in load_file(file).items()}


def difference(ours: Path, theirs: Path) -> float:
    """Largest difference of a weight or an average, after as many steps; the same tensors must be there."""
    one, other = tensors(ours), tensors(theirs)
    assert one.keys() == other.keys() and len(one) > 100
    assert all(one[key].shape == other[key].shape for key in one)
    return max(float((one[key] - other[key]).abs().max()) for key in one if not key.startswith("optimizer"))


@pytest.mark.parametrize("name", [name for name in JOBS if name != "stopped"])
def test_two_processes_make_the_weights_of_one(name: str, alone: dict[str, Path], together: Path) -> None:
    reference = alone[name if name in CURES else "masked flow" if name.startswith("masked") else "complete"]
    assert difference(together / name, reference) < TOLERANCE
    first, last = tensors(reference, 2), tensors(reference)
    assert max(float((last[key] - first[key]).abs().max()) for key in last) > 50 * TOLERANCE, "training does something"


@pytest.mark.parametrize("name", [*(name for name in JOBS if name != "stopped"), "generated"])
def test_all_processes_take_the_kernels_of_the_main_one(name: str, together: Path) -> None:
    mine, others = json.loads((together / name / "kernels.json").read_text())
    assert mine == others and mine[:2] == ["highest", False]


def test_the_figures_of_every_step_are_those_of_one_process_and_told_once(
    alone: dict[str, Path], together: Path
) -> None:
    logs = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            for run in (alone["complete"], together / "replicated", together / "sharded in parts")]  # fmt: skip
    for one, other in ((logs[0], logs[1]), (logs[0], logs[2])):
        assert [line["step"] for line in one] == [line["step"] for line in other] == [1, 2, 3, 4]
        for name in ("loss", "gradient_norm", "learning_rate"):
            assert [line[name] for line in one] == pytest.approx([line[name] for line in other], rel=1e-4), name


def test_the_folder_of_sharded_training_is_a_model(alone: dict[str, Path], together: Path) -> None:
    ours, theirs = (MagiVideoPipeline.from_pretrained(run) for run in (together / "sharded", alone["complete"]))
    for (name, one), other in zip(ours.transformer.named_parameters(), theirs.transformer.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=TOLERANCE), name
    averages = load_file(together / "sharded" / "checkpoints" / "step_00000004" / "ema.safetensors")
    assert torch.equal(averages["token_in.weight"], ours.transformer.token_in.weight), "the averaged weights"
    assert ours.config.training["steps"] == STEPS
    assert (together / "sharded" / "samples" / "step_00000004.png").is_file()


def test_a_signal_to_one_process_stops_all_after_the_next_step_and_the_run_goes_on_alone(
    alone: dict[str, Path], together: Path, videos: Path
) -> None:
    run = together / "stopped"
    told = json.loads((run / "told.json").read_text())
    assert all("143: stopped by SIGTERM after step 3, which is saved" in text for text in told) and len(told) == 2
    checkpoint = latest_checkpoint(run / "checkpoints")
    assert checkpoint is not None and checkpoint.step == 3
    train(variant(), videos, run)  # one process goes on from what two sharded ones saved
    assert difference(run, alone["complete"]) < TOLERANCE


def test_two_processes_share_the_videos_and_make_those_of_one(
    alone: dict[str, Path], together: Path, tmp_path: Path
) -> None:
    assert main(generate(alone["complete"], tmp_path)) == 0
    ours = together / "generated"
    assert json.loads((ours / "told.json").read_text()) == ["exit 0", "exit 0"]
    added = {"told.json", "kernels.json"}
    assert {file.name for file in ours.iterdir()} == {file.name for file in tmp_path.iterdir()} | added
    for file in tmp_path.glob("*.npy"):
        one, two = np.load(file).astype(int), np.load(ours / file.name).astype(int)
        assert np.abs(one - two).max() <= 1 and (one != two).mean() < 0.001, file.name  # sums over another batch
    ours_told, told = (json.loads((folder / "generate.json").read_text()) for folder in (ours, tmp_path))
    assert ours_told["seeds"] == told["seeds"] and ours_told["files"] == told["files"]
    assert len(ours_told["seconds_per_frame"]) == 3


def test_a_signal_to_the_whole_job_is_obeyed_once_and_the_run_is_saved(videos: Path, tmp_path: Path) -> None:
    """The real command, with processes that load data; the launcher gets the signal too, and passes it on."""
    run = tmp_path / "run"
    options = [
        "--sharding",
        "full",
        "--precision",
        "bf16",
        "--steps",
        "100000",
        "--sample-every",
        "0",
        "--workers",
        "1",
    ]
    process = launch(2, "-m", "magi_video", "train", "tiny", "--data", videos, "--out", run, *options)
    deadline = time.monotonic() + 240
    while not (run / "log.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    assert output.count("magi train: stopped by SIGTERM after step") == 1, output[-3000:]
    checkpoint = latest_checkpoint(run / "checkpoints")
    assert checkpoint is not None and f"after step {checkpoint.step}, which is saved" in output
