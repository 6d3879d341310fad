import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magi_video.errors import MagiError
from magi_video.experiments import costs, table1_report
from magi_video.experiments.costs import equal_steps, spread, training_step_flops
from magi_video.experiments.measure import Measures
from magi_video.experiments.plots import line_of
from magi_video.experiments.publish import publish
from magi_video.experiments.rows import BUILDS, Row, all_rows
from magi_video.experiments.run import reproduce, write_result
from magi_video.experiments.runs import Workplace
from magi_video.experiments.table1 import budgets_of, table1
from magi_video.experiments.worlds import CPU_WORLDS, SMOKE_WORLDS, World
from magi_video.files.atomic import write_json
from magi_video.paradigms import PARADIGMS
from magi_video.training.display import Silent
from tests.experiments.conftest import toy_detectors


@pytest.fixture(scope="module")
def measures(world: World, tmp_path_factory: pytest.TempPathFactory) -> Measures:
    small = replace(world, num_clips=4, episodes=8)
    folder = tmp_path_factory.mktemp("table1") / small.name
    return Measures(Workplace(small, folder, None, Silent()), fid_frames=3, detectors=toy_detectors())


def test_every_paradigm_is_a_row() -> None:
    assert set(PARADIGMS) <= set(all_rows()) and all_rows()[0] == "complete"
    assert set(all_rows()) - set(PARADIGMS) <= set(BUILDS)
    base = CPU_WORLDS[0].preset
    for name in all_rows():
        row = Row.parse(name)
        preset = row.preset(base)
        assert preset.forcing == row.forcing and preset.forcing_options == dict(row.options)
        assert replace(preset, forcing="complete", forcing_options={}, sample=base.sample) == base
        assert "/" not in row.key and ":" not in row.key


def test_a_row_without_a_guard_is_compared_with_complete_without_it() -> None:
    base = CPU_WORLDS[0].preset
    row = Row.parse("raster-no-noise:attention=flat")
    assert (row.forcing, row.guard, row.base, row.key) == (
        "raster", "no-noise", "complete-no-noise", "raster-no-noise-attention-flat",
    )  # fmt: skip
    bare = row.preset(base)
    assert bare.exposure.noise_levels == 0 and base.exposure.noise_levels > 0
    assert replace(bare, exposure=base.exposure) == Row.parse("raster:attention=flat").preset(base)
    assert Row.parse("complete-no-noise").base == "complete-no-noise" and Row.parse("masked").base == "complete"
    with pytest.raises(MagiError, match="masked-no-hope"):
        Row.parse("masked-no-hope")


def test_many_curves_look_different() -> None:
    assert len({tuple(line_of(place).values()) for place in range(30)}) == 30
    assert line_of(0) == {"color": "C0", "linestyle": "-"} != line_of(10)


def test_the_budgets_cost_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    base = SMOKE_WORLDS[0].preset
    base = replace(base, train=replace(base.train, steps=1000))
    complete, masked = (Row.parse(name).preset(base) for name in ("complete", "masked"))
    counted = {preset.forcing: training_step_flops(preset) for preset in (complete, masked)}
    assert training_step_flops(masked) == counted["masked"], "a recipe has one number"
    monkeypatch.setattr(costs, "training_step_flops", lambda preset: counted[preset.forcing])
    assert equal_steps(complete, complete) == 1000
    longer = equal_steps(masked, complete)
    spent = [counted["complete"] * 1000, counted["masked"] * longer]
    assert spent[1] == pytest.approx(spent[0], rel=1e-3)
    assert 1400 < longer < 2000, "half the frames through the blocks, as many through the head"


def test_a_step_of_several_frames_is_shared() -> None:
    assert spread([(5.0, 0), (6.0, 2), (1.0, 1)]) == [3.0, 3.0, 1.0]


def test_two_rows_to_the_page(measures: Measures, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[str]] = []
    began = measures.folder / "table1" / "masked-seed7.json"
    point = {"fvd": 9.0, "psnr": 1.0, "loss": 2.0}
    run = {"row": "masked", "seed": 7, "budgets": {"equal_steps": 3, "equal_operations": 5}, "step_tflop": 0.1}
    write_json(began, run | {"points": {"2": point}})
    first = table1(measures, [0], ["complete"], lambda figures: kept.append(list(figures["runs"])))
    assert kept == [["complete"]] and list(first["runs"]) == ["complete"]
    short = table1(measures, [0], ["masked"], budget="equal-steps")
    assert max(map(int, short["runs"]["masked"][0]["points"])) == 3, "it ends at equal steps"
    shown = table1_report.page("balls", short | {"machine": None})
    assert "| `masked` | not yet |" in shown and "no run has reached the end of this budget" in shown
    assert table1_report.summarise("balls", short)["rows"]["masked"]["equal_operations"] is None
    figures = table1(measures, [0], ["masked", "window"])
    assert list(figures["runs"]) == ["complete", "masked"], "what the folder holds stays in the table"
    assert [one["seed"] for one in figures["runs"]["masked"]] == [0]
    assert [one["seed"] for one in figures["unfinished"]["masked"]] == [7]
    assert "window" in figures["refused"] and not (measures.folder / "runs" / "window-seed0").exists(), "2 frames given"
    monkeypatch.setattr("magi_video.experiments.runs.train", lambda *_, **__: pytest.fail("trained again"))
    again = table1(measures, [0], ["masked", "complete"])
    assert json.dumps(again) == json.dumps(figures)

    out = measures.folder.parent
    write_result(out / "results" / "table1-balls.json", measures.world, figures)
    report = publish(out)
    summary = json.loads((report / "reproduction.json").read_text())["table1"]["balls"]
    names = {"floor", "codec", "still", "copy_last", "shuffled", "n", "rows"}
    assert names <= set(summary) and summary["n"] == 4
    row = summary["rows"]["masked"]
    fields = {
        "seeds",
        "fvd",
        "oracle",
        "paired",
        "fid_by_frame",
        "drift",
        "seconds_per_frame",
        "train_steps",
        "train_tflop",
    }
    assert fields | {"verdict", "flops_per_frame", "curve", "equal_operations"} <= set(row)
    assert (
        len(row["fvd"]) == len(row["drift"]) == 1
        and len(row["fid_by_frame"]) == 3
        and len(row["seconds_per_frame"]) == 8
    )
    budgets = budgets_of(measures, Row.parse("masked"))
    assert row["train_steps"] == budgets["equal_steps"] == 3
    assert row["equal_operations"]["train_steps"] == budgets["equal_operations"] > 3
    assert {point["step"] for point in row["curve"][0]} == {1, 2, 3, budgets["equal_operations"]}
    assert summary["rows"]["complete"]["equal_operations"]["fvd"] == summary["rows"]["complete"]["fvd"]
    assert "cannot tell" in row["verdict"] and "1 of 3 seeds" in row["verdict"]
    page = (report / "table1_balls.md").read_text()
    assert "- `window`: " in page
    assert "| `masked` | 7 | 2 | 5 | 9.0 | 1.00 |  | 2.0000 |" in page
    assert "| `masked` | frame | causal | yes | yes | masked |" in page and "*copy-last*" in page
    assert (report / "table1_balls.png").stat().st_size > 1000
    assert (measures.folder / "table1.png").stat().st_size > 1000


def test_the_baselines_are_what_they_are_called(measures: Measures) -> None:
    references = table1(measures, [0], ["complete"])["references"]
    assert references["still"]["motion"]["fake_speed"] == 0 == references["codec"]["oracle"]["position"]
    assert references["floor"]["fvd"] < references["still"]["fvd"]
    assert references["shuffled"]["oracle"]["speed"] > references["floor"]["oracle"]["speed"]


def test_drift_is_positive_where_quality_falls() -> None:
    assert table1_report.drift([30, 29, *[20] * 8]) > 0 > table1_report.drift([20, 21, *[30] * 8])


def test_the_interval_over_clips_holds_the_mean() -> None:
    values = list(np.random.default_rng(0).normal(10, 1, 100))
    low, high = table1_report.interval_over_clips([*values, None])
    assert low < np.mean(values) < high and high - low == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [(("moon",), "forcing must be one of"), (("complete:colour=red",), "colour")],
)
def test_bad_rows_are_one_line(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(MagiError, match=message):
        reproduce("table1", tmp_path, rows=rows)
    with pytest.raises(MagiError, match=r"rows are of the recipes table1, .*drift, rollout, ablation, not of kv-cache"):
        reproduce("kv-cache", tmp_path, rows=("complete",))
    assert not list(tmp_path.iterdir())
