"""One visitor cannot shut out the rest: who counts as one, slow and silent connections, shares of all places."""

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from magi_video.errors import MagiError
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving.limits import ServingLimits
from magi_video.serving.uploads import MAX_UPLOADS, Uploads
from magi_video.serving.videos import BusyError
from magi_video.serving.visitors import Places, address_of, networks
from tests.serving.site import Server, Site, picture

OURS, OTHERS = "127.0.0.1", "127.0.0.2"
PATIENCE = 30.0


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Server], pipe: MagiVideoPipeline) -> Server:
    return start_server(pipe, slow_seconds=1.0, max_connections=16)


@pytest.fixture
def call(server: Server) -> Iterator[Callable[..., socket.socket]]:
    """Connections to the server from an address of this machine."""
    opened: list[socket.socket] = []

    def make(begin: bytes = b"", address: str = OURS, where: Server = server) -> socket.socket:
        port = int(where.url.rpartition(":")[2])
        opened.append(socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(address, 0)))
        opened[-1].sendall(begin)
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def request(path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> bytes:
    told = {"Host": "127.0.0.1", "Connection": "close"} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    told |= {} if body is None else {"Content-Length": str(len(body))}
    return "\r\n".join([f"{method} {path} HTTP/1.1", *map(": ".join, told.items()), "", ""]).encode() + (body or b"")


def heard(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    content = b""
    try:
        while piece := connection.recv(65536):
            content += piece
    except ConnectionResetError:
        pass
    return content


def status(connection: socket.socket) -> int:
    return int(heard(connection).split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_who_counts_as_one(host: str, address: str) -> None:
    assert address_of((host, 1)) == address
    assert address_of(None) == ""


def test_places_are_shared() -> None:
    places = Places(4, ServingLimits().share(4), "full")
    for _ in range(3):
        places.take("a")
    with pytest.raises(BusyError):
        places.take("a")
    with places.taken("b"), pytest.raises(BusyError):
        places.take("c")
    places.take("c")
    places.give_back("a")
    places.take("a")
    assert [ServingLimits(max_share=share).share(4) for share in (0.01, 0.5, 1)] == [1, 2, 4]
    with pytest.raises(MagiError, match="at most 1"):
        ServingLimits(max_share=1.5)
    with pytest.raises(MagiError, match="no address"):
        networks(["localhost"])


@pytest.mark.parametrize("begin", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: "])
def test_a_request_that_does_not_come_is_not_waited_for(call: Callable[..., socket.socket], begin: bytes) -> None:
    assert heard(call(begin)) == b""


def test_a_request_that_comes_drop_by_drop_is_not_waited_for(call: Callable[..., socket.socket]) -> None:
    slow = call(b"GET / HTTP/1.1\r\n")
    with pytest.raises(OSError):
        for _ in range(200):  # ten seconds
            slow.sendall(b"a: b\r\n")
            time.sleep(0.05)


@pytest.mark.parametrize("path", ["/api/uploads", "/api/videos"])
def test_a_body_that_does_not_come_is_not_waited_for(call: Callable[..., socket.socket], path: str) -> None:
    begun = request(path, "POST", Content_Length="1000") + b"1234"
    answer = heard(call(begun))
    assert b" 400 " in answer.split(b"\r\n", 1)[0] and b"too slowly" in answer


def test_a_body_that_comes_drop_by_drop_is_not_waited_for(call: Callable[..., socket.socket]) -> None:
    slow = call(request("/api/uploads", "POST", Content_Length="1000000"))
    slow.settimeout(0.05)
    for _ in range(200):
        slow.sendall(b"drop")
        try:
            answer = slow.recv(4096)
            break
        except TimeoutError:
            continue
    assert b"too slowly" in answer + heard(slow)


def test_an_answer_that_is_not_taken_is_not_waited_for(call: Callable[..., socket.socket]) -> None:
    deaf = call()
    deaf.settimeout(0.3)
    wanted = request("/static/play.js", Connection="keep-alive")
    with pytest.raises(TimeoutError):  # the server, which cannot answer, hears no more either
        while True:
            deaf.sendall(wanted * 100)
    ended = select.poll()
    ended.register(deaf, 0)
    assert ended.poll(1000 * PATIENCE), "it hangs up"


def test_large_headers_are_refused(call: Callable[..., socket.socket]) -> None:
    large = call()
    with pytest.raises(OSError):
        large.sendall(request("/api/status", Cookie="a=" + "b" * 10**7))
    assert status(call(request("/api/status"), OTHERS)) == 200


def test_silent_connections_leave_room_for_others(start_server: Callable[..., Server], pipe: MagiVideoPipeline) -> None:
    server = start_server(pipe, slow_seconds=60.0, max_connections=16)
    port = int(server.url.rpartition(":")[2])

    def dial(address: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(address, 0))

    silent = [dial(OURS) for _ in range(40)]
    refused = [heard(one) for one in silent[12:]]
    assert all(b" 503 " in answer or answer == b"" for answer in refused), "an address has three quarters"
    for address in (OTHERS, *(f"127.0.0.{number}" for number in range(3, 13))):
        silent.append(dial(address))  # the oldest silent ones make room
        silent[-1].sendall(request("/api/status"))
        assert status(silent[-1]) == 200
    for one in silent:
        one.close()


def test_slow_uploads_leave_room_for_others(start_server: Callable[..., Server], pipe: MagiVideoPipeline) -> None:
    server = start_server(pipe, slow_seconds=60.0)
    port = int(server.url.rpartition(":")[2])
    slow = [socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(OURS, 0)) for _ in range(6)]
    for one in slow:
        one.sendall(request("/api/uploads", "POST", Content_Length="1000") + b"12")
    answers = [status(one) for one in slow[3:]]
    assert answers == [503] * 3, "an address has three of four places"
    with socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(OTHERS, 0)) as other:
        other.sendall(request("/api/uploads", "POST", b"nothing of use"))
        assert status(other) == 400, "it was received"
    for one in slow:
        one.close()


def test_orders_without_cookies_leave_room_for_others(
    make_site: Callable[..., Site], slow_pipe: MagiVideoPipeline
) -> None:
    site = make_site(slow_pipe)
    asked = {"frames": 240, "speed": "exact"}
    answers = [site.client.post("/api/videos", json=asked).status_code for _ in range(10)]
    assert answers == [201] * 3 + [503] * 7, "who sends no cookie is one visitor"
    for number in range(10):  # nor does a new cookie each time help
        site.client.cookies.set("magi_visitor", f"visitor-{number}")
        site.client.post("/api/videos", json=asked)
    assert site.service.videos.counts() == {"waiting": 6, "running": 1}
    other = site.from_another_address()
    assert [other.order(**asked)["state"] for _ in range(2)] == ["running", "waiting"]


def test_players_of_one_address_leave_room_for_others(site: Site) -> None:
    lines = [site.connect("/api/play") for _ in range(3)]
    for line in lines:
        assert line.__enter__().receive_json()["type"] == "hello"
    with site.connect("/api/play") as fourth:
        told = fourth.receive_json()
        assert told["type"] == "error" and "from your address" in told["error"]
    with site.from_another_address().connect("/api/play") as other:
        assert other.receive_json()["type"] == "hello"
    for line in lines:
        line.__exit__(None, None, None)


def test_uploads_of_one_address_do_not_push_out_those_of_others() -> None:
    uploads = Uploads(ServingLimits())
    theirs = uploads.add(picture()[None], "a")
    ours = [uploads.add(picture()[None], "b") for _ in range(2 * MAX_UPLOADS)]
    assert uploads.find(theirs.token) and uploads.find(ours[-1].token)
    with pytest.raises(MagiError):
        uploads.find(ours[0].token)


def test_a_proxy_speaks_for_others_if_it_is_trusted(
    start_server: Callable[..., Server], slow_pipe: MagiVideoPipeline
) -> None:
    asked = json.dumps({"frames": 240, "speed": "exact"}).encode()

    def order(server: Server, visitor: str) -> Any:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(request("/api/videos", "POST", asked, X_Forwarded_For=visitor))
            return status(connection)

    trusting, wary = start_server(slow_pipe, proxies=["127.0.0.0/8"]), start_server(slow_pipe)
    visitors = ["192.0.2.1", "198.51.100.1, 192.0.2.1", "192.0.2.1", "192.0.2.1"]
    assert [order(trusting, one) for one in visitors] == [201, 201, 201, 503]
    assert order(trusting, "192.0.2.2") == 201
    assert [order(wary, f"192.0.2.{number}") for number in range(4)] == [201, 201, 201, 503]
