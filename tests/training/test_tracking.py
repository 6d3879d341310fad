"""Trackers by name: TensorBoard, none, and libraries that may be missing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType

from magi_video.errors import MagiError
from magi_video.recipe import Preset
from magi_video.training.run import train

Recipe = Callable[..., Preset]


class FakeWandb(ModuleType):
    """As much of wandb as accelerate calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0
        self.configured: dict[str, Any] = {}
        self.config = SimpleNamespace(update=lambda values, **_: self.configured.update(values))

    def init(self, **settings: Any) -> Any:
        self.started.append(settings)
        return SimpleNamespace(log=lambda values, step: self.logged.append((step, values)), finish=self.finish)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD, LoggerType.WANDB])
    return fake


def test_tensorboard_unless_told_otherwise(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe(steps=2, log_every=1), videos, tmp_path / "run")
    assert list((tmp_path / "run" / "logs" / "tensorboard").rglob("events.out*"))


def test_none_leaves_the_runs_own_log_alone(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe(steps=2, log_every=1, tracker="none"), videos, tmp_path / "run")
    assert not (tmp_path / "run" / "logs").exists()
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


def test_wandb_gets_the_recipe_and_the_figures_and_a_resumed_run_is_the_same(
    videos: Path, recipe: Recipe, tmp_path: Path, wandb: FakeWandb
) -> None:
    train(recipe(steps=2, log_every=1, tracker="wandb"), videos, tmp_path / "run")
    train(recipe(steps=3, log_every=1, tracker="wandb"), videos, tmp_path / "run")
    first, second = wandb.started
    assert first == second and first["project"] == "magi-video" and first["name"] == "run"
    assert first["resume"] == "allow" and str(tmp_path) not in json.dumps(first)
    assert [step for step, _ in wandb.logged] == [1, 2, 3] and wandb.finished == 2
    assert {"loss", "gradient_norm", "learning_rate"} <= set(wandb.logged[0][1])
    assert wandb.configured["forcing"] == "complete" and wandb.configured["train"]["batch_size"] == 4


def test_another_tracker_is_no_other_recipe(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe(steps=2), videos, tmp_path / "run")
    train(recipe(steps=3, tracker="none"), videos, tmp_path / "run")


def test_a_missing_library_is_told_before_anything_is_done(
    videos: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    with pytest.raises(MagiError, match="tracker trackio is not installed: pip install trackio") as error:
        train(recipe(tracker="trackio"), videos, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_be_started_is_told_in_one_line(
    videos: Path, recipe: Recipe, tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("api_key not configured\nrun wandb login")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(MagiError, match=r"tracker wandb cannot be started \(api_key not configured\)"):
        train(recipe(steps=2, tracker="wandb"), videos, tmp_path / "run")
