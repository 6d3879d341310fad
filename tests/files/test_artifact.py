"""A folder is made of recorded inputs: others are refused, the same go on, and what appears in it is whole."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from magi_video.errors import MagiError
from magi_video.files.artifact import Artifact, differences

RECIPE = {"recipe": {"codec": "pixels", "sizes": (1, 2)}, "seed": 0}


def test_another_recipe_is_refused_and_what_may_change_is_recorded(tmp_path: Path) -> None:
    def lasting(record: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in record.items() if name != "steps"}

    artifact = Artifact(tmp_path / "recipe.json", "latents", lasting)
    with artifact.making(RECIPE | {"steps": 1}):
        pass
    with artifact.making(RECIPE | {"steps": 2}):
        assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == 2
    before = (tmp_path / "recipe.json").read_bytes()
    other = {"recipe": {"codec": "pixels", "sizes": (1, 3)}, "seed": 1, "steps": 2}
    with (
        pytest.raises(MagiError, match=r"latents made with other settings \(sizes 1, 2 → 1, 3; seed 0 → 1\); use"),
        artifact.making(other),
    ):
        pass
    assert (tmp_path / "recipe.json").read_bytes() == before


def test_a_record_may_be_replaced_until_something_is_made_of_it_and_must_be_there_afterwards(tmp_path: Path) -> None:
    sample = tmp_path / "sample.npy"
    artifact = Artifact(tmp_path / "record.json", "samples", made=sample.exists)
    assert artifact.settle({"seed": 0}) == {"seed": 0} and artifact.check({"seed": 1}) is None
    assert artifact.settle({"seed": 1}) == {"seed": 1} == artifact.read()
    sample.touch()
    with pytest.raises(MagiError, match="seed 1 → 2"):
        artifact.check({"seed": 2})
    assert artifact.check({"seed": 1}) == {"seed": 1}
    (tmp_path / "record.json").unlink()
    with pytest.raises(MagiError, match=r"holds samples but no record\.json, so nothing says how they were made"):
        artifact.settle({"seed": 1})


def test_what_is_carried_comes_from_the_record_so_far_and_may_refuse(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path / "record.json", "a run", lambda record: {"seed": record["seed"]})

    def count(saved: dict[str, Any] | None) -> dict[str, Any]:
        if saved and saved["starts"] == 2:
            raise MagiError("twice is enough")
        return {"starts": 1 + (saved["starts"] if saved else 0)}

    assert [artifact.settle({"seed": 0}, count)["starts"] for _ in range(2)] == [1, 2]
    with pytest.raises(MagiError, match="twice is enough"):
        artifact.settle({"seed": 0}, count)
    assert artifact.read() == {"seed": 0, "starts": 2}


def test_published_files_appear_whole_and_the_record_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = Artifact(tmp_path / "codec" / "a.json", "a codec")
    order: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if target.parent == artifact.folder:
            order.append(target.name)
        real(source, target)

    monkeypatch.setattr("magi_video.files.artifact.os.replace", replace)
    artifact.publish(lambda part: (part / "weights").write_bytes(b"12"), {"steps": 3})
    assert order == ["weights", "a.json"] and artifact.read() == {"steps": 3}

    def fail(part: Path) -> None:
        (part / "weights").write_bytes(b"1")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        artifact.publish(fail, {"steps": 4})
    assert (tmp_path / "codec" / "weights").read_bytes() == b"12" and artifact.read() == {"steps": 3}
    assert sorted(path.name for path in (tmp_path / "codec").iterdir()) == ["a.json", "weights"], "no part is left"


def test_differences_name_what_changed_and_stay_short() -> None:
    before, now = {"a": {"b": 1, "c": "x" * 50}, "d": []}, {"a": {"b": 1, "c": None}, "d": [3]}
    assert differences(before, now) == ["c xxxxxxxxxxxx… → None", "d none → 3"]


def test_a_name_that_several_groups_have_is_named_with_its_group(tmp_path: Path) -> None:
    before, now = {"vae": {"steps": 2, "width": 1}, "seed": 0}, {"vae": {"steps": 8, "width": 2}, "seed": 1}
    assert differences(before, now) == ["seed 0 → 1", "steps 2 → 8", "width 1 → 2"]
    whole = {"recipe": {"train": {"steps": 5}, "vae": {"steps": 2}}}
    assert differences(before, now, [whole]) == ["seed 0 → 1", "vae.steps 2 → 8", "width 1 → 2"]
    artifact = Artifact(tmp_path / "run.json", "a run", lambda record: {"vae": record["vae"]})
    artifact.settle({"vae": {"steps": 2}, "train": {"steps": 5}})
    with pytest.raises(MagiError, match=r"other settings \(vae\.steps 2 → 8\)"):
        artifact.check({"vae": {"steps": 8}, "train": {"steps": 6}})
