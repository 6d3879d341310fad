from dataclasses import replace

import numpy as np
import pytest

from magi_video.experiments import own_past, tables
from magi_video.experiments.measure import Measures
from magi_video.experiments.publish import summarise
from magi_video.experiments.runs import Workplace
from magi_video.experiments.starts import starts
from magi_video.experiments.verdicts import start_verdict
from magi_video.experiments.worlds import World
from magi_video.files.json import read_json
from magi_video.training.display import Silent
from tests.experiments.conftest import toy_detectors


@pytest.fixture(scope="module")
def measures(world: World, tmp_path_factory: pytest.TempPathFactory) -> Measures:
    small = replace(world, num_clips=4, episodes=8)
    folder = tmp_path_factory.mktemp("starts") / small.name
    return Measures(Workplace(small, folder, None, Silent()), detectors=toy_detectors())


def test_models_begin_from_none_one_and_five_frames(measures: Measures) -> None:
    figures = starts(measures, [0], ["complete", "genie"])
    assert set(figures["starts"]) == {"0", "1", "5"}
    assert figures["starts"]["0"]["rows"]["genie"]["refused"]
    sets = {}
    for given, start in figures["starts"].items():
        assert set(start["references"]) == {"floor"} | ({"still", "shuffled"} if given == "0" else {"copy_last"})
        row = start["rows"]["complete"]
        assert row["seeds"] == [0] and row["fvd"][0] > 0 and row["verdict"].startswith("cannot tell: 1 of 3 seeds")
        assert ("oracle" in row) == (given != "0"), "without a given frame nothing is to be continued"
        sets[given] = np.load(measures.folder / "samples" / f"complete-seed0-step3-start{given}.npy")
        count = int(given)
        assert np.array_equal(sets[given][:, :count], measures.context[:, :count])
        assert not np.array_equal(sets[given][:, count], measures.context[:, count])
        assert (measures.folder / f"starts-{given}.png").stat().st_size > 1000
    assert not any(np.array_equal(a, b) for a, b in zip(sets["0"], sets["0"][1:], strict=False)), "each has its noise"
    assert starts(measures, [0], ["complete", "genie"]) == figures
    page = tables.write(summarise({"starts": {"balls": figures}}))
    assert "| 0 | `genie` |  |  | cannot begin so: " in page and "| 5 | *last given frame held* |" in page
    kept = read_json(measures.folder / "scores" / "copy_last-start1.json")
    assert kept["motion"]["fake_speed"] == 0, "of one frame, the last is the first"


def test_the_last_frame_behind_both_pasts(measures: Measures) -> None:
    figures = own_past.own_past(measures, [0, 1], ["complete"])
    assert figures["given"] == [2, 9] and set(figures["errors"]) == {"copy_last", "complete"}
    kept, (run, other) = figures["errors"]["copy_last"][0], figures["errors"]["complete"]
    assert kept["true"]["position"] < kept["own"]["position"] == kept["by_frame"]["position"][-1], "balls move on"
    assert len(run["by_frame"]["position"]) == 8 and run["by_frame"] != other["by_frame"]
    assert run["true"]["position"] is not None
    page = own_past.page(figures)
    assert "| error of position | 9 true frames before | 2 true, then its own |" in page and "| `complete` | " in page
    own_past.curves(figures).savefig(measures.folder / "curves.png")
    figures["errors"] |= dict.fromkeys(["complete-no-noise", "raster:attention=flat"], figures["errors"]["complete"])
    rows = own_past.page(figures).splitlines()[2:]
    labels = ["*copy-last*", "`complete`", "`complete-no-noise`", "`raster:attention=flat`"]
    assert [row.split(" | ")[0] for row in rows] == [f"| {label}" for label in labels]


@pytest.mark.parametrize(
    ("fvd", "position", "answer"),
    [
        ([90, 95, 99], [9, 9, 9], "confirmed"),
        ([90, 95, 99], [9, 9, 21], "cannot tell"),
        ([90, 95], [9, 9], "cannot tell"),
        ([110, 120, 130], [21, 22, 23], "refuted"),
        ([110, 120, 130], [9, 9, 9], "cannot tell"),
    ],
)
def test_a_start_has_a_verdict(fvd: list[float], position: list[float], answer: str) -> None:
    assert start_verdict({"FVD": (fvd, [100, 140]), "position": (position, [20])}).answer == answer
