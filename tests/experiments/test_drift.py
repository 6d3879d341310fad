"""The comparison of cures for drift, at a scale of seconds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magi_video.errors import MagiError
from magi_video.experiments import drift_report
from magi_video.experiments.asked import DRIFT_ROWS
from magi_video.experiments.drift import drift
from magi_video.experiments.long import hold
from magi_video.experiments.measure import Measures
from magi_video.experiments.publish import publish
from magi_video.experiments.rollouts import Rollouts, windows_of
from magi_video.experiments.run import reproduce, write_result
from magi_video.experiments.runs import VARIANTS, Workplace, changed
from magi_video.experiments.worlds import CPU_WORLDS, World
from magi_video.training.display import Silent
from tests.experiments.conftest import toy_detectors


@pytest.fixture(scope="module")
def measures(world: World, tmp_path_factory: pytest.TempPathFactory) -> Measures:
    small = replace(world, num_clips=4, episodes=8, rollouts=3, rollout_lengths=(10, 24, 40), endless=True)
    folder = tmp_path_factory.mktemp("drift") / small.name
    return Measures(Workplace(small, folder, None, Silent()), fid_frames=2, detectors=toy_detectors())


def test_windows_lie_behind_the_given_frames_and_at_the_end_of_each_length() -> None:
    windows = windows_of(5, 16, (16, 64, 1000))
    assert windows.spans == {"early": (5, 21), "16": (0,), "64": (32, 48), "1000": (968, 984)}
    assert windows.frames == [*range(64), *range(968, 1000)] and windows.end("early") == 37
    rollouts = np.broadcast_to(np.array(windows.frames)[None, :, None, None, None], (3, len(windows.frames), 1, 1, 3))
    cut = windows.cut(rollouts, "1000")
    assert (
        cut.shape[:2] == (6, 16) and cut[0, :, 0, 0, 0].tolist() == list(range(968, 984)) and cut[3, 0, 0, 0, 0] == 984
    )


def test_every_row_is_a_recipe_of_its_own_or_one_of_table_1() -> None:
    base = CPU_WORLDS[0].preset
    cures = {name: changed(base, row.variant).exposure.exposure for name, row in DRIFT_ROWS.items()}
    assert cures == {"none": "none", "noise": "noise", "noisy-past": "noise"} | {
        name: name for name in ("resampling", "error-bank", "canvas")
    }
    resampling = changed(base, "exposure-resampling")
    assert resampling.exposure.exposure_options == {"plain_steps": "1920"}, "two fifths of 4,800"
    assert replace(resampling, exposure=base.exposure) == base and "exposure-none" in VARIANTS


def test_keys_are_held_on_and_on() -> None:
    first, second = np.array([[1.0], [2], [0]]), np.array([[3.0], [4], [5], [0]])
    assert hold([first, second], 8)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 1, 2]


def test_two_cures_to_the_page(measures: Measures, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[str]] = []
    drift(measures, [0], ["noise"], lambda figures: kept.append(list(figures["runs"])))
    assert kept == [["noise"]]
    figures = drift(measures, [0], ["noisy-past", "resampling"])
    assert list(figures["runs"]) == ["noise", "noisy-past", "resampling"], "what the folder holds stays in the table"
    early, noisy = (figures["runs"][name][0]["early"] for name in ("noise", "noisy-past"))
    assert early != noisy, "the same model, another past"
    assert not (measures.folder / "runs" / "noisy-past-seed0").exists()
    monkeypatch.setattr("magi_video.experiments.runs.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(Rollouts, "roll_part", lambda *_: pytest.fail("rolled out again"))
    assert json.dumps(drift(measures, [0], ["noise"])) == json.dumps(figures), "all is kept"
    real = figures["references"]["real"]
    assert real["early"]["oracle"]["position"] == 0 and set(real["late"]) == {"10", "24", "40"}
    assert figures["references"]["shuffled"]["late"] == {}
    assert set(figures["references"]["still"]["late"]) == set(real["late"])
    assert figures["references"]["copy_last"]["early"]["change"] == 0 < real["early"]["change"]

    out = measures.folder.parent
    write_result(out / "results" / "drift-balls.json", measures.world, figures)
    summary = json.loads((publish(out) / "reproduction.json").read_text())["drift"]["balls"]
    row, run = summary["rows"]["resampling"], figures["runs"]["resampling"][0]
    assert row["delta"]["40"][0]["FVD"] == pytest.approx(run["late"]["40"]["fvd"] - run["early"]["fvd"], abs=1e-3)
    assert set(row["delta"]) == {"24", "40"} and set(row["delta"]["40"][0]) == {"FVD", "speed"}
    assert "resampling against noise at 40" in summary["verdicts"]
    assert all(said.startswith("cannot tell") for said in summary["verdicts"].values()), "one seed"
    page = (out / "report" / "drift_balls.md").read_text()
    assert "`noisy-past` better than `noise` at 24 frames: cannot tell" in page and "| *copy_last* |" in page
    assert (measures.folder / "drift.png").is_file()


def test_the_rule_of_the_verdict() -> None:
    def scores(fvd: float, speed: float | None) -> dict[str, object]:
        per_clip = {"speed": [speed] * 4}
        return {"fvd": fvd, "fvd_interval": [fvd - 1, fvd + 1], "oracle": {"speed": speed, "per_clip": per_clip}}

    def runs(late: list[tuple[float, float | None]]) -> list[dict[str, object]]:
        return [{"seed": i, "early": scores(20, 0.2), "late": {"64": scores(*one)}} for i, one in enumerate(late)]

    figures = {
        "oracle": "balls", "lengths": [16, 64], "window": 16, "rollouts": 2,
        "references": {"real": {"early": scores(5, 0.1)}, "shuffled": {"early": scores(300, 9.0)},
                       "copy_last": {"early": scores(97, 2.0), "late": {"64": scores(200, 2.0)}}},
        "runs": {"none": runs([(90, 0.9), (95, 1.0), (99, 0.8)]), "canvas": runs([(50, 0.5), (60, 0.4), (55, 0.7)])},
    }  # fmt: skip
    assert drift_report.compared("canvas", "none", 64, figures).answer == "confirmed"
    assert drift_report.compared("none", "canvas", 64, figures).answer == "refuted"
    figures["runs"]["none"] = runs([(90, None), (95, 0.3), (99, 0.8)])
    assert drift_report.compared("canvas", "none", 64, figures).answer == "confirmed", "by FVD; speed cannot tell"
    assert drift_report.pairs(figures) == [("canvas", "none", 64)]
    assert drift_report.throughout("canvas", "none", [64], figures).answer == "confirmed"
    figures["lengths"].append(256)
    for name in ("none", "canvas"):
        for run, (fvd, speed) in zip(figures["runs"][name], [(90, 0.9), (95, 1.0), (99, 0.8)], strict=True):
            run["late"]["256"] = scores(fvd - (name == "canvas"), speed)
    assert drift_report.compared("canvas", "none", 256, figures).answer == "cannot tell", "the seeds overlap"
    assert drift_report.throughout("canvas", "none", [64, 256], figures).answer == "cannot tell"
    assert list(drift_report.claims(figures)) == ["canvas is better than none in long rollouts"]


def test_other_worlds_and_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MagiError, match="drift has no row 'hope'; expected some of none, noise"):
        reproduce("drift", tmp_path, scale="smoke", worlds=["balls"], rows=["hope"])
    with pytest.raises(MagiError, match="drift is measured in balls and coinrun; got worlds gameplay"):
        reproduce("drift", tmp_path, scale="smoke", worlds=["gameplay"])
