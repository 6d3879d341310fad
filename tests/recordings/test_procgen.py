"""Procgen through a stand-in of its interface; the real package has a wheel for one Python alone."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.recordings import procgen
from magi_video.recordings.policy import Explorer
from magi_video.recordings.record import record
from tests.recordings import procgen_stand_in


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    procgen_stand_in.install(monkeypatch)


@pytest.mark.usefixtures("package")
def test_levels_actions_and_ends(tmp_path: Path) -> None:
    game = procgen.ProcgenGame("procgen/CoinRun", frame_skip=1)
    assert game.actions.names == ("LEFT", "NOTHING", "RIGHT", "RIGHT+UP") and game.frame_rate == 15
    right = np.array([0, 0, 1, 0], np.float32)
    first = game.reset(5)
    assert first.shape == (64, 64, 3) and first[0, 0, 0] == 5 and game.reset(6)[0, 0, 0] == 6
    frames = [game.step(right) for _ in range(7)]
    assert frames[-1] is None and all(frame is not None for frame in frames[:-1]), "the wall ends the level"
    assert np.array_equal(game.reset(5), first)
    game.reset(5)
    moved, rested = game.step(right), game.step(np.zeros(4, np.float32))
    assert np.array_equal(moved, rested), "no action is no key"  # type: ignore[arg-type]
    record("procgen/coinrun", tmp_path / "made", episodes=3, max_frames=40)
    videos = VideoFolder(tmp_path / "made")
    assert len(videos.videos) == 3 and set(videos.action_names) <= set(game.actions.names)
    assert json.loads((tmp_path / "made" / "recording.json").read_text())["frame_rate"] == 15


@pytest.mark.usefixtures("package")
def test_the_explorer_runs_to_the_right() -> None:
    actions = procgen.ProcgenGame("procgen/coinrun", 1).actions
    explorer = Explorer(actions, [0])
    frame = np.zeros((64, 64, 3), np.uint8)
    held = np.stack([explorer.act(frame) for _ in range(4000)]).mean(0)
    share = dict(zip(actions.names, held, strict=True))
    assert share["RIGHT"] + share["RIGHT+UP"] > 2 * share["LEFT"] > 0 and share["NOTHING"] > 0.05
    changes = [not np.array_equal(explorer.act(frame), explorer.act(frame)) for _ in range(2000)]
    assert actions.hold == (3, 16) and 1 / 16 < np.mean(changes) < 1 / 4, "keys change within a jump"
    assert procgen.weights_of("bigfish", actions.names) == ()


@pytest.mark.usefixtures("package")
def test_an_unknown_game_is_told() -> None:
    with pytest.raises(MagiError, match=r"no game of Procgen is called 'coinrn'; similar: procgen/coinrun"):
        procgen.ProcgenGame("procgen/coinrn", 1)


def test_what_is_missing_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "procgen", None)
    with pytest.raises(MagiError, match="--no-deps procgen2 gym3 gym") as raised:
        procgen.ProcgenGame("procgen/coinrun", 1)
    assert "\n" not in str(raised.value)


def test_the_real_game() -> None:
    pytest.importorskip("procgen", reason=f"lacks Procgen: {procgen.install_procgen()}")
    game = procgen.ProcgenGame("procgen/coinrun", 1)
    assert len(game.actions.names) == 15
    frames = [game.reset(1), game.reset(2), game.reset(1)]
    assert np.array_equal(frames[0], frames[2]) and not np.array_equal(frames[0], frames[1])
    step = game.step(np.eye(15, dtype=np.float32)[7])
    assert step is not None and step.shape == (64, 64, 3)
    game.close()
