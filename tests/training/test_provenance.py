"""A run keeps to its data: other videos are refused, or taken where that is asked for, and recorded."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from magi_video.errors import MagiError
from magi_video.recipe import Preset
from magi_video.training.display import Silent
from magi_video.training.encode import encode
from magi_video.training.run import train
from magi_video.video.video import write_video
from tests.data.examples import replace_unseen
from tests.training.conftest import moving_square


class Lines(Silent):
    """What was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def make_videos(folder: Path, names: str) -> Path:
    for number, name in enumerate(names):
        write_video(folder / f"{name}.mp4", moving_square(12, 3 * number, 1 + ord(name) % 2), 10.0, crf=4)
    return folder


def go(preset: Preset, data: Path, out: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """Train; the run's record, and what was said."""
    lines = Lines()
    train(preset, data, out, display=lines, **options)
    return json.loads((out / "run.json").read_text()), "\n".join(lines.said)


def test_a_run_goes_on_with_its_own_data_alone(tmp_path: Path, recipe: Callable[..., Preset]) -> None:
    a, b, run = make_videos(tmp_path / "a", "pqr"), make_videos(tmp_path / "b", "xyz"), tmp_path / "run"
    record, said = go(recipe(steps=2), a, run)
    assert record["data"] == {"videos": 3, "frames": 36, "sha256": record["data"]["sha256"]} and "data" not in said
    again, said = go(recipe(steps=2), Path(shutil.copytree(a, tmp_path / "copy")), run)
    assert again["data"] == record["data"] and "data" not in said
    with pytest.raises(
        MagiError, match=r"3 videos gone, 3 new \(gone: p.mp4, q.mp4, r.mp4\); refused: .*--allow-other"
    ):
        go(recipe(steps=3), b, run)
    assert json.loads((run / "run.json").read_text()) == again, "a refused run is as it was"
    other, said = go(recipe(steps=3), b, run, allow_other_data=True)
    assert "goes on with other data: 3 videos gone, 3 new" in said
    (earlier,) = other["earlier_data"]
    assert earlier | record["data"] == earlier and earlier["until_step"] == 2
    assert other["data"]["sha256"] not in (None, record["data"]["sha256"])
    training = json.loads((run / "model_index.json").read_text())["training"]
    assert training["data"]["sha256"] == other["data"]["sha256"] and training["data"]["earlier_data"] == [earlier]
    kept, said = go(recipe(steps=4), b, run)
    assert kept["earlier_data"] == [earlier] and "other data" not in said


def test_a_video_replaced_unseen_is_found(tmp_path: Path, recipe: Callable[..., Preset]) -> None:
    data, run = make_videos(tmp_path / "data", "pq"), tmp_path / "run"
    go(recipe(steps=2), data, run)
    replace_unseen(data / "q.mp4")
    with pytest.raises(MagiError, match=r"1 video changed \(changed: q.mp4\)"):
        go(recipe(steps=3), data, run)


def test_a_run_from_before_takes_up_its_data(tmp_path: Path, recipe: Callable[..., Preset]) -> None:
    data, run = make_videos(tmp_path / "data", "pq"), tmp_path / "run"
    record, _ = go(recipe(steps=2), data, run)
    (run / "data.json").unlink()
    (run / "run.json").write_text(json.dumps({name: record[name] for name in ("preset", "seed")}))
    again, said = go(recipe(steps=2), data, run)
    assert again == record and "begun before data was recorded" in said
    with pytest.raises(MagiError, match="of other data"):
        go(recipe(steps=3), make_videos(tmp_path / "b", "x"), run)


def test_before_anything_is_made_data_may_change(tmp_path: Path, recipe: Callable[..., Preset]) -> None:
    run, preset = tmp_path / "run", recipe(steps=2)
    labelled = replace(preset, model=replace(preset.model, labels=True))
    with pytest.raises(MagiError, match="the videos lie in no class folders"):
        go(labelled, make_videos(tmp_path / "a", "pq"), run)
    shutil.rmtree(run / "codec")
    record, _ = go(preset, make_videos(tmp_path / "b", "xyz"), run)
    assert record["data"]["videos"] == 3 and "earlier_data" not in record


def test_a_cache_says_what_has_become_of_its_videos(tmp_path: Path, recipe: Callable[..., Preset]) -> None:
    data, cache, lines = make_videos(tmp_path / "data", "pqr"), tmp_path / "cache", Lines()
    preset = recipe()
    encode(preset, data, cache, display=lines)
    first = json.loads((cache / "recipe.json").read_text())
    assert first["data"]["videos"] == 3
    replace_unseen(data / "q.mp4")
    with pytest.raises(MagiError, match=r"latents of another data set .*1 video changed \(changed: q.mp4\)"):
        train(preset, data, tmp_path / "run", latents=cache)
    assert encode(preset, data, cache, display=lines).shards == [0]
    assert "goes on with other data: 1 video changed (changed: q.mp4), and with the codec that it has" in lines.said[-1]
    assert json.loads((cache / "recipe.json").read_text())["earlier_data"][0]["sha256"] == first["data"]["sha256"]
    record, _ = go(preset, data, tmp_path / "run", latents=cache)
    lines.said.clear()
    train(preset, None, tmp_path / "alone", display=lines, latents=cache)
    assert json.loads((tmp_path / "alone" / "run.json").read_text())["data"] == record["data"]


def test_a_cache_from_before_is_taken_up(
    tmp_path: Path, recipe: Callable[..., Preset], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache, lines, preset = make_videos(tmp_path / "data", "pq"), tmp_path / "cache", Lines(), recipe()
    monkeypatch.setattr("magi_video.data.scan.content_digest", lambda path: "")
    old = encode(preset, data, cache).cache
    monkeypatch.undo()
    path = cache / "recipe.json"
    path.write_text(json.dumps({key: one for key, one in json.loads(path.read_text()).items() if key != "data"}))
    assert not old.table.contents
    _, said = go(preset, data, tmp_path / "run", latents=cache)
    assert "made before the contents of videos were recorded" in said
    new = encode(preset, data, cache, display=lines)
    assert new.shards == [] and len(new.cache.table.contents) == 2
    assert any("begun before data was recorded" in line for line in lines.said)
    assert encode(preset, data, cache).shards == []
    replace_unseen(data / "q.mp4")
    assert encode(preset, data, cache).shards == [0]
