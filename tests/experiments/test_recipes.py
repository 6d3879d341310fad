import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.errors import MagiError
from magi_video.evaluation.baselines import baselines
from magi_video.evaluation.features import Detectors
from magi_video.experiments import recipes, tables, timing
from magi_video.experiments.clips import every, real_sets, ucf101_picks
from magi_video.experiments.gap import last_frame_loss
from magi_video.experiments.measure import Measures
from magi_video.experiments.publish import publish, summarise
from magi_video.experiments.rows import GUARDS
from magi_video.experiments.run import find_worlds, reproduce
from magi_video.experiments.runs import VARIANTS, Workplace, changed
from magi_video.experiments.verdicts import cache_verdict
from magi_video.experiments.worlds import CPU_WORLDS, GPU_WORLDS, World
from magi_video.files.json import read_json
from magi_video.files.lock import alone
from magi_video.training.display import Silent
from tests.experiments.conftest import toy_detectors
from tests.files.test_lock import other_process


def test_a_variant_changes_what_its_name_says() -> None:
    base = CPU_WORLDS[0].preset
    made = {name: changed(base, name) for name in (*VARIANTS, *(f"complete-{guard}" for guard in GUARDS))}
    assert made["ctf"] == base
    assert replace(made["mtf"], forcing="complete") == base
    assert made["complete-no-interval"].data.max_interval == 1 < base.data.max_interval
    assert replace(made["complete-no-interval"], data=base.data) == base
    assert made["complete-no-noise"].exposure.noise_levels == 0 < base.exposure.noise_levels
    assert replace(made["complete-no-noise"], exposure=base.exposure) == base
    assert made["complete-no-both"].data == made["complete-no-interval"].data
    assert made["complete-no-both"].exposure == made["complete-no-noise"].exposure


def test_both_scales_have_the_same_worlds() -> None:
    assert [world.name for world in CPU_WORLDS] == [world.name for world in GPU_WORLDS]
    for small, large in zip(CPU_WORLDS, GPU_WORLDS, strict=True):
        assert (small.given, small.interval, small.frames) == (large.given, large.interval, large.frames)


def test_the_rows_without_a_model() -> None:
    clips = np.random.default_rng(0).integers(0, 256, (3, 10, 4, 4, 3), np.uint8)
    rows = {name: every(change) for name, change in baselines(4, None).items()}
    assert list(rows) == ["still", "copy_last", "shuffled"], "no codec, no row of it"
    mixed = rows["shuffled"](clips)
    assert all(not np.array_equal(one, clip) for one, clip in zip(mixed, clips, strict=True))
    assert np.array_equal(np.sort(mixed, axis=1), np.sort(clips, axis=1))
    assert np.array_equal(rows["still"](clips)[:, 7], clips[:, 0])
    held = rows["copy_last"](clips)
    assert np.array_equal(held[:, :4], clips[:, :4]) and np.array_equal(held[:, 9], clips[:, 3])
    assert np.array_equal(every(baselines(0, None)["copy_last"])(clips), rows["still"](clips))


def test_the_real_sets_share_no_video(measures: Measures) -> None:
    reference, context = measures.sets
    assert reference.clips.shape == context.clips.shape == (8, 10, 16, 16, 3) and reference.actions is None
    assert all(not np.array_equal(a, b) for a in reference.clips for b in context.clips)
    again = real_sets(measures.workplace)
    assert all(np.array_equal(a.clips, b.clips) for a, b in zip(again, measures.sets, strict=True))


def test_the_score_tells_damage(measures: Measures) -> None:
    figures = recipes.sensitivity(measures, [0])
    fvd = {name: figures[name]["fvd"] for name in ("floor", "frozen", "noise")}
    assert fvd["floor"] < fvd["frozen"] < fvd["noise"]
    assert figures["frozen"]["motion"]["fake_speed"] == 0


@pytest.mark.parametrize("fast", [True, False])
def test_the_detectors_precision_does_not_hang_on_threads(measures: Measures, tmp_path: Path, fast: bool) -> None:
    seen = []

    def video(clip_1CTHW: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return toy_detectors().video(clip_1CTHW)

    world = replace(measures.world, detector_precision="bf16" if fast else "float32")
    workplace = replace(measures.workplace, world=world, folder=tmp_path)
    counted = Measures(workplace, detectors=Detectors(video))
    torch.set_num_threads(2)
    try:
        counted.features("any", lambda: measures.context)
    finally:
        torch.set_num_threads(1)
    assert seen == [fast] * len(measures.context)


def test_models_are_trained_once_and_further(measures: Measures, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace = measures.workplace
    first = workplace.model("mtf", 5, 2)
    longer = workplace.model("mtf", 5, 4)
    assert read_json(longer / "model_index.json")["training"]["steps"] == 4
    assert read_json(first / "model_index.json")["training"]["steps"] == 2  # what was kept is not written over
    monkeypatch.setattr("magi_video.experiments.runs.train", lambda *_: pytest.fail("trained again"))
    assert workplace.model("mtf", 5, 2) == first
    with pytest.raises(MagiError, match="trained to step 4 without keeping its model of step 3"):
        workplace.model("mtf", 5, 3)


def test_ctf_against_mtf_to_the_report(measures: Measures) -> None:
    out = measures.folder.parent
    from magi_video.files.atomic import write_json

    (out / "results").mkdir(exist_ok=True)
    write_json(out / "results" / "sensitivity-balls.json", recipes.sensitivity(measures, [0]))
    figures = recipes.ctf_vs_mtf(measures, [0, 1])
    assert figures["steps"]["mtf_equal_time"] == measures.workplace.equal_time_steps(3)
    assert {len(runs) for runs in figures["runs"].values()} == {2}
    assert all("last_frame_loss" in run for runs in figures["runs"].values() for run in runs)
    assert figures == recipes.ctf_vs_mtf(measures, [0, 1])  # from what was kept
    write_json(out / "results" / "ctf-vs-mtf-balls.json", figures)
    report = publish(out)
    summary = read_json(report / "reproduction.json")["ctf_vs_mtf"]
    ctf, mtf = (np.mean([run["fvd"] for run in figures["runs"][name]]) for name in ("ctf", "mtf_equal_time"))
    assert summary["world"] == "balls" and summary["seeds"] == [0, 1]
    assert summary["reduction"] == pytest.approx(1 - ctf / mtf, abs=1e-4)
    assert {"fvd_ctf", "fvd_mtf", "floor", "shuffled", "frozen"} <= set(summary)
    assert "| balls | CTF |" in (report / "tables.md").read_text()
    assert (report / "ctf_vs_mtf_balls.png").stat().st_size > 1000


def test_the_gap_is_in_the_masked_past_alone(measures: Measures) -> None:
    clips, workplace = measures.context[:4], measures.workplace
    complete = last_frame_loss(workplace.model("ctf", 9, 25), clips, 1)
    masked = last_frame_loss(workplace.model("mtf", 9, 25), clips, 1)
    assert complete["as_trained"] == complete["as_generated"]
    assert masked["as_trained"] != masked["as_generated"]
    assert last_frame_loss(workplace.model("mtf", 9, 25), clips, 1) == masked


def test_time_against_frames(measures: Measures, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = ("complete", "raster", "window")
    short = partial(timing.time_against_frames, lengths=(2, 5))
    monkeypatch.setattr(recipes, "all_rows", lambda: list(timed))
    monkeypatch.setattr(recipes, "time_against_frames", short)
    monkeypatch.setattr(timing, "REPEATS", 1)
    figures = recipes.kv_cache(measures, [0])
    assert tuple(figures["rows"]) == timed and figures["frames"] == [2, 5]
    for name, row in figures["rows"].items():
        assert 0 < row["seconds_cached"][0] < row["seconds_cached"][1] and len(row["seconds_per_frame_cached"]) == 5
        assert row["past_bytes"][0] > 0 and row["peak_bytes"][0] > 0
        assert row["cached"] == (name != "window")
        if row["cached"]:  # keys and values of all blocks against the tokens alone; and they are read again
            assert row["past_bytes"][1] > row["past_bytes_uncached"][1]
            assert row["peak_bytes_uncached"][1] > row["peak_bytes_uncached"][0]
    assert figures["seconds_cached"] == figures["rows"]["complete"]["seconds_cached"]
    assert "| `window` | no |" in tables.write(summarise({"kv-cache": {"balls": figures}}))


def test_memory_counts_what_is_alive() -> None:
    other = torch.ones(10)
    with timing.Memory() as counted:
        one = torch.zeros(1000) + 1
        assert counted.held == 4000 and counted.peak == 8000
        one.add_(other[:1])  # in place, and a view: no new memory
        assert one[:10].view(2, 5).shape == (2, 5) and counted.held == 4000
        del one
        assert counted.held == 0 and counted.peak == 8000


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({}, "confirmed"),
        ({"r2": 0.998}, "refuted"),
        ({"r2_uncached": 0.9999}, "refuted"),
        ({"seconds_uncached": [9.0]}, "refuted"),
        ({"cached": False}, "cannot tell"),
    ],
)
def test_the_cache_has_a_verdict(changed: dict[str, object], answer: str) -> None:
    figures = {
        "cached": True, "frames": [128], "r2": 0.9995, "r2_uncached": 0.95,
        "seconds_cached": [10.0], "seconds_uncached": [50.0],
    }  # fmt: skip
    assert cache_verdict(figures | changed).answer == answer


def test_a_single_seed_has_no_deviation() -> None:
    run = {"fvd": 5.0, "motion": {"speed_distance": 1.0}}
    runs = {"ctf": [run], "mtf_equal_steps": [run], "mtf_equal_time": [run | {"fvd": 10.0}]}
    figures = {"runs": runs, "seeds": [0], "steps": {}, "step_time": {}, "given": 1}
    told = {"floor": {"fvd": 1.0, "motion": {}}}
    summary = summarise({"ctf-vs-mtf": {"ucf101": figures}, "sensitivity": {"ucf101": told}})["ctf_vs_mtf"]
    assert summary["world"] == "ucf101" and summary["reduction"] == 0.5
    assert summary["reduction_over_floor"] == pytest.approx(1 - 4 / 9, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "nothing"}, "unknown recipe"),
        ({"recipe": "kv-cache", "seeds": ()}, "seeds"),
        ({"recipe": "kv-cache", "seeds": (1, 1)}, "seeds"),
        ({"recipe": "kv-cache", "worlds": ("moon",)}, "unknown world"),
        ({"recipe": "sensitivity", "worlds": ("ucf101",)}, "--data"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: dict, message: str) -> None:
    recipe = arguments.pop("recipe")
    with pytest.raises(MagiError, match=message) as raised:
        reproduce(recipe, tmp_path, **arguments)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("results/*"))


def test_another_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MagiError):
        reproduce("sensitivity", tmp_path, worlds=("ucf101",))
    with pytest.raises(MagiError, match=r"results made with other settings \(scale cpu → gpu\); use another --out"):
        reproduce("sensitivity", tmp_path, worlds=("ucf101",), scale="gpu")


def test_one_call_at_a_time_works_on_a_world(tmp_path: Path) -> None:
    with other_process(lambda: alone(tmp_path / "ucf101")) as told:
        assert told == "entered"
        with pytest.raises(MagiError, match=f"^{tmp_path}/ucf101: another run is at work there"):
            reproduce("sensitivity", tmp_path, worlds=("balls", "ucf101"))
        assert not (tmp_path / "balls" / "train").exists(), "told before anything is made"
    with other_process(lambda: alone(tmp_path / "balls")), pytest.raises(MagiError, match="--data"):
        reproduce("sensitivity", tmp_path, worlds=("ucf101",))


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MagiError, match="no results"):
        publish(tmp_path)


def test_ucf101_sets_are_disjoint(ucf101: Path, tmp_path: Path) -> None:
    world: World = replace(find_worlds("cpu", ["ucf101"])[0], num_clips=3)
    reference, context = (one.clips for one in real_sets(Workplace(world, tmp_path, ucf101, Silent())))
    assert len(reference) == len(context) <= 3 and reference.shape[1:] == (16, 64, 64, 3)
    assert all(not np.array_equal(a, b) for a, b in zip(reference, context, strict=True))
    record = read_json(tmp_path / "sets.json")
    assert len(record["reference"]) == len(reference) and record["seed"] == 0


def test_ucf101_sets_are_balanced_and_share_no_group() -> None:
    videos = [
        (f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi", 30 if clip == 3 else 100, label)
        for label, name in enumerate(("Archery", "Biking", "Diving"))
        for group in range(1, 8)
        for clip in range(1, 4 + label)
    ]
    names, lengths, labels = zip(*videos, strict=True)
    reference, context = ucf101_picks(names, lengths, labels, 46, 12)
    for picks in (reference, context):
        assert len(picks) == len(set(picks)) == 12
        assert sorted(labels[video] for video, _ in picks) == [0] * 4 + [1] * 4 + [2] * 4, "classes are balanced"
        assert all(lengths[video] >= 46 and start == 27 for video, start in picks), "the middle of videos long enough"
    groups = [{names[video].split("_c")[0] for video, _ in picks} for picks in (reference, context)]
    assert not groups[0] & groups[1], "no group on both sides"
    assert ucf101_picks(names, lengths, labels, 46, 12) == (reference, context)
    assert reference[:3] != sorted(reference)[:3], "not the first of a sorted list"
    few = ucf101_picks(names, lengths, labels, 46, 500)
    assert len(few[0]) == len(few[1]) < 60, "as many on both sides"


def test_results_of_another_version_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "rollout-balls.json").write_text('{"frame": [0, 32], "fvd": {"ctf": [208.2, 275.6]}}')
    with pytest.raises(
        MagiError, match=r"rollout-balls\.json: has no 'references': another version of the recipe has left it"
    ) as told:
        publish(tmp_path)
    assert "\n" not in str(told.value)


def test_sampling_steps(measures: Measures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "MASK_STEPS", (1, 2))
    monkeypatch.setattr(recipes, "DENOISE_STEPS", (2,))
    grid = recipes.sampling_steps(measures, [0])["grid"]
    assert [(entry["mask_steps"], entry["denoise_steps"]) for entry in grid] == [(1, 2), (2, 2)]
    assert all(entry["seconds_per_frame"] > 0 and "fvd" in entry and "lpips" in entry for entry in grid)


def test_what_is_missing_to_record_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MagiError, match="gymnasium is not installed: pip install"):
        reproduce("table1", tmp_path, scale="smoke", worlds=("balls",), rows=("complete",))


def test_reading_the_balls_needs_no_game() -> None:
    code = "import sys; sys.modules['gymnasium'] = None; import magi_video.experiments.run"
    subprocess.run([sys.executable, "-c", code], check=True)
