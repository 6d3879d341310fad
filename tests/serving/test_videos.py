"""Making videos over HTTP and WebSocket: orders, frames, files, the queue, and everything that must be refused."""

import io
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from magi_video.errors import MagiError
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.serving.app import STATIC
from magi_video.serving.errors import WITHHELD
from magi_video.video.video import read_frames, write_video
from tests.serving.site import BASE, SIDE, Site, decoded, picture, png


def wait_until(site: Site, token: str, states: tuple[str, ...]) -> dict[str, Any]:
    for _ in range(4000):
        status = site.client.get(f"/api/videos/{token}").json()
        if status["state"] in states:
            return status
        time.sleep(0.01)
    raise AssertionError(f"never {states}: {status}")


def test_the_page_needs_nothing_from_elsewhere(site: Site) -> None:
    answer = site.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    assert "onclick" not in answer.text and "<style" not in answer.text and "style=" not in answer.text
    for file in STATIC.iterdir():
        assert site.client.get(f"/static/{file.name}").status_code == 200
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text
    assert site.client.get("/docs").status_code == site.client.get("/openapi.json").status_code == 404


def test_what_the_model_can_do_is_told(site: Site) -> None:
    told = site.client.get("/api/model").json()
    assert told["actions"] == ["LEFT", "RIGHT", "FIRE"] and told["first_frames"] == ["One", "Two"]
    assert told["games"] == [] and told["endless"] and told["max_frames"] == 240
    assert told["world"] is None and told["window"] == 4, "of five frames one sees the four before it"
    assert np.abs(decoded(site.client.get("/api/first/1.jpg").content) - picture(2)).mean() < 8
    for number in ("2", "-1", "..%2f..%2fetc%2fpasswd", "x"):
        answer = site.client.get(f"/api/first/{number}.jpg")
        assert answer.status_code == 404 and set(answer.json()) == {"error"}


def test_a_video_is_what_the_pipeline_makes_and_can_be_taken_home(
    site: Site, pipe: MagiVideoPipeline, tmp_path: Path
) -> None:
    asked = {"first": 1, "frames": 6, "interval": 2, "speed": "exact", "seed": 7, "actions": "FIRE*2 LEFT"}
    ordered = site.order(**asked)
    frames, last = site.follow(ordered["video"])
    assert len(frames) == 6 and last["state"] == "done" and last["rate"] == 25.0
    rows = [None, *(pipe.action(name) for name in ("FIRE", "FIRE", "LEFT", "FIRE", "FIRE"))]
    made = pipe(
        image=picture(2), num_frames=6, interval=2, actions=rows, generator=torch.Generator().manual_seed(7)
    ).frames[0]
    own = [decoded(frame) for frame in frames]
    assert max(np.abs(a - 255 * b).mean() for a, b in zip(own, made, strict=True)) < 12
    assert np.abs(own[0] - own[5]).mean() > 3, "it moves"
    for name in last["files"]:
        (tmp_path / name).write_bytes(site.client.get(f"/api/videos/{ordered['video']}/{name}").content)
    assert len(read_frames(tmp_path / "video.mp4")) == 6 and Image.open(tmp_path / "contact.png").format == "PNG"
    with Image.open(tmp_path / "video.gif") as gif:
        assert gif.n_frames == 6 and gif.info["duration"] == 40
    assert site.client.get(f"/api/videos/{ordered['video']}/..%2f..%2fsecret").status_code in (400, 404)
    assert site.client.get(f"/api/videos/{ordered['video']}/video.mp3").status_code == 400


def test_frames_can_be_followed_from_any_on(site: Site) -> None:
    token = site.order(frames=5)["video"]
    whole, _ = site.follow(token)
    rest, _ = site.follow(token, first=3)
    assert rest == whole[3:]
    assert site.follow(token, first=5)[0] == []


def test_an_uploaded_picture_comes_first(site: Site) -> None:
    answer = site.client.post("/api/uploads", content=png(picture(5, 64, 64)))
    assert answer.status_code == 201 and answer.json()["kind"] == "picture"
    token = answer.json()["upload"]
    frames, _ = site.follow(site.order(upload=token, frames=2)["video"])
    assert np.abs(decoded(frames[0]) - picture(5)).mean() < 8
    assert np.abs(decoded(site.client.get(f"/api/uploads/{token}.jpg").content) - picture(5)).mean() < 8


def test_an_uploaded_clip_is_continued(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(max_clip_frames=12)
    clip = np.stack([picture(seed, 64, 64) for seed in range(20)])
    write_video(tmp_path / "clip.mp4", clip, 10.0, crf=4)
    answer = site.client.post("/api/uploads", content=(tmp_path / "clip.mp4").read_bytes()).json()
    assert answer["kind"] == "clip" and answer["frames"] == 12, "no more is read than the limit says"
    frames, _ = site.follow(site.order(upload=answer["upload"], given=3, interval=2, frames=5)["video"])
    for index, frame in enumerate(frames[:3]):
        assert np.abs(decoded(frame) - picture(2 * index)).mean() < 16


def huge_png(side: int) -> bytes:
    """The header of a picture that would fill the memory."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


BAD_UPLOADS = {
    "nothing": b"",
    "text": b"hello, I am no picture" * 10,
    "cut picture": png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))[:2000],
    "bomb": huge_png(60_000),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "no video": b"\0\0\0\x20ftypisom" + b"\0" * 400,
    "too large": b"\x89PNG" + b"\0" * 1_200_000,
}


@pytest.mark.parametrize("kind", BAD_UPLOADS)
def test_bad_uploads_are_refused_in_a_line_and_leave_nothing(make_site: Callable[..., Site], kind: str) -> None:
    site = make_site(max_upload_mb=1)

    def pieces() -> Iterator[bytes]:  # sent in pieces, without a length told before
        yield BAD_UPLOADS[kind]

    for content in (BAD_UPLOADS[kind], pieces()):
        answer = site.client.post("/api/uploads", content=content)
        assert answer.status_code == (413 if kind == "too large" else 400)
        error = answer.json()["error"]
        assert error and "\n" not in error and "Traceback" not in error and str(site.service.folder) not in error
    assert list(site.service.folder.iterdir()) == []


BAD_ORDERS = [
    ({"frames": 1}, "frames"),
    ({"frames": 100_000}, "2…240"),
    ({"frames": "many"}, "frames"),
    ({"interval": 0}, "interval"),
    ({"interval": 26}, "interval"),
    ({"speed": "reckless"}, "speed must be one of exact, balanced"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**40}, "seed"),
    ({"first": 9}, "first frame"),
    ({"first": "/etc/passwd"}, "first"),
    ({"upload": "nobody"}, "no longer here"),
    ({"first": 0, "upload": "x"}, "not both"),
    ({"path": "/etc/passwd"}, "path"),
    ({"label": 3}, "class"),
    ({"actions": "DANCE*3"}, "unknown action"),
    ({"actions": "FIRE " * 100}, "actions"),
    ([1, 2], "request"),
]


@pytest.mark.parametrize(("asked", "message"), BAD_ORDERS)
def test_bad_orders_are_refused_in_a_line(site: Site, asked: Any, message: str) -> None:
    answer = site.client.post("/api/videos", json=asked)
    assert answer.status_code == 400 and message in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert site.service.videos.counts() == {"waiting": 0, "running": 0}


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 8000, b"", b"1"])
def test_what_is_no_json_is_refused(site: Site, body: bytes) -> None:
    answer = site.client.post("/api/videos", content=body)
    assert answer.status_code == 400 and set(answer.json()) == {"error"}
    assert site.client.post("/api/videos", content=b" " * 20_000).status_code == 413


def test_requests_of_other_sites_are_refused(site: Site) -> None:
    order = json.dumps({"frames": 2})
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"{BASE}:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert site.client.post("/api/videos", content=order, headers=headers).status_code == 403
        for path in ("/api/play", "/api/videos/x/frames"):
            with pytest.raises(WebSocketDisconnect), site.connect(path, **headers):
                pass
    assert site.client.get("/api/model", headers={"Host": "evil.example"}).status_code == 403
    fine = {"Origin": BASE, "Sec-Fetch-Site": "same-origin"}
    assert site.client.post("/api/videos", content=order, headers=fine).status_code == 201
    with site.connect("/api/play", **fine) as line:
        assert line.receive_json()["type"] == "hello"


def test_cancelling_keeps_what_is_there(make_site: Callable[..., Site], slow_pipe: MagiVideoPipeline) -> None:
    site = make_site(slow_pipe)
    token = site.order(frames=240, speed="exact")["video"]
    with site.connect(f"/api/videos/{token}/frames") as line:
        seen = 0
        while True:
            told = line.receive_json()
            if told["type"] == "frame":
                line.receive_bytes()
                seen += 1
                if seen == 3:
                    line.send_json({"type": "cancel"})
            elif told["state"] == "cancelled":
                break
    assert 3 <= told["made"] < 240 and told["files"] and told["seconds_left"] > 0
    assert site.client.get(f"/api/videos/{token}/contact.png").status_code == 200
    assert site.client.delete(f"/api/videos/{token}").json()["state"] == "cancelled"
    assert site.client.delete("/api/videos/unknown").status_code == 400


def test_the_queue_has_places_an_order_and_an_end(make_site: Callable[..., Site], slow_pipe: MagiVideoPipeline) -> None:
    site = make_site(slow_pipe, max_queue=2, max_running=1, max_share=1)
    asked = {"frames": 240, "speed": "exact"}
    first, second, third = (site.order(**asked) for _ in range(3))  # without a cookie each is another visitor's
    assert [one["state"] for one in (first, second, third)] == ["running", "waiting", "waiting"]
    assert [one["position"] for one in (first, second, third)] == [0, 1, 2]
    full = site.client.post("/api/videos", json=asked)
    assert full.status_code == 503 and "waiting already" in full.json()["error"]
    assert site.client.get("/api/status").json() == {"playing": 0, "waiting": 2, "running": 1}
    site.client.delete(f"/api/videos/{first['video']}")
    assert wait_until(site, second["video"], ("running",))["position"] == 0
    assert site.client.get(f"/api/videos/{third['video']}").json()["position"] == 1


def test_one_visitor_cannot_take_all_places(make_site: Callable[..., Site], slow_pipe: MagiVideoPipeline) -> None:
    site = make_site(slow_pipe, max_running=2)
    asked = {"frames": 240, "speed": "exact"}
    site.client.get("/")
    mine = [site.order(**asked) for _ in range(3)]
    assert [one["state"] for one in mine] == ["running", "waiting", "waiting"]
    assert site.client.post("/api/videos", json=asked).status_code == 503
    site.client.cookies.clear()
    other = site.from_another_address().order(**asked)
    assert other["state"] == "running", "another visitor does not wait behind them"
    for token in (mine[0]["video"], other["video"]):
        with site.connect(f"/api/videos/{token}/frames") as line:
            assert line.receive_json()["type"] in ("frame", "state")


def test_a_visitor_who_goes_away_frees_the_place(make_site: Callable[..., Site], slow_pipe: MagiVideoPipeline) -> None:
    site = make_site(slow_pipe, grace_seconds=1.0, max_running=1)
    token = site.order(frames=240, speed="exact")["video"]
    with site.connect(f"/api/videos/{token}/frames") as line:
        line.receive_json()
        video = site.service.videos.find(token)
        assert video.state == "running"
    for _ in range(1000):
        if video.state == "cancelled":
            break
        time.sleep(0.02)
    assert video.state == "cancelled" and "watching" in video.reason


def test_old_results_make_room(make_site: Callable[..., Site]) -> None:
    site = make_site(keep_seconds=0.8)
    token = site.order(frames=2)["video"]
    site.follow(token)
    while site.client.get(f"/api/videos/{token}").status_code == 200:
        time.sleep(2)  # looking at it keeps it
    assert "no longer here" in site.client.get(f"/api/videos/{token}").json()["error"]
    with site.connect(f"/api/videos/{token}/frames") as line:
        assert line.receive_json()["type"] == "error"


def test_a_defect_is_told_without_its_details(
    make_site: Callable[..., Site], make_pipe: Callable[..., MagiVideoPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_pipe()

    def broken(**asked: Any) -> Iterator[torch.Tensor]:
        yield torch.zeros(1, 3, SIDE, SIDE)
        raise RuntimeError("/root/secret")

    monkeypatch.setattr(pipe, "stream", broken)
    site = make_site(pipe)
    frames, last = site.follow(site.order(frames=3)["video"])
    assert len(frames) == 1 and last["state"] == "failed" and last["reason"] and "secret" not in json.dumps(last)
    assert site.client.get("/api/model").status_code == 200, "the page goes on"


def test_a_place_on_the_server_is_told_to_nobody(
    site: Site, pipe: MagiVideoPipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def misplaced(*asked: Any, **more: Any) -> Any:
        raise MagiError("/root/secret: no such file")

    monkeypatch.setattr(pipe, "stream", misplaced)
    _, last = site.follow(site.order(frames=3)["video"])
    assert last["state"] == "failed" and last["reason"] == WITHHELD
    with site.connect("/api/play") as line:
        line.send_json({"type": "start"})
        assert line.receive_json()["type"] == "hello"
        assert line.receive_json() == {"type": "error", "error": WITHHELD}
    monkeypatch.setattr(type(pipe.transformer), "check_interval", misplaced)
    answer = site.client.post("/api/videos", json={})
    assert answer.status_code == 400 and answer.json() == {"error": WITHHELD}
    with site.connect("/api/play") as line:
        line.send_json({"type": "start"})
        assert line.receive_json()["type"] == "hello"
        assert line.receive_json() == {"type": "error", "error": WITHHELD}
    assert [message.endswith("/root/secret: no such file") for message in caplog.messages] == [True] * 4


def test_a_model_without_actions_has_no_controls(
    make_site: Callable[..., Site], make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    site = make_site(make_pipe(actions=False))
    assert site.client.get("/api/model").json()["controls"] == []
    frames, last = site.follow(site.order(frames=3)["video"])
    assert len(frames) == 3 and last["state"] == "done"
    assert "takes no actions" in site.client.post("/api/videos", json={"actions": "FIRE"}).json()["error"]
    assert io.BytesIO(frames[0]).read(2) == b"\xff\xd8"
