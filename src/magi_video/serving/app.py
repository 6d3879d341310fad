"""The page and what it talks to: HTTP for orders and files, WebSockets for frames (docs/serve.md lists both)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.fast.threads import Pace
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving.bodies import TooLargeError, read_request, receive
from magi_video.serving.errors import WITHHELD, public_message
from magi_video.serving.limits import ServingLimits
from magi_video.serving.media import jpeg
from magi_video.serving.requests import FirstFrame, VideoRequest, find_text_problem, video_arguments
from magi_video.serving.security import Guard
from magi_video.serving.service import Service
from magi_video.serving.trailer import COLUMNS
from magi_video.serving.videos import BusyError, Video
from magi_video.serving.visitors import address_of
from magi_video.serving.websockets import follow_video, play

STATIC = Path(__file__).parent / "static"
UPLOAD_SECONDS = 120.0
VISITOR = "magi_visitor"


class TemporaryFileResponse(FileResponse):
    """A file that is deleted after the answer, whatever the answer is.

    A background task would not do: it is not run after an answer that refuses the `Range` (400, 416), nor when sending
    fails.
    """

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


def create_app(
    pipe: MagiVideoPipeline,
    name: str,
    first_frames: Sequence[FirstFrame] = (),
    limits: ServingLimits | None = None,
    host: str = "127.0.0.1",
    allowed_names: Sequence[str] = (),
    pace: Pace | None = None,
    seconds: float | None = None,
) -> Guard:
    """The application, an ASGI callable.

    Args:
        pipe: the model; it must be used by nobody else while the application runs.
        name: by which the page calls it.
        first_frames: that it offers to begin from.
        limits: of what visitors may ask for.
        host: the address that will be listened on, see `Guard`.
        allowed_names: further names of this machine, see `Guard`.
        pace: chooses the number of CPU threads anew when the players' pace falls; it stays if not given.
        seconds: of a frame on this machine, by which the pace is chosen that a game begins at.
    """
    bounds = limits or ServingLimits()
    text_problem = find_text_problem(pipe)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="magi-serve-", ignore_cleanup_errors=True) as folder:
            service = app.state.service = Service(
                pipe, list(first_frames), bounds, Path(folder), text_problem, pace, seconds
            )
            service.worker.start()
            sweeper = asyncio.create_task(service.sweep_forever())
            try:
                yield
            finally:
                sweeper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sweeper
                await asyncio.to_thread(service.worker.stop)
                await service.readers.close()

    # Without FastAPI's own pages about itself: they would fetch scripts from elsewhere.
    app = FastAPI(title="magi", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, name)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(MagiError, _tell)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(Exception, _tell_defect)
    return Guard(app, host, allowed_names)


def add_routes(app: FastAPI, name: str) -> None:
    """All addresses of the page."""

    @app.get("/")
    async def page(request: Request) -> Response:
        response = FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})
        _service(request).readers.prepare()
        if VISITOR not in request.cookies:
            response.set_cookie(VISITOR, secrets.token_urlsafe(16), httponly=True, samesite="strict")
        return response

    @app.get("/favicon.ico")
    async def favicon() -> Response:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    @app.get("/api/model")
    async def model(request: Request) -> dict[str, Any]:
        return _service(request).describe(name)

    @app.get("/api/status")
    async def status(request: Request) -> dict[str, int]:
        service = _service(request)
        return {"playing": len(service.players)} | service.videos.counts()

    @app.get("/api/first/{number}.jpg")
    async def first_frame(request: Request, number: str) -> Response:
        frames = _service(request).first_frames
        if not number.isdecimal() or len(number) > 4 or int(number) >= len(frames):
            raise HTTPException(404, "no such first frame")
        return Response(jpeg(frames[int(number)].frame), media_type="image/jpeg")

    @app.get("/api/trailer")
    async def trailer(request: Request) -> dict[str, Any]:
        service = _service(request)
        film = service.trailer()
        if film is None or film.failed:
            return {"state": "none"}
        rate = service.pipe.config.frame_rate / service.interval
        return {"state": "ready" if film.sheet else "making", "held": film.held, "columns": COLUMNS, "rate": rate}

    @app.get("/api/trailer.jpg")
    async def trailer_sheet(request: Request) -> Response:
        film = _service(request).trailer()
        if film is None or film.sheet is None:
            raise HTTPException(404, "there is no trailer yet")
        return Response(film.sheet, media_type="image/jpeg")

    @app.post("/api/uploads", status_code=201)
    async def upload(request: Request) -> dict[str, Any]:
        service = _service(request)
        config, limits, address = service.pipe.config, service.limits, address_of(_client(request))
        path = service.folder / f"upload-{secrets.token_hex(16)}"
        with service.receiving.taken(address):
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    with path.open("wb") as file:
                        await receive(request, limits.max_upload_mb * 10**6, file.write, limits.slow_seconds)
                frames = await service.readers.read(path, config.height, config.width, limits.max_clip_frames)
            except TimeoutError:
                raise MagiError("the upload took too long") from None
            finally:
                path.unlink(missing_ok=True)
        kept = service.uploads.add(frames, address)
        return {"upload": kept.token, "frames": len(frames), "kind": "clip" if len(frames) > 1 else "picture"}

    @app.get("/api/uploads/{token}.jpg")
    async def upload_preview(request: Request, token: str) -> Response:
        return Response(jpeg(_service(request).uploads.find(token).frames_THWC[0]), media_type="image/jpeg")

    @app.post("/api/videos", status_code=201)
    async def order(request: Request) -> dict[str, Any]:
        service = _service(request)
        asked = await read_request(request, VideoRequest, service.limits.slow_seconds)
        if service.text_problem and (asked.text or asked.negative_text):
            raise MagiError(service.text_problem)
        arguments = video_arguments(
            asked, service.pipe, service.first_frames, service.uploads, service.limits.max_frames
        )
        address = address_of(_client(request))
        owner = request.cookies.get(VISITOR, "")[:64] or address
        return service.videos.order(arguments, owner, address).status()

    @app.get("/api/videos/{token}")
    async def video_status(request: Request, token: str) -> dict[str, Any]:
        return _service(request).videos.find(token).status()

    @app.delete("/api/videos/{token}")
    async def cancel(request: Request, token: str) -> dict[str, Any]:
        desk = _service(request).videos
        video = desk.find(token)
        desk.cancel(video)
        return video.status()

    @app.get("/api/videos/{token}/{file}")
    async def download(request: Request, token: str, file: str) -> Response:
        desk = _service(request).videos
        video: Video = desk.find(token)
        path = await desk.file(video, file)
        return FileResponse(path, filename=f"magi-{video.token[:6]}-{file}")

    @app.websocket("/api/videos/{token}/frames")
    async def frames(socket: WebSocket, token: str) -> None:
        await follow_video(socket, app.state.service.videos, token)

    @app.get("/api/play/{token}/run.zip")
    async def save_run(request: Request, token: str) -> Response:
        path = await _service(request).save_run(token, name)
        return TemporaryFileResponse(path, filename=f"magi-run-{path.stem[-6:]}.zip")

    @app.websocket("/api/play")
    async def play_here(socket: WebSocket) -> None:
        await play(socket, app.state.service)


def _service(request: Request) -> Service:
    return request.app.state.service


def _client(request: Request) -> tuple[str, int] | None:
    return None if request.client is None else (request.client.host, request.client.port)


async def _tell(request: Request, error: Exception) -> Response:
    code = 503 if isinstance(error, BusyError) else 413 if isinstance(error, TooLargeError) else 400
    assert isinstance(error, MagiError)
    return JSONResponse({"error": public_message(error)}, code)


async def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _tell_defect(request: Request, error: Exception) -> Response:
    logging.getLogger(__name__).error("a request failed", exc_info=error)
    return JSONResponse({"error": WITHHELD}, 500)
