"""Playing over the WebSocket: keys in, frames out, pauses, dropped connections, places, the real game beside."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import WebSocketTestSession

from magi_video.files.weights import SHIPPED
from magi_video.paradigms import PARADIGMS
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.registry import declared
from magi_video.serving import world
from magi_video.serving.keys import Controls
from magi_video.serving.play import Player
from magi_video.serving.requests import find_first_frames
from magi_video.serving.videos import BusyError
from magi_video.serving.worker import Worker
from magi_video.serving.world import Game
from magi_video.video.video import write_video
from tests.serving.site import SIDE, Site, decoded, picture

Told = dict[str, Any]


def hear(line: WebSocketTestSession, kind: str) -> Told:
    """The next message of a kind; frames' pictures are taken out with them, as "jpeg"."""
    while True:
        told = line.receive_json()
        if told["type"] == "frame":
            told["jpeg"] = line.receive_bytes()
        if told["type"] == kind:
            return told
        assert told["type"] != "error", told


def begin(line: WebSocketTestSession, **asked: Any) -> Told:
    line.send_json({"type": "start", "first": 0, "seed": 3} | asked)
    while (told := hear(line, "frame"))["index"] != 0:
        pass
    return told


def walk(site: Site, held: list[str], frames: int = 8) -> list[np.ndarray]:
    """Frames of a world in which these controls are held from the beginning."""
    with site.connect("/api/play") as line:
        hear(line, "hello")
        line.send_json({"type": "keys", "held": held, "keys": 1})
        begin(line)
        line.send_json({"type": "keys", "held": held, "keys": 2})
        seen = []
        while len(seen) < frames:
            told = hear(line, "frame")
            if told["keys"] >= 2:
                seen.append(decoded(told["jpeg"]))
        line.send_json({"type": "bye"})
    return seen


def test_the_world_begins_from_its_first_frame_and_goes_on_without_end(site: Site) -> None:
    with site.connect("/api/play") as line:
        hear(line, "hello")
        first = begin(line, first=1)
        assert np.abs(decoded(first["jpeg"]) - picture(2)).mean() < 8
        numbers = [hear(line, "frame")["index"] for _ in range(12)]
        assert numbers == list(range(1, 13)), "in order, and past the five frames of a training clip"
        again = begin(line, first=0)
        assert np.abs(decoded(again["jpeg"]) - picture(1)).mean() < 8, "another first frame begins another world"


UNPLAYED = {
    "window": "this window model makes a frame from the 4 before it",
    "joint": "this model makes a whole clip at once, so it cannot be played",
    "diffusion:pyramid": "schedule 'pyramid' makes all frames together: say how many, or give a horizon",
}
"""Models that cannot be played from a first frame alone, and what the page says."""


@pytest.mark.parametrize("name", [*PARADIGMS, "diffusion:pyramid", "diffusion:pyramid:2"])
def test_every_paradigm_plays_or_says_in_a_line_why_it_cannot(
    name: str, make_pipe: Callable[..., MagiVideoPipeline], make_site: Callable[..., Site]
) -> None:
    forcing, *options = name.split(":")
    row = declared("paradigms")[forcing]
    chosen = dict(zip(("schedule", "horizon"), options, strict=False))
    transformer = {"head": row["head"]} if "head" in row else {}
    pipe = make_pipe(
        conditions=row.get("conditions", {}), transformer=transformer, forcing=forcing, forcing_options=chosen
    )
    with make_site(pipe).connect("/api/play") as line:
        hear(line, "hello")
        if name in UNPLAYED:
            line.send_json({"type": "start", "first": 0, "seed": 3})
            while (told := line.receive_json())["type"] != "error":
                pass
            assert UNPLAYED[name] in told["error"] and "\n" not in told["error"]
            return
        begin(line)
        assert [hear(line, "frame")["index"] for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_window_plays_from_a_clip_of_its_length(
    make_pipe: Callable[..., MagiVideoPipeline], make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(make_pipe(forcing="window", forcing_options={"context": "3"}))
    write_video(tmp_path / "clip.mp4", np.stack([picture(seed) for seed in range(5)]), 10.0, crf=4)
    answer = site.client.post("/api/uploads", content=(tmp_path / "clip.mp4").read_bytes())
    with site.connect("/api/play") as line:
        hear(line, "hello")
        begin(line, first=None, upload=answer.json()["upload"], given=3)
        assert [hear(line, "frame")["index"] for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_keys_steer_it(site: Site) -> None:
    still, left = walk(site, []), walk(site, ["LEFT", "FIRE", "no such control"])
    assert max(np.abs(a - b).mean() for a, b in zip(still, left, strict=True)) > 1


def test_a_frame_says_with_which_keys_it_was_made(site: Site) -> None:
    with site.connect("/api/play") as line:
        hear(line, "hello")
        begin(line)
        for number in (5, 6):
            line.send_json({"type": "keys", "held": ["FIRE"], "keys": number})
            while (told := hear(line, "frame"))["keys"] != number:
                assert told["keys"] < number
            assert told["source"] == "model" and told["ms"] > 0


def test_a_tap_between_two_frames_is_not_lost(site: Site, pipe: MagiVideoPipeline) -> None:
    async def tapped() -> list[list[float]]:
        player = Player(pipe, Controls(pipe.config.action_names), Worker())
        actions = player.world._actions([None])
        assert next(actions) is None, "nothing led to the first frame"
        player.hold(["FIRE"], 1)
        player.hold([], 2)
        return [[float(value) for value in next(actions)] for _ in range(2)]  # type: ignore[union-attr]

    assert asyncio.run(tapped()) == [[0, 0, 1], [0, 0, 0]]


def test_a_frame_is_predicted_while_the_one_before_is_decoded(
    make_pipe: Callable[..., MagiVideoPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, may_decode = make_pipe(), threading.Event()
    decode = pipe.codec.decode

    def slow(latents_BTCHW: torch.Tensor) -> torch.Tensor:
        assert may_decode.wait(20)
        time.sleep(0.1)
        return decode(latents_BTCHW)

    monkeypatch.setattr(pipe.codec, "decode", slow)
    monkeypatch.setattr(world, "items_ahead", lambda device: 1)

    async def made() -> list[Told]:
        player = Player(pipe, Controls(pipe.config.action_names), Worker())
        player.attach(player)
        player.begin(Game({"image": picture(1), "interval": 1, "sampling": None}))
        player.step()
        player.hold(["FIRE"], 7)  # it is pressed while the first frame is decoded, and acts on the next
        assert player.due(now := time.monotonic()) <= now + 0.05
        player.step()
        assert player.due(time.monotonic()) == math.inf, "one is decoded and one waits"
        may_decode.set()
        told = await heard(player, 2)
        player.step()
        assert player.due(now := time.monotonic()) > now + 0.03, "the next one would wait for the decoder"
        player.close()
        return told

    async def heard(player: Player, frames: int) -> list[Told]:
        told: list[Told] = []
        with player.bell.listen() as bell:
            while len(told) < frames:
                told += [one for one in player.messages() if isinstance(one, dict)]
                await bell.wait(0.1)
        return told

    frames = asyncio.run(made())
    assert [(one["index"], one["keys"]) for one in frames] == [(0, 0), (1, 7)]
    assert not [one for one in threading.enumerate() if one.name == "magi-beside"]


def test_a_pause_stops_the_world(site: Site) -> None:
    with site.connect("/api/play") as line:
        session = hear(line, "hello")["session"]
        begin(line)
        line.send_json({"type": "pause", "paused": True})
        player = site.service.players._players[session]
        while not player._paused:
            time.sleep(0.01)
        halted, deadline = -1, time.monotonic() + 20
        while player.world.index != halted:  # a frame had been begun
            assert time.monotonic() < deadline, "the world goes on"
            halted = player.world.index
            time.sleep(0.3)
        line.send_json({"type": "pause", "paused": False})
        while hear(line, "frame")["index"] < halted:
            pass


def test_a_dropped_connection_goes_on_where_it_was(site: Site) -> None:
    with site.connect("/api/play") as line:
        session = hear(line, "hello")["session"]
        begin(line)
        for _ in range(3):
            last = hear(line, "frame")["index"]
        line.close(1006)
    with site.connect(f"/api/play?session={session}") as line:
        told = hear(line, "hello")
        assert told["resumed"] and told["session"] == session
        assert hear(line, "frame")["index"] > last
        with site.connect(f"/api/play?session={session}") as second:  # the same place from another window
            assert hear(second, "hello")["resumed"]
            assert hear(second, "frame")["index"] > last
    with site.connect("/api/play?session=unknown") as line:
        assert not hear(line, "hello")["resumed"]
    assert len(site.service.players) <= 2


def test_places_are_limited_and_freed(make_site: Callable[..., Site]) -> None:
    site = make_site(max_players=1)
    with site.connect("/api/play") as line:
        hear(line, "hello")
        with site.connect("/api/play") as second:
            refused = second.receive_json()
            assert refused["type"] == "error" and "playing already" in refused["error"]
        line.send_json({"type": "bye"})
        while len(site.service.players):
            time.sleep(0.01)
    with site.connect("/api/play") as line:
        hear(line, "hello")
        begin(line)
        line.close(1001)  # the page was closed
        while len(site.service.players):
            time.sleep(0.01)
    with site.connect("/api/play") as line:
        assert hear(line, "hello")


def test_who_does_not_come_back_or_does_nothing_is_let_go(make_site: Callable[..., Site]) -> None:
    site = make_site(grace_seconds=0.1, idle_seconds=1.5)
    with site.connect("/api/play") as line:
        hear(line, "hello")
        begin(line)
        line.close(1006)
    while len(site.service.players):
        time.sleep(0.01)
    with site.connect("/api/play") as line:
        hear(line, "hello")
        begin(line)
        assert hear(line, "closed")["reason"] == "idle"
        while line.receive()["type"] != "websocket.close":
            pass  # the frame that was being made
    assert len(site.service.players) == 0


def test_two_players_share(site: Site) -> None:
    with site.connect("/api/play") as one, site.connect("/api/play") as other:
        for line in (one, other):
            hear(line, "hello")
            begin(line)
        reached = [[hear(line, "frame")["index"] for _ in range(6)][-1] for line in (one, other)]
        assert min(reached) >= 6


def test_nonsense_is_answered_or_passed_over(site: Site) -> None:
    with site.connect("/api/play") as line:
        hear(line, "hello")
        for text in ("{", "[]", "1", '{"type": "dance"}', '{"type": "keys", "held": 3, "keys": "x"}', '{"type": []}'):
            line.send_text(text)
        line.send_bytes(b"\x00\xff")
        for asked in ({"first": 99}, {"interval": 0}, {"path": "/etc"}, {"beside": "vizdoom/basic"}, {"upload": "x"}):
            line.send_json({"type": "start"} | asked)
            told = line.receive_json()
            assert told["type"] == "error" and "\n" not in told["error"]
        begin(line)
    with site.connect("/api/play") as line:
        hear(line, "hello")
        for _ in range(2000):
            line.send_json({"type": "shown", "index": 0})
        assert line.receive()["type"] == "websocket.close", "a flood ends the connection"


def test_worlds_of_models_with_absolute_positions_end(
    make_site: Callable[..., Site], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    site = make_site(make_pipe(transformer={"temporal_position": "interpolate"}))
    assert not site.client.get("/api/model").json()["endless"]
    with site.connect("/api/play") as line:
        hear(line, "hello")
        begin(line)
        assert hear(line, "ended")["frames"] == 5
        begin(line)


def test_the_real_game_runs_beside_on_the_same_actions(
    make_site: Callable[..., Site], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    gymnasium = pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install 'magi-video[games]'")

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
    [("doom", (64, 64), 2, ["TURN_LEFT"], 8), ("atari", (80, 64), 1, ["DOWN", "RIGHT"], 0.5)],
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
