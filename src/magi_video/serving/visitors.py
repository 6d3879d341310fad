"""Who is who among visitors: by their address, so that no one of them takes all the places there are.

A cookie is not asked: a visitor who wants more than others would send none, or a new one each time.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from magi_video.errors import MagiError
from magi_video.serving.videos import BusyError

IPV6_HOME = 64
"""Bits of an IPv6 address that are one household's or machine's: the others it chooses as it likes."""
LONGEST = 64


def address_of(client: tuple[str, int] | None) -> str:
    """Whom a connection counts for: its IPv4 address, or the network of its IPv6 address.

    Args:
        client: host and port, as ASGI has them; None where there are none, as of a Unix socket.
    """
    host = client[0][:LONGEST] if client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_HOME), strict=False))


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(names: Sequence[str]) -> list[Network]:
    """Addresses and networks by their names; a `MagiError` if one is none."""
    found: list[Network] = []
    for name in names:
        try:
            found.append(ipaddress.ip_network(name))
        except ValueError:
            raise MagiError(f"{name[:60]!r} is no address; expected one like 127.0.0.1 or 10.0.0.0/8") from None
    return found


class Places:
    """So many places, of which an address has at most its share; for use in any thread.

    Args:
        number: of places.
        share: how many of them one address may have.
        full: the message when there is no room.
    """

    def __init__(self, number: int, share: int, full: str) -> None:
        self._number, self._share, self._full = number, share, full
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, address: str) -> None:
        """Take a place; `BusyError` where there is none."""
        with self._lock:
            if self._taken.total() >= self._number or self._taken[address] >= self._share:
                raise BusyError(f"{self._full}: please try again in a while")
            self._taken[address] += 1

    def give_back(self, address: str) -> None:
        """Undo `take`."""
        with self._lock:
            self._taken[address] -= 1
            self._taken += Counter()  # forgets who has none

    @contextmanager
    def taken(self, address: str) -> Iterator[None]:
        """Hold a place for a while."""
        self.take(address)
        try:
            yield
        finally:
            self.give_back(address)
