"""A tiny random world with three actions, its page, and a browser where there is one."""

import asyncio
import hashlib
import io
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient, WebSocketTestSession
from torch import nn

from magi_video.codecs.pixels import PixelCodec
from magi_video.models.architecture import Architecture
from magi_video.models.head import DiffusionHead
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving import reading
from magi_video.serving.app import create_app
from magi_video.serving.connections import configure
from magi_video.serving.limits import ServingLimits
from magi_video.serving.requests import FirstFrame
from magi_video.serving.service import Service

SIDE = 16
ACTIONS = ["LEFT", "RIGHT", "FIRE"]
BASE = "http://127.0.0.1"


def picture(seed: int = 0, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Four flat patches, which JPEG keeps."""
    patches = np.random.default_rng(seed).integers(40, 216, (2, 2, 3), dtype=np.uint8)
    return np.kron(patches, np.ones((height // 2, width // 2, 1), np.uint8))


def png(array: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(array).save(encoded, format="png")
    return encoded.getvalue()


def decoded(jpeg: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return np.asarray(image).astype(int)


@pytest.fixture(scope="session")
def make_pipe() -> Callable[..., MagiVideoPipeline]:
    """Small pipelines whose frames depend on everything: the past, the action, the seed."""

    def make(actions: bool = True, steps: tuple[int, int] = (2, 3), **more: Any) -> MagiVideoPipeline:
        torch.manual_seed(0)
        conditions: dict[str, dict[str, Any]] = {"noise_level": {"size": 6}} | more.pop("conditions", {})
        if actions:
            conditions["action"] = {"size": len(ACTIONS), "kind": "vector", "drop": 0.1}
        transformer = MagiVideoTransformer(
            Architecture(
                latent_channels=3,
                latent_height=SIDE,
                latent_width=SIDE,
                patch_size=8,
                num_frames=5,
                width=32,
                depth=2,
                heads=2,
                mlp_width=64,
                head_width=32,
                head_depth=2,
                conditions=conditions,
                **{"temporal_position": "rope"} | more.pop("transformer", {}),
            )
        ).eval()
        for module in transformer.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.15)
        if isinstance(transformer.diffusion_head, DiffusionHead):
            nn.init.normal_(transformer.diffusion_head.net.token_out.weight, std=0.02)
        codec = PixelCodec()
        codec.set_statistics([0.0] * 3, [0.5] * 3)
        return MagiVideoPipeline(
            transformer,
            codec,
            height=SIDE,
            width=SIDE,
            frame_rate=50.0,
            action_names=ACTIONS if actions else None,
            mask_steps=steps[0],
            denoise_steps=steps[1],
            **more,
        )

    return make


class WordEncoder:
    """A text encoder that needs no package: a random vector for each text."""

    example = "a text"

    def encode(self, texts: Sequence[str], tokens: int) -> torch.Tensor:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in texts]
        return torch.stack([torch.randn(tokens, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def check(self, text: str) -> None:
        """Any text will do."""


@pytest.fixture(scope="session")
def words_pipe(make_pipe: Callable[..., MagiVideoPipeline]) -> MagiVideoPipeline:
    """A model without actions that takes a class and words."""
    conditions = {"text": {"size": 8, "kind": "sequence", "tokens": 2}, "label": {"size": 2}}
    pipe = make_pipe(actions=False, conditions=conditions, class_names=["Jumping", "Walking"])
    pipe.text_encoder = WordEncoder()
    return pipe


@pytest.fixture(scope="session")
def pipe(make_pipe: Callable[..., MagiVideoPipeline]) -> MagiVideoPipeline:
    return make_pipe()


@pytest.fixture(scope="session")
def slow_pipe(make_pipe: Callable[..., MagiVideoPipeline]) -> MagiVideoPipeline:
    """Its exact frames take long enough for something to happen meanwhile."""
    return make_pipe(steps=(4, 40))


FIRST_FRAMES = [FirstFrame("One", picture(1)), FirstFrame("Two", picture(2))]


class Nearby:
    """`Apart` for uploads without a process, which takes seconds to begin; test_reading.py has real ones."""

    def __init__(self, module: str, patience: float, command: list[str] | None = None) -> None:
        pass

    def begin(self) -> None:
        pass

    kill = end = begin

    def ask(self, question: list[Any]) -> dict[str, Any]:
        return reading.answer(question, lambda: None)


@pytest.fixture(scope="module", autouse=True)
def nearby_reading(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.endswith("test_reading"):
            patch.setattr(reading, "Apart", Nearby)
        yield


@dataclass
class Site:
    """A running page, asked in its own process's memory."""

    client: TestClient
    app: Any

    @property
    def service(self) -> Service:
        return self.app._app.state.service

    def from_another_address(self) -> "Site":
        """The same page, asked from elsewhere."""
        return Site(TestClient(self.app, base_url=BASE, client=("198.51.100.7", 50000)), self.app)

    def connect(self, path: str, **headers: str) -> WebSocketTestSession:
        return self.client.websocket_connect(f"ws://127.0.0.1{path}", headers=headers)

    def order(self, **asked: Any) -> dict[str, Any]:
        answer = self.client.post("/api/videos", json=asked)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def follow(self, token: str, first: int = 0) -> tuple[list[bytes], dict[str, Any]]:
        """All frames of a video from one on, and its last state."""
        frames: list[bytes] = []
        with self.connect(f"/api/videos/{token}/frames?from={first}") as line:
            while True:
                told = line.receive_json()
                if told["type"] == "frame":
                    assert told["index"] == first + len(frames)
                    frames.append(line.receive_bytes())
                elif told["state"] in ("done", "cancelled", "failed"):
                    return frames, told


@pytest.fixture
def make_site(pipe: MagiVideoPipeline) -> Iterator[Callable[..., Site]]:
    opened: list[TestClient] = []

    def make(pipe: MagiVideoPipeline = pipe, host: str = "127.0.0.1", **limits: Any) -> Site:
        app = create_app(pipe, "tiny", FIRST_FRAMES, ServingLimits(**limits), host)
        client = TestClient(app, base_url=BASE)
        client.__enter__()
        opened.append(client)
        return Site(client, app)

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@dataclass
class Server:
    """A page on a port of this machine."""

    url: str
    app: Any
    loop: asyncio.AbstractEventLoop

    @property
    def service(self) -> Service:
        return self.app._app.state.service


@pytest.fixture(scope="module")
def start_server() -> Iterator[Callable[..., Server]]:
    import uvicorn

    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(
        pipe: MagiVideoPipeline,
        first_frames: list[FirstFrame] = FIRST_FRAMES,
        proxies: Sequence[str] = (),
        **limits: Any,
    ) -> Server:
        app = create_app(pipe, "tiny", first_frames, ServingLimits(**limits))
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(configure(app, ServingLimits(**limits), proxies))
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[listening])

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        running.append((server, thread))
        while not server.started:
            thread.join(0.05)
            assert thread.is_alive(), "the server did not start"
        return Server(f"{BASE}:{listening.getsockname()[1]}", app, loops[0])

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")  # while it is there, no other event loop can run in this thread
def chromium() -> Iterator[Any]:
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: the page is not tried in a browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
