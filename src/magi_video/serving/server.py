"""The web page, served until Ctrl-C."""

import contextlib
import errno
import itertools
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import uvicorn
from torch import Tensor

from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.fast.beside import items_ahead, work_beside
from magi_video.fast.probes import probes_on
from magi_video.fast.threads import Pace, check_threads
from magi_video.files.weights import is_local, resolve_model
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.pipeline.ready import make_ready
from magi_video.serving.app import create_app
from magi_video.serving.connections import configure
from magi_video.serving.options import ServeOptions
from magi_video.serving.requests import find_first_frames
from magi_video.serving.security import Guard, is_loopback
from magi_video.serving.visitors import networks

BACKLOG = 128
MEASURED_FRAMES, WARM_UP_FRAMES, MEASURING_SECONDS = 12, 3, 1.0


def serve(model: str, options: ServeOptions) -> None:
    """Load a model and serve the page until Ctrl-C.

    Args:
        model: folder, hub id, or the name of a shipped model.
        options: where, and within which limits.

    Raises:
        MagiError: the port is in use, or there is no such address, network or model.
    """
    networks(options.trust_proxy)
    with listen(options.host, options.port) as listening:  # first of all: a port in use is reported at once
        app = load(model, options)
        config = configure(app, options.limits, options.trust_proxy)
        print(f"{address(listening)}  (Ctrl-C stops it)", flush=True)
        if not is_loopback(options.host):
            print(f"warning: everyone who reaches {options.host} can use this page", file=sys.stderr, flush=True)
        # Raised again, at times, once the server has ended in order.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
        print("stopped", flush=True)


def load(model: str, options: ServeOptions) -> Guard:
    """The model and the application around it."""
    check_threads(options.threads)
    processes = Processes(options.device)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if not is_local(model):
        say(f"fetching {model} from the hub, or from its cache")
    folder = resolve_model(model)
    ready = make_ready(
        folder, options.precision, processes, options.threads, sampling="realtime", engine=options.engine, say=say,
        stage=say,
    )  # fmt: skip
    say(str(ready))
    pipe = ready.pipe
    chooses = processes.device.type == "cpu" and options.threads is None and probes_on()
    pace = Pace(ready.threads, ready.cores) if chooses else None
    first_frames = find_first_frames(folder, pipe.config.height, pipe.config.width)
    name = model if not Path(model).is_dir() else Path(model).resolve().name
    return create_app(
        pipe, name, first_frames, options.limits, options.host, options.allow_name, pace, frame_seconds(pipe)
    )


def frame_seconds(pipe: MagiVideoPipeline) -> float | None:
    """Seconds from one decoded frame to the next as a player gets them; None if nothing is played, or slowly."""
    if not pipe.config.action_names or pipe.codec.temporal_factor != 1:
        return None
    times: list[float] = []
    try:
        latents = pipe.stream(num_frames=MEASURED_FRAMES, sampling="realtime", output_type="latent")
    except MagiError:  # this model needs given frames, or makes a whole clip at once
        return None

    def show(made: Iterator[Tensor]) -> None:
        for _ in pipe.decode_stream(made):
            times.append(time.perf_counter())

    end = time.perf_counter() + MEASURING_SECONDS
    work_beside(show, itertools.takewhile(lambda _: time.perf_counter() < end, latents), items_ahead(pipe.device))
    later = np.diff(times[WARM_UP_FRAMES:]).tolist()
    return statistics.median(later) if later else None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, or a `MagiError` in one line."""
    if not 0 <= port <= 65535:
        raise MagiError(f"port must lie in 0…65535, got {port}")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise MagiError(f"{host!r} is no address of this machine") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise MagiError(f"port {port} is in use: stop what uses it, or choose another with --port") from None
        raise MagiError(f"cannot listen on {host} port {port} ({error.strerror})") from None
    return listening


def address(listening: socket.socket) -> str:
    """Where to point a browser."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}/"
