import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.files.atomic import HOST
from magi_video.files.lock import alone
from magi_video.installation import install_command
from magi_video.recordings.environments import open_game
from magi_video.recordings.policy import Explorer
from magi_video.recordings.record import record
from magi_video.video.video import read_frames

gymnasium = pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")


class Counter(gymnasium.Env):
    """Shows the number of the step and of the last action; ends after `length` steps."""

    metadata = {"render_modes": [], "render_fps": 20}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def __init__(self, length: int = 40) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps, self.offset = 0, int(self.np_random.integers(100))
        return self._picture(0), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.steps += 1
        return self._picture(int(action)), 0.0, self.steps >= self.length, False, {}

    def _picture(self, action: int) -> np.ndarray:
        picture = np.full((32, 32, 3), self.offset + self.steps, dtype=np.uint8)
        picture[16:] = 20 * action
        return picture


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    gymnasium.register("MagiCounter-v0", Counter)


def actions_of(video: Path) -> list[dict[str, float]]:
    lines = video.with_name(f"{video.stem}.actions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["frame"] for row in rows] == list(range(len(rows)))
    return [row["action"] for row in rows]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_action_i_leads_from_frame_i_to_the_next(tmp_path: Path) -> None:
    summary = record("MagiCounter-v0", tmp_path / "r", episodes=2, height=32, width=32)
    assert (summary.episodes, summary.frames, summary.frame_rate) == (2, 80, 20)
    for episode in range(2):
        path = tmp_path / "r" / f"episode_{episode:05d}.mp4"
        frames, actions = read_frames(path).astype(int), actions_of(path)
        assert len(frames) == len(actions) == 40 and actions[-1] == {}
        assert (np.abs(np.diff(frames[:, 8, 16, 0]) - 1) <= 2).all()  # no frame lost or doubled
        for before, action in enumerate(actions[:-1]):
            [(name, value)] = action.items()
            assert value == 1
            shown = round(frames[before + 1, 24, 16, 0] / 20) - 5
            assert name == f"action_{shown}"


def test_recordings_are_a_function_of_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        record("MagiCounter-v0", tmp_path / name, episodes=2, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["episode_00000.mp4"] != contents(tmp_path / "c")["episode_00000.mp4"]
    assert contents(tmp_path / "a")["episode_00000.mp4"] != contents(tmp_path / "a")["episode_00001.mp4"]


def test_more_episodes_continue_the_set(tmp_path: Path) -> None:
    record("MagiCounter-v0", tmp_path / "whole", episodes=4)
    record("MagiCounter-v0", tmp_path / "parts", episodes=2)
    first = contents(tmp_path / "parts")
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "parts").glob("episode*")}
    done: list[tuple[int, int, int]] = []
    summary = record("MagiCounter-v0", tmp_path / "parts", episodes=4, progress=lambda *step: done.append(step))
    assert (summary.kept, summary.episodes) == (2, 4) and done == [(i, 4, 40) for i in (1, 2, 3, 4)]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert all((tmp_path / "parts" / name).stat().st_mtime_ns == time for name, time in times.items())
    (tmp_path / "parts" / "episode_00001.actions.jsonl").unlink()  # incomplete: recorded again
    assert record("MagiCounter-v0", tmp_path / "parts", episodes=3).kept == 2
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert first.keys() < contents(tmp_path / "parts").keys()


def test_an_episode_of_nine_frames_shows_every_action(tmp_path: Path) -> None:
    gymnasium.register("MagiBrief-v0", Counter, kwargs={"length": 9})
    record("MagiBrief-v0", tmp_path / "r", episodes=4)
    for episode in range(4):
        taken = [name for action in actions_of(tmp_path / "r" / f"episode_{episode:05d}.mp4") for name in action]
        assert len(taken) == 8 and set(taken) == {"action_0", "action_1", "action_2"}


def test_another_recording_is_not_mixed_in(tmp_path: Path) -> None:
    record("MagiCounter-v0", tmp_path / "r", episodes=1)
    for change in ({"seed": 1}, {"height": 32}, {"frame_skip": 2}, {"max_frames": 10}):
        with pytest.raises(MagiError, match="holds episodes made with other settings"):
            record("MagiCounter-v0", tmp_path / "r", episodes=2, **change)
    (tmp_path / "r" / "recording.json").write_text("[]")
    with pytest.raises(MagiError, match="expected a JSON object"):
        record("MagiCounter-v0", tmp_path / "r", episodes=2)
    (tmp_path / "r" / "recording.json").unlink()
    with pytest.raises(MagiError, match=r"holds episodes but no recording\.json"):
        record("MagiCounter-v0", tmp_path / "r", episodes=2)


def test_only_the_player_that_began_a_recording_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "r"
    record("MagiCounter-v0", folder, episodes=1)
    described = json.loads((folder / "recording.json").read_text())
    assert described["player"] == "explorer 1"
    before = contents(folder)
    for played, version, fits in (
        ("explorer 1", 2, False), ("walker 2", 1, False), (["odd"], 1, False), (None, 2, False), (None, 1, True),
    ):  # fmt: skip
        monkeypatch.setattr(Explorer, "version", version)
        changed = {name: one for name, one in (described | {"player": played}).items() if one is not None}
        (folder / "recording.json").write_text(json.dumps(changed))
        assert record("MagiCounter-v0", folder, episodes=1).kept == 1, "what is whole needs no player"
        if fits:
            record("MagiCounter-v0", folder, episodes=2)
            assert json.loads((folder / "recording.json").read_text())["player"] == "explorer 1"
        else:
            with pytest.raises(MagiError, match=rf"another player \(.*\(explorer {version}\); use another --out"):
                record("MagiCounter-v0", folder, episodes=2)
    assert before.keys() < contents(folder).keys()


def test_settings(tmp_path: Path) -> None:
    summary = record("MagiCounter-v0", tmp_path / "r", episodes=1, max_frames=7, frame_skip=2, height=16, width=24)
    assert (
        summary.frames == 7
        and summary.frame_rate == 10
        and summary.action_names == ("action_0", "action_1", "action_2")
    )
    frames = read_frames(tmp_path / "r" / "episode_00000.mp4")
    assert frames.shape == (7, 16, 24, 3)
    folder = VideoFolder(tmp_path)
    assert folder.action_names == list(summary.action_names) and folder.class_names == ["r"]
    assert folder.actions(0).shape == (7, 3) and folder.actions(0)[:-1].sum() == 6
    with pytest.raises(MagiError):
        record("MagiCounter-v0", tmp_path / "r", episodes=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(MagiError, match="cannot be written"):
        record("MagiCounter-v0", tmp_path / "file" / "r", episodes=1)


def test_names_that_are_no_game(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MagiError, match="similar: MagiCounter-v0"):
        open_game("MagiCount-v0")
    with pytest.raises(MagiError, match="cannot be started"):
        open_game("no_such_module_anywhere:Game-v0")
    for package in ("vizdoom", "vizdoom.gymnasium_wrapper", "ale_py"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    for name in ("vizdoom/my_way_home", "ALE/Breakout-v5"):
        with pytest.raises(MagiError, match=f"is not installed: {re.escape(install_command('games'))}"):
            open_game(name)


def test_one_process_records_into_a_folder_and_takes_away_what_a_killed_one_left(tmp_path: Path) -> None:
    out = tmp_path / "r"
    out.mkdir()
    half = out / f".episode_00000.mp4.{HOST}.{2**30}.part"  # no process has such a number
    half.write_bytes(b"half")
    if (child := os.fork()) == 0:  # locks are per process
        with alone(out):
            signal.pause()
    try:
        while half.exists():
            time.sleep(0.01)
        with pytest.raises(MagiError, match="another run is at work there"):
            record("MagiCounter-v0", out, episodes=1, height=32, width=32)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    half.write_bytes(b"half")
    record("MagiCounter-v0", out, episodes=1, height=32, width=32)
    assert sorted(contents(out)) == [".lock", "episode_00000.actions.jsonl", "episode_00000.mp4", "recording.json"]


def test_an_unknown_game_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MagiError):
        record("MagiNowhere-v0", tmp_path / "r", episodes=1)
    assert not (tmp_path / "r").exists()


def test_doom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom", reason="lacks ViZDoom: pip install -e '.[games]'")
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        summary = record("vizdoom/my_way_home", tmp_path / name, episodes=2, max_frames=60)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]  # the engine's own files are gone
    assert summary.frame_rate == 35 and "TURN_LEFT" in summary.action_names
    game = open_game("vizdoom/my_way_home")
    assert not game.actions.brief
    game.close()
    # The second episode recorded alone is the same: nothing of the first leaks into it.
    (tmp_path / "a" / "episode_00001.mp4").unlink()
    record("vizdoom/my_way_home", tmp_path / "a", episodes=2, max_frames=60)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    frames = read_frames(tmp_path / "a" / "episode_00000.mp4").astype(int)
    assert np.abs(np.diff(frames, axis=0)).mean() > 1  # the camera moves
    with pytest.raises(MagiError, match=r"vizdoom/health_gathering_supreme, vizdoom/my_way_home"):
        open_game("vizdoom/nowhere")
    for alias in ("VizDoom/MyWayHome", "VizdoomMyWayHome-v1"):
        open_game(alias).close()


def test_atari() -> None:
    pytest.importorskip("ale_py", reason="lacks ale-py: pip install -e '.[games]'")
    shown = []
    for _ in range(2):
        game = open_game("ale/breakout-v5")
        assert game.frame_rate == 60 and game.actions.names == ("NOOP", "FIRE", "RIGHT", "LEFT")
        assert not game.actions.brief
        frames = [game.reset(0)] + [game.step(np.eye(4, dtype=np.float32)[i % 4]) for i in range(30)]
        game.close()
        shown.append(np.stack(frames))
    assert shown[0].shape == (31, 210, 160, 3) and np.array_equal(*shown)
