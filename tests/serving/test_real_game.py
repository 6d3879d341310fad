"""The real game beside the model keeps the model's time, whatever steps of the game its recordings skipped."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")

from magi_video.errors import MagiError
from magi_video.installation import install_command
from magi_video.recordings.environments import open_game
from magi_video.serving.errors import public_message
from magi_video.serving.real_game import RealGame, known_games, named_games, why_no_games, world_name

GAME = "magi/BouncingBalls-v0"


@pytest.mark.parametrize(("recorded", "interval"), [(1, 1), (1, 3), (4, 1), (4, 2)])
def test_a_frame_takes_as_many_steps_as_the_models_does(recorded: int, interval: int) -> None:
    game = open_game(GAME)
    frames, rest = [game.reset(seed=5)], np.zeros(len(game.actions.names), np.float32)
    for _ in range(2 * recorded * interval):
        frame = game.step(rest)
        assert frame is not None
        frames.append(frame)
    real_game = RealGame(GAME, game.frame_rate / recorded / interval, *frames[0].shape[:2])
    assert np.array_equal(real_game.begin(seed=5), frames[0])
    for number in (1, 2):
        assert np.array_equal(real_game.step([], None), frames[number * recorded * interval])
    real_game.close()
    game.close()


def test_a_world_is_called_by_its_games() -> None:
    recipe = {"data": {"games": ["vizdoom/deathmatch", "vizdoom/my_way_home", "ALE/Boxing-v5", 3]}}
    assert world_name(known_games(recipe)) == "Doom and Boxing"
    for without in (None, {}, {"data": {"games": []}}, {"data": {"games": "vizdoom/deathmatch"}}):
        assert world_name(known_games(without)) is None


def test_no_address_of_the_package_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    git = {"url": "https://git.internal/it.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    package = SimpleNamespace(read_text=lambda file: json.dumps(git))
    monkeypatch.setattr("magi_video.installation.distribution", lambda name: package)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    missing = MagiError(f"text needs the extra packages: {install_command('text')}")
    assert "git.internal" in str(missing)
    assert public_message(missing) == 'text needs the extra packages: pip install "magi-video[text]"'
    for game, command in (("ALE/Boxing-v5", "games"), ("procgen/coinrun", "procgen")):
        problem = why_no_games({"data": {"games": [game]}})
        assert problem is not None and f'pip install "magi-video[{command}]"' in problem and "git" not in problem


def test_procgen_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {"data": {"games": ["procgen/coinrun"]}}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "procgen" else object())
    assert named_games(recipe) == []
    problem = why_no_games(recipe)
    assert (
        problem is not None and problem.startswith("CoinRun is not installed here (pip install") and "gym3" in problem
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert named_games(recipe) == ["procgen/coinrun"] and why_no_games(recipe) is None
