"""Connections to the server: bounded in number, for each address too, and none may be silent or deaf for long.

Uvicorn waits for ever for a request that does not come and for an answer that is not taken. Here a connection is ended
that has been waited for too long, and one too many is turned away in a line. Bodies are waited for in `bodies.py`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from magi_video.serving.limits import ServingLimits
from magi_video.serving.visitors import address_of, networks

LOOK_SECONDS = 1.0
HEADER_BYTES = 16_384
MESSAGE_BYTES = 16_384
REFUSAL = b'{"error": "too many connections just now: please try again in a moment"}'
REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(REFUSAL), REFUSAL)
)


@dataclass(eq=False)
class Connection:
    """One that is open.

    Attributes:
        protocol: of its beginning; of a WebSocket another has taken over.
        address: of the visitor whose share it counts towards.
        heard: when it was last not waited for.
        untaken, taken: bytes that wait to be sent, and when their number last changed.
    """

    protocol: Any
    address: str
    heard: float = field(default_factory=time.monotonic)
    untaken: int = 0
    taken: float = field(default_factory=time.monotonic)

    @property
    def transport(self) -> asyncio.Transport:
        """What it is made of."""
        return self.protocol.transport

    def is_silent(self) -> bool:
        """Whether its next request is waited for."""
        cycle = self.protocol.cycle
        return self.transport.get_protocol() is self.protocol and (cycle is None or cycle.response_complete)

    def is_gone(self) -> bool:
        """Whether it is closed and has nothing more to send."""
        return self.transport.is_closing() and not self.transport.get_write_buffer_size()


class Connections:
    """All that are open; used in the event loop alone.

    Args:
        limits: see there.
        proxies: addresses that many visitors come by; they have all places together, but no more.
    """

    def __init__(self, limits: ServingLimits, proxies: Sequence[str] = ()) -> None:
        self._limits, self._proxies = limits, networks(proxies)
        self._open: list[Connection] = []
        self._looking: asyncio.TimerHandle | None = None

    def admit(self, protocol: Any) -> bool:
        """Whether there is room for one more; for it a silent one may have to go."""
        address = address_of(protocol.client)
        self._open = [one for one in self._open if not one.is_gone()]
        ours = sum(one.address == address for one in self._open)
        if not self._is_proxy(protocol.client) and ours >= self._limits.share(self._limits.max_connections):
            return False
        if len(self._open) >= self._limits.max_connections:
            silent = next((one for one in self._open if one.is_silent()), None)
            if silent is None:
                return False
            silent.transport.abort()
            self._open.remove(silent)
        self._open.append(Connection(protocol, address))
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        return True

    def _is_proxy(self, client: tuple[str, int] | None) -> bool:
        try:
            address = ipaddress.ip_address(client[0] if client else "")
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def _look(self) -> None:
        """End those that were waited for too long."""
        now = time.monotonic()
        self._open = [one for one in self._open if not one.is_gone()]
        for one in self._open:
            if not one.is_silent():
                one.heard = now
            untaken = one.transport.get_write_buffer_size()
            if untaken != one.untaken or not untaken:
                one.untaken, one.taken = untaken, now
            if now - min(one.heard, one.taken) > self._limits.slow_seconds:
                one.transport.abort()
        again = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look) if self._open else None
        self._looking = again

    def protocol(self) -> type[H11Protocol]:
        """The protocol of these connections, for uvicorn."""
        connections = self

        class BoundedProtocol(H11Protocol):
            """HTTP, as uvicorn speaks it, for those who are admitted."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if not connections.admit(self):
                    transport.write(REFUSED)
                    transport.close()

            def data_received(self, data: bytes) -> None:
                if not self.transport.is_closing():
                    super().data_received(data)

        return BoundedProtocol


def configure(app: Any, limits: ServingLimits, proxies: Sequence[str] = ()) -> Config:
    """How uvicorn serves the page.

    Args:
        app: of `create_app`.
        limits: see there.
        proxies: addresses of trusted proxies: what they say of the visitor's address (`X-Forwarded-For`) is believed.
    """
    return Config(
        app,
        http=Connections(limits, proxies).protocol(),
        h11_max_incomplete_event_size=HEADER_BYTES,
        log_level="warning",
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,  # JPEG does not get smaller
        ws_ping_interval=10.0,
        ws_ping_timeout=10.0,
        timeout_graceful_shutdown=2,
    )
