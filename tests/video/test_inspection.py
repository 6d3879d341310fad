import os
import sys
import threading
import time
from pathlib import Path

import pytest

from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.video import video
from magi_video.video.inspection import Inspector
from magi_video.video.video import inspect_video
from tests.data.examples import write_numbered

HANGS = "import sys, time; print('\"ready\"', flush=True); sys.stdin.readline(); time.sleep(60)"
CRASHES = "import os, sys; print('\"ready\"', flush=True); sys.stdin.readline(); os.abort()"
IS_SLOW = """
import json, sys, time
print('"ready"', flush=True)
for line in sys.stdin:
    for _ in range(8):
        time.sleep(0.1)
        print('"alive"', flush=True)
    print(json.dumps({"num_frames": 8, "height": 1, "width": 1, "frame_rate": 1.0}), flush=True)
"""


def test_a_process_of_its_own_sees_what_ours_sees(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", 7)
    (tmp_path / "broken.mp4").write_bytes(b"broken")
    with Inspector() as inspector:
        assert inspector.inspect(path) == inspect_video(path)
        with pytest.raises(MagiError, match=r"broken\.mp4: unreadable"):
            inspector.inspect(tmp_path / "broken.mp4")
        assert inspector.inspect(path) == inspect_video(path)


@pytest.mark.parametrize(("code", "told"), [(HANGS, r"no new frame in 0\.3 s"), (CRASHES, "its decoder crashed")])
def test_a_decoder_that_hangs_or_crashes_costs_its_file_alone(code: str, told: str, tmp_path: Path) -> None:
    with Inspector(0.3, [sys.executable, "-c", code]) as inspector:
        for _ in range(2):
            with pytest.raises(MagiError, match=told):
                inspector.inspect(tmp_path / "a.mp4")


def test_a_slow_decoder_is_waited_for(tmp_path: Path) -> None:
    with Inspector(0.5, [sys.executable, "-c", IS_SLOW]) as inspector:
        assert inspector.inspect(tmp_path / "a.mp4").num_frames == 8


def test_a_process_that_cannot_start_skips_no_file(tmp_path: Path) -> None:
    with (
        Inspector(9, [sys.executable, "-c", "import nothing_of_this_name"]) as inspector,
        pytest.raises(MagiError, match="does not start"),
    ):
        inspector.inspect(tmp_path / "a.mp4")


def test_pipes_playlists_and_too_many_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    write_numbered(tmp_path / "a.mp4", 9)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    (tmp_path / "list.ts").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/a.mp4\n#EXT-X-ENDLIST\n")
    folder = VideoFolder(tmp_path)
    assert [one.path.name for one in folder.videos] == ["a.mp4"]
    reasons = {one.path.name: one.reason for one in folder.skipped}
    assert "not a regular file" in reasons["pipe.mp4"]
    assert "unreadable" in reasons["list.mp4"] and "unreadable" in reasons["list.ts"]
    monkeypatch.setattr(video, "MAX_FRAMES", 8)
    with pytest.raises(MagiError, match="more than 8 frames"):
        inspect_video(tmp_path / "a.mp4")


def test_a_file_that_grows_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "FRAMES_BETWEEN_LOOKS", 1)
    source = write_numbered(tmp_path / "source.ts.mp4", 30).read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(source)
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            with path.open("ab") as file:
                file.write(source)
            time.sleep(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(MagiError, match="changes while it is read"):
            inspect_video(path, on_frame=lambda: time.sleep(0.01))
    finally:
        stop.set()
        writer.join()
