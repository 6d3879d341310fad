"""Visitors' files in processes of their own: what costs memory or time, crashes, or holds nothing."""

import asyncio
import io
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from magi_video.errors import MagiError
from magi_video.serving.reading import UploadReaders
from tests.serving.site import Site, picture, png

HANGS = "import sys, time; print('\"ready\"', flush=True); sys.stdin.readline(); time.sleep(60)"
CRASHES = "import os, sys; print('\"ready\"', flush=True); sys.stdin.readline(); os.abort()"
LIES = """
import json, sys
print('"ready"', flush=True)
for line in sys.stdin:
    open(json.loads(line)[4], "wb").write(b"x" * 10**6)
    print('{"frames": 7}', flush=True)
"""


@pytest.mark.parametrize(
    ("code", "told"), [(HANGS, "too long"), (CRASHES, "this file cannot be read"), (LIES, "this file cannot be read")]
)
def test_a_decoder_that_fails_costs_its_file_alone(code: str, told: str, tmp_path: Path) -> None:
    async def read() -> None:
        readers = UploadReaders(0.5, [sys.executable, "-c", code])
        for _ in range(3):
            (tmp_path / "file").write_bytes(png(picture()))
            with pytest.raises(MagiError, match=told):
                await readers.read(tmp_path / "file", 16, 16, 10)
        await readers.close()

    asyncio.run(read())
    assert list(tmp_path.iterdir()) == []


def heavy_clip(path: Path) -> bytes:
    """A few grey frames of 2²⁵ pixels, each of which has to be kept for the next: a kilobyte or two."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "51"})
        stream.width, stream.height, stream.pix_fmt = 8192, 4096, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((4096 * 3 // 2, 8192), 128, np.uint8), format="yuv420p")
        for _ in range(2):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def heavy_picture() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (8192, 4096)).save(encoded, format="webp", lossless=True)
    return encoded.getvalue()


def no_frames(path: Path) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        container.start_encoding()
    return path.read_bytes()


def test_bombs_and_empty_clips_are_refused_in_a_line_and_the_next_file_is_read(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGI_UPLOAD_MEMORY", str(2**26))
    for content in (heavy_picture(), heavy_clip(tmp_path / "a.mp4"), no_frames(tmp_path / "b.avi")):
        answer = site.client.post("/api/uploads", content=content)
        assert answer.status_code == 400 and "\n" not in answer.json()["error"], answer.text
        assert str(site.service.folder) not in answer.text
    assert site.client.post("/api/uploads", content=png(picture())).status_code == 201
    assert list(site.service.folder.iterdir()) == []
