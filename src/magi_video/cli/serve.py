"""`magi serve MODEL`: the web page."""

import contextlib
import errno
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from magi_video.cli.parsing import parse
from magi_video.errors import MagiError
from magi_video.fast.precision import Precision
from magi_video.serving.limits import ServingLimits

if TYPE_CHECKING:
    from magi_video.serving.security import Guard

BACKLOG = 128


@dataclass(frozen=True)
class Serve:
    """Serve a web page: generate, watch frames arrive, play. Ctrl-C stops it."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder, hub id, or the name of a shipped model ("doom", "atari")."""
    port: int = 8000
    """To listen on; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everyone on the network in: there is no password."""
    allow_name: tuple[str, ...] = ()
    """Names under which the page may be reached besides localhost and addresses, behind a proxy for example."""
    trust_proxy: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For is believed; without, all their visitors count as one."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Precision = "auto"
    """Of the weights; auto takes the quicker one on this machine and says which."""
    threads: int | None = None
    """CPU threads; if not said, one for a small model, else all cores, as long as the pace holds."""
    limits: Annotated[ServingLimits, arg(name="")] = field(default_factory=ServingLimits)
    """Of what visitors may ask for."""


def main(argv: list[str]) -> None:
    """Parse, load, serve until Ctrl-C."""
    settings = parse(Serve, "magi serve", argv)
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MagiError(f"{error.name} is not installed: pip install 'magi-video[serve]'") from None
    from magi_video.serving.connections import configure
    from magi_video.serving.visitors import networks

    networks(settings.trust_proxy)
    with listen(settings.host, settings.port) as listening:  # first of all: a port in use is reported at once
        app = load(settings)
        config = configure(app, settings.limits, settings.trust_proxy)
        print(f"{address(listening)}  (Ctrl-C stops it)", flush=True)
        if public(settings.host):
            print(f"warning: everyone who reaches {settings.host} can use this page", file=sys.stderr, flush=True)
        # Raised anew, at times, once the server has ended in order.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
        print("stopped", flush=True)


def load(settings: Serve) -> "Guard":
    """The model and the application around it."""
    from magi_video.distributed import Processes
    from magi_video.fast.threads import Pace, check_threads
    from magi_video.files.weights import resolve_model
    from magi_video.pipeline.ready import make_ready
    from magi_video.serving.app import create_app
    from magi_video.serving.requests import find_first_frames

    check_threads(settings.threads)
    processes = Processes(settings.device)
    folder = resolve_model(settings.model)
    ready = make_ready(folder, settings.precision, processes, settings.threads, sampling="realtime")
    print(ready, file=sys.stderr, flush=True)
    pipe = ready.pipe
    chooses = processes.device.type == "cpu" and settings.threads is None
    pace = Pace(ready.threads, ready.cores) if chooses else None
    first_frames = find_first_frames(folder, pipe.config.height, pipe.config.width)
    name = settings.model if not Path(settings.model).is_dir() else Path(settings.model).resolve().name
    return create_app(pipe, name, first_frames, settings.limits, settings.host, settings.allow_name, pace)


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


def public(host: str) -> bool:
    """Whether others than this machine's own users can come in."""
    from magi_video.serving.security import is_loopback

    return not is_loopback(host)
