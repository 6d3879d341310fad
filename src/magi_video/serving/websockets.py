"""The two WebSockets: following a video, and playing.

Each frame is a JSON line that says which it is, then a binary message with its JPEG.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import Field

from magi_video.errors import MagiError
from magi_video.paradigms import find_paradigm
from magi_video.serving.bodies import parse_request
from magi_video.serving.errors import public_message
from magi_video.serving.play import Player
from magi_video.serving.real_game import RealGame
from magi_video.serving.requests import Beginning, stream_arguments
from magi_video.serving.videos import OVER, BusyError, Video, VideoDesk
from magi_video.serving.visitors import address_of
from magi_video.serving.world import Game

if TYPE_CHECKING:
    from magi_video.serving.service import Service

MESSAGES_A_SECOND = 200
LOOK_AGAIN_SECONDS = 5.0
HEARING_SECONDS = 1.0
GOING_AWAY = 1001
POLICY, TRY_LATER, OVER_CODE, GONE = 1008, 1013, 4000, 4004


class PlayRequest(Beginning):
    """A world to play in."""

    speed: str = "realtime"
    beside: str | None = Field(None, max_length=100)
    """One of the model's games, to run beside it and to give the first frame."""


async def follow_video(socket: WebSocket, desk: VideoDesk, token: str) -> None:
    """Sends the frames of a video from `?from=` on as they are made, and how it goes; `{"type": "cancel"}` stops it."""
    await socket.accept()
    try:
        video = desk.find(token)
    except MagiError as error:
        await _refuse(socket, GONE, error)
        return
    asked = socket.query_params.get("from", "0")
    first = int(asked) if asked.isdecimal() and len(asked) < 9 else 0

    async def listen() -> None:
        async for message in _messages(socket):
            if message.get("type") == "cancel":
                desk.cancel(video)

    video.watchers += 1
    try:
        await _both(listen(), _send_video(socket, video, first))
    except WebSocketDisconnect:
        pass
    finally:
        video.watchers -= 1
        video.seen = time.monotonic()


async def _send_video(socket: WebSocket, video: Video, sent: int) -> None:
    sent_status: dict[str, Any] = {}
    with video.bell.listen() as listener:
        while True:
            over = video.state in OVER  # asked first: no frame is added after that
            while sent < len(video.jpegs):
                await socket.send_json({"type": "frame", "index": sent})
                await socket.send_bytes(video.jpegs[sent])
                sent += 1
            if (status := video.status()) != sent_status:
                await socket.send_json(status)
                sent_status = status
            if over:
                await socket.close()
                return
            await listener.wait(LOOK_AGAIN_SECONDS)


async def play(socket: WebSocket, service: Service) -> None:
    """A place to play at; `?session=` takes up the one that a dropped connection has left."""
    await socket.accept()
    try:
        player, resumed = service.players.enter(socket.query_params.get("session"), client_address(socket))
    except BusyError as error:
        await _refuse(socket, TRY_LATER, error)
        return
    player.attach(socket)
    gone = False
    try:
        await socket.send_json({"type": "hello", "session": player.token, "resumed": resumed})
        await _both(_listen_to(player, socket, service), _send_world(player, socket))
    except WebSocketDisconnect as error:
        gone = error.code == GOING_AWAY  # the page was closed, not the connection lost
    finally:
        player.detach(socket)
        if player.ended or gone:
            service.players.leave(player)


async def _listen_to(player: Player, socket: WebSocket, service: Service) -> None:
    running: tuple[str, int] | None = None  # the real game that was last begun for this connection
    async for message in _messages(socket):
        kind = message.pop("type", None)
        try:
            if kind == "start":
                asked = parse_request(message, PlayRequest)
                running = await _begin(player, service, asked, running)
            elif kind == "keys":
                held, sequence = message.get("held"), message.get("keys")
                if isinstance(held, list) and len(held) <= 64 and isinstance(sequence, int):
                    player.hold([name for name in held if isinstance(name, str)], sequence)
            elif kind == "branch":
                if type(index := message.get("index")) is not int:
                    raise MagiError("branch: expected the number of a frame as index")
                player.go_back(index)
            elif kind == "pause":
                player.pause(message.get("paused") is True)
            elif kind == "shown" and isinstance(message.get("index"), int):
                player.confirm(message["index"])
            elif kind == "bye":
                service.players.leave(player)
                return
        except MagiError as error:
            player.tell({"type": "error", "error": public_message(error)})


async def _begin(
    player: Player, service: Service, asked: PlayRequest, running: tuple[str, int] | None
) -> tuple[str, int] | None:
    """Begins a world; returns which real game runs beside it.

    Raises:
        MagiError: the model makes many frames at once, long before their keys are held.
    """
    if find_paradigm(service.pipe.config.forcing).unit == "clip":
        raise MagiError("this model makes a whole clip at once, so it cannot be played; it makes videos")
    arguments = stream_arguments(asked, service.pipe, service.first_frames, service.uploads) | {"num_frames": None}
    if asked.beside is None:
        player.begin(Game(arguments))
        return None
    if asked.beside not in service.games:
        raise MagiError("this game is not to be had beside this model")
    wanted = (asked.beside, asked.interval)
    real_game = None if running == wanted else await _open_game(service, player.address, *wanted)
    player.begin(Game(arguments, real_game, running == wanted, asked.seed % 2**31))
    return wanted


async def _open_game(service: Service, address: str, name: str, interval: int) -> RealGame:
    """Starts a real game in a thread of its own, since that takes a second; it is not left behind by a cancellation."""
    service.game_places.take(address)
    free = partial(service.game_places.give_back, address)
    config = service.pipe.config

    def start() -> RealGame:
        try:
            return RealGame(name, config.frame_rate / interval, config.height, config.width, free)
        except BaseException:
            free()
            raise

    starting = asyncio.ensure_future(asyncio.to_thread(start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(lambda done: None if done.exception() else done.result().close())
        raise


async def _send_world(player: Player, socket: WebSocket) -> None:
    with player.bell.listen() as listener:
        while player.connection is socket:
            for message in player.messages():
                if isinstance(message, bytes):
                    await socket.send_bytes(message)
                else:
                    await socket.send_json(message)
            if player.ended:
                await socket.close(OVER_CODE)
                return
            await listener.wait(LOOK_AGAIN_SECONDS)
    await socket.close(OVER_CODE)


async def _messages(socket: WebSocket) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects that arrive; anything else is passed over, and a flood ends the connection."""
    second, count = 0, 0
    while True:
        received = await socket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code") or 1005)
        text = received.get("text") or ""
        now = int(time.monotonic())
        count = count + 1 if now == second else 1
        second = now
        if count > MESSAGES_A_SECOND:
            await socket.close(POLICY)
            return
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict):
            yield message


async def _both(listening: Coroutine[Any, Any, None], sending: Coroutine[Any, Any, None]) -> None:
    """Runs both until one of them ends; a `WebSocketDisconnect` says that the other side has gone."""
    listener, sender = asyncio.ensure_future(listening), asyncio.ensure_future(sending)
    try:
        await asyncio.wait((listener, sender), return_when=asyncio.FIRST_COMPLETED)
        if sender.done() and sender.exception() is not None:
            # What could not be sent says nothing of why; that is heard next.
            await asyncio.wait((listener,), timeout=HEARING_SECONDS)
    finally:
        for task in (listener, sender):
            task.cancel()
        ends = await asyncio.gather(listener, sender, return_exceptions=True)
    for end in ends:
        # A RuntimeError says that the socket was closed while something was on its way.
        if isinstance(end, Exception) and not isinstance(end, RuntimeError):
            raise end


def client_address(socket: WebSocket) -> str:
    """Whom a WebSocket counts for."""
    return address_of(None if socket.client is None else (socket.client.host, socket.client.port))


async def _refuse(socket: WebSocket, code: int, error: MagiError) -> None:
    await socket.send_json({"type": "error", "error": public_message(error)})
    await socket.close(code)
