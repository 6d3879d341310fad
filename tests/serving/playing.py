"""Playing a world over the WebSocket, for tests."""

from typing import Any

import numpy as np
from starlette.testclient import WebSocketTestSession

from tests.serving.site import Site, decoded

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
