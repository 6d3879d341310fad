"""A data set is one file: a new one is trained on, planned for, encoded and scored by being written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from magi_video.cli import main
from magi_video.data.folder import DATA_SETS
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.evaluation.realset import open_videos
from magi_video.pipeline import MagiVideoPipeline
from tests.adding import added
from tests.data.examples import write_numbered

FILE = '''
"""Clips that a list names: "train walk.mp4 indoors" in a line of clips.txt."""

from magi_video.data.folder import VideoFolder, register
from magi_video.files.json import read_text


@register
class Listed(VideoFolder):
    name = "listed"
    title = "Listed clips"
    training_videos = 2
    mean_frames = 12

    def __init__(self, root, subset="train", *, min_frames=1, index=None, sample=None, follow_links=None):
        self._begin(root, sample, follow_links)
        rows = [line.split() for line in read_text(self.root / "clips.txt").splitlines()]
        rows = [(file, label) for where, file, label in rows if subset in (where, "all")]
        self.class_names = sorted({label for _, label in rows})
        labels = [self.class_names.index(label) for _, label in rows]
        self._add([self.root / file for file, _ in rows], labels, min_frames, index)

    @classmethod
    def recognises(cls, root):
        return (root / "clips.txt").is_file()

    @classmethod
    def for_evaluation(cls, root, subset, index=None):
        return cls(root, subset, index=index), []
'''
RECIPE = {
    "data": {"dataset": "listed", "height": 16, "width": 16, "num_frames": 4, "max_interval": 2},
    "codec": {"codec": "pixels"},
    "model": {"patch_size": 8, "hidden": 32, "depth": 1, "heads": 2, "mlp": 64, "head_width": 32, "head_depth": 1,
              "labels": True},
    "train": {"batch_size": 2, "steps": 2, "workers": 0, "sample_every": 0},
    "sample": {"mask_steps": 2, "denoise_steps": 2},
}  # fmt: skip


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[Path]:
    """The folder of such a data set, which there is while the test runs."""
    root = tmp_path / "clips"
    lines = []
    for name, frames, label, where in (
        ("walk", 12, "indoors", "train"), ("run", 12, "outdoors", "train"), ("jump", 20, "outdoors", "test"),
    ):  # fmt: skip
        write_numbered(root / f"{name}.mp4", frames, height=16, width=16)
        lines.append(f"{where} {name}.mp4 {label}")
    (root / "clips.txt").write_text("\n".join(lines))
    with added(tmp_path / "listed.py", FILE, DATA_SETS, "listed"):
        yield root


def test_one_file_trains_and_generates(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = tmp_path / "recipe.json", tmp_path / "run"
    recipe.write_text(json.dumps(RECIPE))
    assert main(["train", str(recipe), "--data", str(listed), "--out", str(out)]) == 0, capsys.readouterr().err
    pipe = MagiVideoPipeline.from_pretrained(out)
    assert pipe.config.class_names == ["indoors", "outdoors"]
    assert pipe.config.training["data"]["frames"] == 24, "the videos of the training subset"
    assert main(["generate", str(out), "--label", "indoors", "--frames", "3", "--out", str(tmp_path / "samples")]) == 0
    assert (tmp_path / "samples" / "sample_000.mp4").stat().st_size > 0


def test_the_plan_and_the_latents_know_it(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, cache = tmp_path / "recipe.json", tmp_path / "cache"
    recipe.write_text(json.dumps(RECIPE))
    assert main(["encode", str(recipe), "--data", str(listed), "--out", str(cache)]) == 0, capsys.readouterr().err
    assert json.loads((cache / "recipe.json").read_text())["recipe"]["dataset"] == "listed"
    assert main(["plan", str(recipe), "--devices", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["latents"]["videos"] == 2, "its published number"
    other = ["train", str(recipe), "--latents", str(cache), "--out", str(tmp_path / "run"), "--dataset", "folder"]
    assert main(other) == 1 and "dataset listed → folder" in capsys.readouterr().err


@pytest.mark.usefixtures("cache")
def test_its_own_split_is_scored(listed: Path) -> None:
    protocol = next(one for one in PROTOCOLS.values() if one.split == "test")
    videos, warnings = open_videos(listed, protocol)
    assert videos.names == ["jump.mp4"] and not warnings


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGI_CACHE", str(tmp_path / "cache_of_tests"))


def test_a_name_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "v.mp4").touch()
    assert main(["train", "tiny", "--data", str(tmp_path), "--out", "never", "--dataset", "listed"]) == 1
    assert "dataset must be one of folder, kinetics600, ucf101, got 'listed'" in capsys.readouterr().err
