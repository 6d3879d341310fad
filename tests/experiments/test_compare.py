import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from magi_video.errors import MagiError
from magi_video.experiments.compare import Contender, Entrant, cells, compare, of_model, sentence
from magi_video.experiments.measure import Measures
from magi_video.experiments.verdicts import Judged, References, better_model
from tests.experiments.conftest import toy_detectors

SEES = References(floor=(60, 90), shuffled=(200, 260), copy_last=500)


@pytest.fixture(scope="module")
def recipe(measures: Measures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world's recipe as a file."""
    measures.workplace.record()
    path = tmp_path_factory.mktemp("recipes") / "toy.json"
    path.write_text(json.dumps(asdict(measures.world.preset)))
    return path


@pytest.fixture(scope="module")
def compared(measures: Measures, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("compared")
    return run(measures, recipe, out), out


def run(measures: Measures, recipe: Path, out: Path, **options: Any) -> dict[str, Any]:
    folder = measures.folder
    given = {"train_data": folder / "train", "num": 6, "frames": 12, "context_frames": 2, "detectors": toy_detectors()}
    return compare([f"ours={recipe}", f"{recipe}:masked"], folder / "test", out, **given | options)


def test_recipes_are_trained_scored_and_judged(compared: tuple[dict[str, Any], Path]) -> None:
    figures, out = compared
    assert list(figures["models"]) == ["ours", "toy"] and figures["num"] == 6
    assert list(figures["references"]) == ["real", "codec", "still", "copy_last", "shuffled"]
    assert [one["answer"] for one in figures["verdicts"]] == ["cannot tell"]
    assert "6 clips; from 64 on" in figures["verdicts"][0]["words"]
    index = json.loads((out / "runs" / "toy-seed0" / "model_index.json").read_text())
    assert index["forcing"] == "masked" and index["training"]["steps"] == 3
    page = (out / "compare.md").read_text()
    assert "| *copy-last* |" in page and "| **ours** |" in page and all(one in page for one in figures["words"])
    assert json.loads((out / "compare.json").read_text())["models"] == figures["models"]
    assert (out / "compare.png").stat().st_size > 1000
    assert (out / "models" / "toy" / "report.html").is_file()


def test_a_stopped_call_goes_on(
    compared: tuple[dict[str, Any], Path], measures: Measures, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures, out = compared
    (out / "compare.json").unlink()
    monkeypatch.setattr("magi_video.training.trainer.Trainer._optimize", lambda *_: pytest.fail("trained again"))
    again = run(measures, recipe, out)
    assert again["models"] == figures["models"] and again["verdicts"] == figures["verdicts"]


def test_a_model_that_has_seen_the_clips_is_told(
    compared: tuple[dict[str, Any], Path], measures: Measures, tmp_path: Path
) -> None:
    out = compared[1]
    models = [f"{name}={out / 'runs' / f'{name}-seed0'}" for name in ("ours", "toy")]
    options = {"num": 4, "frames": 12, "context_frames": 2, "detectors": toy_detectors(), "fid": False}
    figures = compare(models, measures.folder / "train", tmp_path / "seen", **options)
    assert sum("was trained on 16 of these videos" in told for told in figures["warnings"]) == 2


def test_what_two_models_allow_to_say() -> None:
    a, b = Judged("a", 100, (90, 110)), Judged("b", 150, (140, 160))
    assert better_model(a, b, SEES, 128).answer == "confirmed"
    assert better_model(b, a, SEES, 128).answer == "refuted"
    near = Judged("b", 115, (105, 125))
    assert "overlap: a 90…110 and b 105…125" in better_model(a, near, SEES, 128).why
    assert "no floor" in better_model(a, b, None, 128).why
    lost = Judged("b", 600, (550, 650))
    assert "b does not even beat copying" in better_model(a, lost, SEES, 128).why
    both = Judged("a", 520, (510, 530))
    assert "neither beats copying the last frame (500)" in better_model(both, lost, SEES, 128).why
    assert "63 clips" in better_model(a, b, SEES, 63).why


def test_a_perceptual_score_that_disagrees_is_named() -> None:
    def entrant(name: str, lpips: float) -> Entrant:
        return Entrant(name, [name], results=[{"paired": {"lpips": lpips}, "fvd": 1.0}])

    given = better_model(Judged("a", 100, (90, 110)), Judged("b", 150, (140, 160)), SEES, 128)
    told = sentence(entrant("a", 0.3), entrant("b", 0.2), given)
    assert told.startswith("a is better than b by FVD") and "LPIPS against the true frames says the opposite" in told
    assert "one training run each" in told
    assert "opposite" not in sentence(entrant("a", 0.1), entrant("b", 0.2), given)


@pytest.mark.parametrize(
    ("contenders", "message"),
    [
        (["doom"], "1 to compare"),
        (["doom", "doom"], "expected different ones"),
        (["doom", "moon"], "'moon' is no model"),
        (["doom", "tiny:moon"], "forcing must be one of"),
        (["doom", "a/b=tiny"], "no name for a folder"),
        (["doom", "tiny"], "tiny is a recipe and is trained first: give --train"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, contenders: list[str], message: str) -> None:
    with pytest.raises(MagiError, match=message) as raised:
        compare(contenders, tmp_path, tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_held_out_means_held_out(measures: Measures, recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(MagiError, match=r"16 videos of .* are in .* too"):
        run(measures, recipe, tmp_path / "out", train_data=measures.folder / "test")


def test_what_a_recipe_cannot_do_is_refused_before_it_is_trained(
    measures: Measures, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magi_video.experiments.compare.train", lambda *_: pytest.fail("trained"))
    for asked, said in (
        ({"labels": True}, "--labels: the model of ours takes none"),
        ({"interval": 99}, "interval must lie in"),
        ({"protocol": "moon"}, "unknown protocol 'moon'"),
        ({"actions": True, "controllability": True, "context_frames": 0}, "give --context-frames 1 or more"),
    ):
        with pytest.raises(MagiError, match=said):
            run(measures, recipe, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_how_far_actions_are_followed_is_in_the_table() -> None:
    rows = {"copy_last": {"fvd": 9.0}, "codec": {"fvd": 1.0}}
    result = {"fvd": 5.0, "fvd_interval": [4.0, 6.0], "fid": None, "motion": {}, "paired": {"psnr": 20.0}}
    followed = [result | {"controllability": {"delta_psnr": value}} for value in (1.5, 2.0)]
    assert cells(of_model(Entrant("a", ["a", "b"], results=followed), rows))[-2] == "1.75"
    assert cells(of_model(Entrant("a", ["a"], results=[result]), rows))[-2] == ""


def test_names_of_contenders(tmp_path: Path) -> None:
    (tmp_path / "model.v2").mkdir()
    assert Contender.parse(str(tmp_path / "model.v2")).name == "model.v2"
    assert Contender.parse("doom") == Contender("doom", model="doom"), "a shipped model comes before its preset"
    masked = Contender.parse("tiny:masked")
    assert masked.name == "tiny-masked" and masked.preset is not None and masked.preset.forcing == "masked"
    assert Contender.parse("people/model") == Contender("model", model="people/model")
