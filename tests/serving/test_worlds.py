"""The shipped worlds as they are played, and the real game beside a world."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from magi_video.files.weights import SHIPPED
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving.requests import find_first_frames
from magi_video.serving.videos import BusyError
from tests.serving.playing import begin, hear
from tests.serving.site import SIDE, Site, decoded


def test_the_real_game_runs_beside_on_the_same_actions(
    make_site: Callable[..., Site], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    gymnasium = pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")

    class Levels(gymnasium.Env):  # type: ignore[misc, name-defined]
        """Shows the number of the step in red and the last button in green; ends after 7 steps."""

        metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012
        observation_space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        action_space = gymnasium.spaces.MultiBinary(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
            self.steps = 0
            return self.picture(0), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            self.steps += 1
            return self.picture(100 * int(action[1])), 0.0, self.steps >= 7, False, {}

        def picture(self, green: int) -> np.ndarray:
            return np.full((SIDE, SIDE, 3), (30 * self.steps, green, 0), np.uint8)

    gymnasium.register("MagiLevels-v0", Levels)
    pipe = make_pipe(training={"data": {"games": ["MagiLevels-v0", "os:Env", 5]}})
    pipe.register_to_config(action_names=["button_1", "button_0", "other"])
    site = make_site(pipe, max_games=1, grace_seconds=0.2)
    assert site.client.get("/api/model").json()["games"] == ["MagiLevels-v0"]
    with site.connect("/api/play") as line:
        hear(line, "hello")
        line.send_json({"type": "start", "first": 0, "beside": "MagiLevels-v0"})
        line.send_json({"type": "keys", "held": ["button_1"], "keys": 1})
        game: list[np.ndarray] = []
        model: list[np.ndarray] = []
        while True:
            told = line.receive_json()
            if told["type"] == "episode":
                break
            if told["type"] == "begun":
                assert told == {"type": "begun", "rate": 50.0, "beside": True}
                continue
            (game if told["source"] == "game" else model).append(decoded(line.receive_bytes()))
            assert told["index"] == len(game if told["source"] == "game" else model) - 1
        assert len(game) == 7 and [round(frame[..., 0].mean() / 30) for frame in game] == list(range(7))
        assert np.abs(game[0] - model[0]).mean() < 8, "the model begins from the game's own first frame"
        assert game[-1][..., 1].mean() > 90, "the button that the model was told"
        assert hear(line, "frame")["index"] == 0, "both begin anew"
        with site.connect("/api/play") as second:
            hear(second, "hello")
            second.send_json({"type": "start", "beside": "MagiLevels-v0"})
            told = second.receive_json()
            assert told["type"] == "error" and "too many real games" in told["error"]
        line.send_json({"type": "start", "first": 0, "beside": "MagiLevels-v0"})
        hear(line, "frame")
        line.send_json({"type": "start", "first": 0})
        while hear(line, "frame")["source"] == "game":
            pass
    deadline = time.monotonic() + 20
    while True:
        try:
            return site.service.game_places.take("anybody")
        except BusyError:
            assert time.monotonic() < deadline, "the game's place is free again"
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "size", "interval", "keys", "change"),
    [
        ("doom", (64, 64), 2, ["TURN_LEFT"], 8),
        ("atari", (80, 64), 1, ["DOWN", "RIGHT"], 0.5),
        ("coinrun", (64, 64), 1, ["RIGHT"], 2),
    ],
)
def test_the_shipped_worlds_are_played(
    make_site: Callable[..., Site], name: str, size: tuple[int, int], interval: int, keys: list[str], change: float
) -> None:
    site = make_site(MagiVideoPipeline.from_pretrained(name))
    site.service.first_frames[:] = find_first_frames(SHIPPED / name, *size)
    told = site.client.get("/api/model").json()
    assert len(told["first_frames"]) >= 2 and told["interval"] == interval
    assert set(keys) <= {one["name"] for one in told["controls"]}
    with site.connect("/api/play") as line:
        hear(line, "hello")
        line.send_json({"type": "keys", "held": keys, "keys": 1})
        first = decoded(begin(line, interval=interval)["jpeg"])
        line.send_json({"type": "keys", "held": keys, "keys": 2})
        frames = [decoded(hear(line, "frame")["jpeg"]) for _ in range(10)]
    assert frames[-1].shape == (*size, 3) and np.abs(frames[-1] - first).mean() > change, "the view moves"


def test_doom_itself_runs_beside_the_shipped_world(make_site: Callable[..., Site]) -> None:
    pytest.importorskip("vizdoom", reason="ViZDoom is not installed")
    site = make_site(MagiVideoPipeline.from_pretrained("doom"))
    game = site.client.get("/api/model").json()["games"][0]
    with site.connect("/api/play") as line:
        hear(line, "hello")
        line.send_json({"type": "start", "beside": game, "interval": 2, "seed": 5})
        line.send_json({"type": "keys", "held": ["TURN_LEFT"], "keys": 1})
        seen: dict[str, list[np.ndarray]] = {"model": [], "game": []}
        while len(seen["game"]) < 6:
            told = hear(line, "frame")
            seen[told["source"]].append(decoded(told["jpeg"]))
        line.send_json({"type": "bye"})
    assert np.abs(seen["game"][0] - seen["model"][0]).mean() < 10, "one first frame for both"
    assert np.abs(seen["game"][-1] - seen["game"][0]).mean() > 5, "the real view turns"
