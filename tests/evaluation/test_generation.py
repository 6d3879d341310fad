"""`evaluate`: what is generated from what, going on after a stop, and the same figures on any number of processes."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.data.folder import VideoFolder
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.evaluation.features import Detectors
from magi_video.evaluation.generation import Generation, evaluate
from magi_video.evaluation.options import EvaluateOptions
from magi_video.evaluation.paired import psnr
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.evaluation.realset import real_clips
from magi_video.evaluation.record import engine_as_before
from magi_video.evaluation.scoring import score
from magi_video.fast.kernel_choice import KERNELS, Kernel
from magi_video.files.lock import alone
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.sampling import Sampling
from tests.data.examples import replace_unseen, write_actions, write_numbered
from tests.files.test_lock import other_process
from tests.processes import in_processes

SaveModel = Callable[..., Path]
Evaluated = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(autouse=True)
def quick_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without plots; the real one is tested where sets are scored."""
    monkeypatch.setattr(
        "magi_video.evaluation.report.write_report",
        lambda out, metrics, strips: (out / "report.html").write_text(" ".join(strip.title for strip in strips)),
    )


@pytest.fixture
def model(save_model: SaveModel) -> Path:
    return save_model()


@pytest.fixture
def evaluated(model: Path, numbered_videos: Path, detectors: Detectors, tmp_path: Path) -> Evaluated:
    def run(protocol: str = "small", **options: Any) -> dict[str, Any]:
        given = {"num": 5, "out": tmp_path / "out", "detectors": detectors, "batch_size": 2}
        place = {"model": model, "data": numbered_videos}
        return evaluate(protocol=protocol, **place | given | options)

    return run


def samples(folder: Path) -> list[np.ndarray]:
    return [np.load(path) for path in sorted((folder / "samples").glob("*.npy"))]


def test_fake_i_continues_real_i(evaluated: Evaluated, numbered_videos: Path, model: Path, tmp_path: Path) -> None:
    result = evaluated(context_frames=3)
    made = samples(tmp_path / "out")
    real, _ = real_clips(VideoFolder(numbered_videos), PROTOCOLS["small"], 5, (8, 8))
    pipe = MagiVideoPipeline.from_pretrained(model)
    for index, sample in enumerate(made):
        assert sample.shape == (16, 8, 8, 3) and sample.dtype == np.uint8
        assert np.abs(sample[:3].astype(int) - real[index][:3]).max() <= 1, "a pixel codec shows the given frames"
    generators = [torch.Generator().manual_seed(seed) for seed in (2, 3)]
    video = np.stack([real[2][:3], real[3][:3]])
    again = (pipe(video=video, num_frames=16, generator=generators).frames * 255).round().astype(np.uint8)
    assert np.array_equal(again, np.stack(made[2:4]))
    assert result["protocol"]["context"] == "3 frames" and result["per_frame"]["index"][0] == 3
    assert (result["generation"]["sampler"], result["generation"]["first_step"]) == ("ancestral", 990)
    assert result["generation"]["mask_steps"] == 2 and result["num_fake"] == 5 and result["paired"]["psnr"] < 30
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_scores_are_those_of_the_samples(
    evaluated: Evaluated, numbered_videos: Path, detectors: Detectors, tmp_path: Path
) -> None:
    result = evaluated()
    real, _ = real_clips(VideoFolder(numbered_videos), PROTOCOLS["small"], 5, (8, 8))
    truth = [real[index] for index in range(5)]
    fake = [np.concatenate([real[index][:1], sample[1:]]) for index, sample in enumerate(samples(tmp_path / "out"))]
    direct = score(truth, fake, paired=True, detectors=detectors)
    assert {key: result[key] for key in ("fvd", "fid", "paired", "per_frame", "motion", "real_hash", "fake_hash")} == {
        key: direct[key] for key in ("fvd", "fid", "paired", "per_frame", "motion", "real_hash", "fake_hash")
    }


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(evaluated: Evaluated, tmp_path: Path) -> None:
    whole = evaluated(out=tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done > 20:
            raise StopError

    with pytest.raises(StopError):
        evaluated(progress=stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "samples").glob("*.npy")}
    assert len(kept) == 2 and not (tmp_path / "out" / "metrics.json").exists()
    (tmp_path / "out" / "samples" / "000004.npy").write_bytes(b"half")
    stages: list[tuple[str, int]] = []
    assert evaluated(progress=lambda stage, done, total: stages.append((stage, total))) == whole
    assert ("generating", 32) in stages, "two groups of 16 frames were missing"
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    more = evaluated(num=7)
    assert more["num_fake"] == 7 and len(samples(tmp_path / "out")) == 7


@pytest.mark.usefixtures("settled_kernels")
def test_it_goes_on_with_the_kernels_of_its_samples(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"fid": False, "lpips": False}
    assert evaluated(num=2, **options)["generation"]["kernels"] == {"fast_float32": False}
    record = tmp_path / "out" / "evaluate.json"
    for kept, works in ((False, True), (True, True), (True, False)):
        monkeypatch.setattr(Kernel, "pays", not kept)
        monkeypatch.setattr(KERNELS["fast_float32"], "works", works)
        record.write_text(json.dumps(json.loads(record.read_text()) | {"kernels": {"fast_float32": kept}}))
        said: list[str] = []
        found = evaluated(num=2, say=said.append, **options)["generation"]["kernels"]
        assert found == json.loads(record.read_text())["kernels"] == {"fast_float32": kept}, "what they began with"
        assert torch.get_float32_matmul_precision() == ("medium" if kept and works else "highest")
        assert any("not on this CPU: fast_float32" in line for line in said) == (not works)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"kernels": [1, {}]}))
    assert evaluated(num=2, **options)["generation"]["kernels"] == {"fast_float32": False}, "no record of kernels"


def test_other_settings_in_the_same_folder_are_refused(
    evaluated: Evaluated, save_model: SaveModel, tmp_path: Path
) -> None:
    saved = json.loads(json.dumps(evaluated()["generation"]))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for options, message in (
        ({"seed": 1}, "seed 0 → 1"),
        ({"batch_size": 3}, "batch_size 2 → 3"),
        ({"sampling": Sampling(mask_steps=1)}, "mask_steps 2 → 1"),
        ({"context_frames": 2}, "context_frames 1 → 2"),
        ({"interval": 2}, "interval 1 → 2"),
        ({"frames": 12}, "frames 16 → 12"),
        ({"model": save_model("other", seed=1)}, "model_sha256 .* → "),
    ):
        with pytest.raises(MagiError, match=message) as error:
            evaluated(**options)
        assert "use another --out" in str(error.value) and "\n" not in str(error.value)
    assert json.loads((tmp_path / "out" / "evaluate.json").read_text()) == saved
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    (tmp_path / "out" / "evaluate.json").unlink()
    with pytest.raises(MagiError, match=r"samples but no evaluate.json"):
        evaluated()


def test_samples_keep_to_the_videos_that_they_continue(
    evaluated: Evaluated, numbered_videos: Path, tmp_path: Path
) -> None:
    out, data = tmp_path / "again", Path(shutil.copytree(numbered_videos, tmp_path / "data"))
    first = evaluated(data=data, out=out)
    record = json.loads((out / "evaluate.json").read_text())
    assert first["real_data"]["sha256"] == record.pop("data_content_sha256")
    assert len(first["clips"]["fake"]["names"]) == len(first["clips"]["fake"]["sha256"]) == first["num_fake"]
    (out / "evaluate.json").write_text(json.dumps(record))  # as one of before
    assert evaluated(data=data, out=out) == first
    replace_unseen(data / "video_0.mp4")
    with pytest.raises(MagiError, match="other videos of the same names"):
        evaluated(data=data, out=out)


@pytest.mark.parametrize(
    ("recorded", "engine"), [("onnx", "onnx"), ("torch", "torch"), ([], "torch"), ({}, "torch"), (None, "torch")]
)
def test_an_evaluation_goes_on_with_its_engine(tmp_path: Path, recorded: object, engine: str) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/0.npy").touch()
    (tmp_path / "evaluate.json").write_text(json.dumps({"engine": recorded}))
    assert engine_as_before(EvaluateOptions(), tmp_path, Processes("cpu")) == engine


def test_one_evaluation_at_a_time(evaluated: Evaluated, tmp_path: Path) -> None:
    with other_process(lambda: alone(tmp_path / "out")) as told:
        assert told == "entered"
        with pytest.raises(MagiError, match=f"^{tmp_path}/out: another run is at work there; wait for its end, or use"):
            evaluated()
        assert not (tmp_path / "out" / "evaluate.json").exists() and not samples(tmp_path / "out")


def test_a_run_that_made_nothing_leaves_the_folder_to_other_settings(evaluated: Evaluated, played: Path) -> None:
    actions = sorted(played.rglob("*.actions.jsonl"))
    videos = VideoFolder(played)
    _, picks = real_clips(videos, PROTOCOLS["small"], 3)
    second = videos.videos[picks[1].video].path
    next(path for path in actions if path.name.startswith(second.stem)).unlink()
    with pytest.raises(MagiError, match="no recorded actions"):
        evaluated(data=played, num=3, batch_size=3, actions=True)
    assert evaluated(data=played, num=3)["num_fake"] == 3


def test_from_nothing(evaluated: Evaluated, tmp_path: Path) -> None:
    result = evaluated(context_frames=0)
    assert "paired" not in result and "psnr" not in result["per_frame"]
    assert result["per_frame"]["index"] == list(range(16)) and result["protocol"]["context"] == "none"
    made = samples(tmp_path / "out")
    assert len(made) == 5 and not np.array_equal(made[0][0], made[1][0])


def test_rows_that_need_no_model(evaluated: Evaluated, tmp_path: Path) -> None:
    plain = evaluated(context_frames=3, num=3)
    result = evaluated(context_frames=3, num=3, baselines=True)
    rows = result.pop("baselines")
    assert list(rows) == ["real", "codec", "still", "copy_last", "shuffled"]
    assert {**result, "warnings": plain["warnings"]} == plain, "the model's own figures stay as they are"
    assert "paired" not in rows["real"] and rows["codec"]["paired"]["psnr"] > 50, "a pixel codec loses nothing"
    assert rows["still"]["motion"]["fake_speed"] == 0 < rows["shuffled"]["motion"]["fake_jerk"]
    assert rows["copy_last"]["num_fake"] == 3 and "fid_by_frame" in rows["copy_last"]
    told = [one for one in result["warnings"] if one not in plain["warnings"]]
    assert any(
        one.startswith("the model (FVD ") and "does not beat copying the last given frame" in one for one in told
    )
    write_numbered(tmp_path / "one" / "video.mp4", 20, height=16, width=16)  # gives five clips, and six are wanted
    few = evaluated(
        data=tmp_path / "one", context_frames=3, num=3, baselines=True, fid=False, lpips=False, out=tmp_path / "few"
    )
    assert "real" not in few["baselines"] and any(one.startswith("no floor") for one in few["warnings"])


def test_numbers_and_sizes_of_a_protocol(evaluated: Evaluated) -> None:
    with pytest.raises(MagiError, match=r"6 real clips of 16 frames \(2 left out\), 2048 expected; --num 6"):
        evaluated("stylegan-v", num=None)
    result = evaluated("latte", num=2, num_real=4, fid=False, interval=1, over_length=False)
    assert (result["num_real"], result["num_fake"], result["reduced"]) == (4, 2, True)
    assert any("the model makes 8 × 8 pixels, the protocol asks for 256 × 256" in one for one in result["warnings"])
    assert any(
        one.endswith(": 2 videos or clips are too short or unreadable, and left out") for one in result["warnings"]
    )
    assert result["protocol"]["notes"][-1] == "changed: interval 1, the protocol's own is 3"


@pytest.fixture
def played(tmp_path: Path) -> Path:
    """Videos of two classes; in each, FIRE is pressed in every second frame."""
    for number, name in enumerate(("cats", "dogs", "dogs")):
        video = write_numbered(tmp_path / "played" / name / f"{number}.mp4", 20, height=16, width=16)
        write_actions(video, [{"frame": t, "action": {"FIRE": 1} if t % 2 else {}} for t in range(20)])
    return tmp_path / "played"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the model's `stream` is asked for, call by call."""
    made: list[dict[str, Any]] = []
    stream = MagiVideoPipeline.stream

    def watched(self: MagiVideoPipeline, **settings: Any) -> Any:
        made.append(settings)
        return stream(self, **settings)

    monkeypatch.setattr(MagiVideoPipeline, "stream", watched)
    return made


def test_recorded_actions_and_classes_are_given_on_demand(
    evaluated: Evaluated, played: Path, calls: list[dict[str, Any]]
) -> None:
    evaluated(data=played, num=3, out=played / "a")
    assert all(call["actions"] is None and call["label"] is None for call in calls)
    calls.clear()
    evaluated(data=played, num=3, out=played / "b", batch_size=3, actions=True, labels=True, interval=1)
    actions_TBA = calls[-1]["actions"]
    videos = VideoFolder(played)
    _, picks = real_clips(videos, PROTOCOLS["small"], 3)
    assert actions_TBA.shape == (16, 3, 3) and not actions_TBA[0].any()
    for column, pick in enumerate(picks):
        expected = [(pick.start + t) % 2 for t in range(15)]
        assert actions_TBA[1:, column, 2].tolist() == expected, "the action that leads to each frame"
    assert calls[-1]["label"] == [videos.videos[pick.video].label for pick in picks]


def test_controllability_compares_recorded_with_random_actions(
    evaluated: Evaluated, played: Path, calls: list[dict[str, Any]]
) -> None:
    options = {"data": played, "num": 3, "context_frames": 3, "batch_size": 3, "actions": True, "interval": 1}
    plain = evaluated(**options, out=played / "out")
    result = evaluated(**options, out=played / "out", controllability=True)
    control, by_frame = result.pop("controllability"), result["per_frame"].pop("delta_psnr")
    assert result == plain, "the model's own figures stay as they are, and its samples are taken up"
    recorded_TBA, random_TBA = (call["actions"] for call in calls if len(call["generator"]) == 3)
    assert np.array_equal(random_TBA[:3], recorded_TBA[:3]), "the given frames keep their actions"
    assert (random_TBA[3:] != recorded_TBA[3:]).any((0, 2)).all() and set(np.unique(random_TBA)) == {0, 1}
    assert [one.initial_seed() for one in calls[-1]["generator"]] == [0, 1, 2], "the same noise"
    videos = VideoFolder(played)
    real, _ = real_clips(videos, PROTOCOLS["small"], 3, (8, 8))
    folders = ("samples", "samples_random_actions")
    made = [[np.load(played / "out" / folder / f"00000{i}.npy") for i in range(3)] for folder in folders]
    under_recorded, under_random = (
        np.stack([psnr(real[i][3:], clip[3:]) for i, clip in enumerate(clips)]) for clips in made
    )
    assert by_frame == pytest.approx((under_recorded - under_random).mean(0).tolist(), abs=1e-4)
    assert control["frame"] == 4 and control["delta_psnr"] == pytest.approx(by_frame[3], abs=1e-4)
    assert control["interval"][0] <= control["delta_psnr"] <= control["interval"][1]
    for changed in ({"actions": False}, {"context_frames": 13}, {"context_frames": 0}):
        with pytest.raises(MagiError, match="--controllability"):
            evaluated(**options | changed, out=played / "refused", controllability=True)


def test_how_many_clips_there_are_does_not_change_the_random_actions_of_one(
    model: Path, played: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an evaluation of more clips takes up the samples of one of fewer."""
    write_actions(played / "cats" / "0.mp4", [{"frame": t, "action": {"FIRE": 1}} for t in range(20)])
    asked: list[np.ndarray] = []
    monkeypatch.setattr(MagiVideoPipeline, "stream", lambda self, **settings: asked.append(settings["actions"]))
    pipe, videos, options = MagiVideoPipeline.from_pretrained(model), VideoFolder(played), EvaluateOptions(actions=True)
    for count in (1, 2, 3):
        contexts, picks = real_clips(videos, PROTOCOLS["small"], count, (8, 8))
        generation = Generation(pipe, videos, picks, contexts, PROTOCOLS["small"], options, played / "samples")
        assert generation.under_random_actions.folder.name == "samples_random_actions"
    recorded, random = asked[::2], asked[1::2]
    assert all(np.array_equal(one, random[0]) for one in random[1:]) and not np.array_equal(recorded[0], random[0])


def test_what_a_model_or_a_data_set_does_not_have_is_refused(
    evaluated: Evaluated, numbered_videos: Path, played: Path, tmp_path: Path
) -> None:
    for options, message in (
        ({"actions": True}, "no recorded actions"),
        ({"labels": True}, "class None is not one of the model's 2"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"sampling": Sampling(sampler="heun")}, "unknown sampler"),
        ({"interval": 26}, "61|no video of at least"),
        ({"data": tmp_path / "nowhere"}, "no such folder"),
        ({"model": tmp_path / "nowhere"}, "no model"),
        ({"protocol": "fvd"}, "unknown protocol"),
        ({"num": 1}, "at least 2"),
        ({"frames": 8}, "at least 10"),
    ):
        with pytest.raises(MagiError, match=message) as error:
            evaluated(**options)
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists(), options


def test_the_number_of_cores_changes_nothing(evaluated: Evaluated, tmp_path: Path) -> None:
    one = evaluated(out=tmp_path / "one")
    try:
        assert evaluated(out=tmp_path / "three", cache=False, threads=3) == one and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_one_and_two_processes_write_the_same_metrics(evaluated: Evaluated, tmp_path: Path, cache: Path) -> None:
    """Though all but the main one would take kernels that round otherwise."""
    data = tmp_path / "videos"
    for number in range(4):
        write_numbered(data / f"{number}.mp4", 24 + number, height=16, width=16)

    def evaluate_it(number: int) -> None:
        Kernel.pays = property(lambda _: number > 0)  # type: ignore[assignment, method-assign, misc]
        os.environ["MAGI_CACHE"] = str(cache / "two")
        evaluated(data=data, num=7, out=tmp_path / "two", batch_size=3)

    assert in_processes(2, evaluate_it) == [0, 0]
    one = evaluated(data=data, num=7, out=tmp_path / "one", batch_size=3)
    assert json.loads((tmp_path / "two" / "metrics.json").read_text()) == one
    assert (tmp_path / "one" / "metrics.json").read_bytes() == (tmp_path / "two" / "metrics.json").read_bytes()
    assert len(samples(tmp_path / "two")) == 7
