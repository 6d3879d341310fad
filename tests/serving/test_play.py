"""Playing over the WebSocket: keys in, frames out, pauses, dropped connections, places."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.paradigms import PARADIGMS
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.registry import declared
from magi_video.serving import world
from magi_video.serving.keys import Controls
from magi_video.serving.play import Player
from magi_video.serving.worker import Worker
from magi_video.serving.world import Game
from magi_video.video.video import write_video
from tests.serving.playing import Told, begin, hear, walk
from tests.serving.site import Site, decoded, picture


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
    make_pipe: Callable[..., MagiVideoPipeline],
    threads_left: Callable[..., list[threading.Thread]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe, may_decode = make_pipe(), threading.Event()
    decode = pipe.codec.decode

    def slow(latents_BTCHW: torch.Tensor) -> torch.Tensor:
        assert may_decode.wait(20)
        time.sleep(0.5)  # much longer than a prediction, on a busy machine too
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
                told += [one for one in player.messages() if isinstance(one, dict) and one["type"] == "frame"]
                await bell.wait(0.1)
        return told

    frames = asyncio.run(made())
    assert [(one["index"], one["keys"]) for one in frames] == [(0, 0), (1, 7)]
    assert not threads_left("magi-beside")


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
