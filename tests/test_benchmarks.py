"""The scripts of benchmarks/ are run by hand: a name that moved would be found only then."""

import importlib
import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_finds_what_it_imports(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)  # they import one another, as they are run
    assert runpy.run_path(str(script), run_name="imported")["__doc__"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delitem(sys.modules, "gpu", raising=False)
    return importlib.import_module("gpu")


def test_the_gpu_script_runs_dry(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magi_video.bench.machine.PEAK_SIDE", 256)
    gpu.main(["--out", str(tmp_path / "gpu.json"), "--dry-run", "--graphs"])
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: one["state"] for name, one in report["parts"].items()} == dict.fromkeys(gpu.PARTS, "done")
    found = {name: one["found"] for name, one in report["parts"].items()}
    assert found["peaks"]["bf16"] > 0 and found["equality"]["equal"] and found["equality"]["largest_difference"] == 0
    assert found["doom"]["float32, torch, 1 video"]["frames_per_second_of_each"] > 0
    assert found["doom"]["bf16, cudagraphs, 2 videos"]["frames_per_second_of_each"] > 0
    assert len(found["cudagraphs"]) == 2 * 3 and not any(one["left_to_pytorch"] for one in found["cudagraphs"].values())
    exact = found["cudagraphs"]["tiny, exact, float32"]
    assert exact["graphs_ms"] > 0 and exact["largest_difference_of_the_largest_number"] < 1e-4
    assert len(found["generation"]) == 3 * 2 and found["generation"]["tiny, exact, 2"]["seconds_per_frame"] > 0
    assert len(found["cache"]["cached_seconds_by_frame"]) == len(found["cache"]["uncached_seconds_by_frame"]) == 2
    assert len(found["training"]) == 4 and found["training"]["tiny"]["mfu_of_measured_bf16_peak"] > 0
    assert found["graphs"]["tiny"]["eager_ms"] > 0 and report["machine"]["torch"]
    assert sum(seconds for seconds, _ in gpu.PARTS.values()) < 8 * 60


def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_rest(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forever(_: object, found: dict[str, int]) -> None:
        found["begun"] = 1
        while True:
            pass

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    parts = {"one": (0.1, forever), "two": (9, fail), "three": (9, lambda _, found: found.update(fine=1))}
    monkeypatch.setattr(gpu, "PARTS", parts)
    gpu.main(["--out", str(tmp_path / "gpu.json"), "--dry-run"])
    made = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [(one["state"], one["found"]) for one in made.values()] == [
        ("out of time", {"begun": 1}), ("failed", {}), ("done", {"fine": 1}),
    ]  # fmt: skip
    assert made["two"]["error"] == "RuntimeError: out of memory"
