"""The captions of a table of videos: kept to the letter, refused where no video has such."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from magi_video.errors import MagiError
from magi_video.latents.table import CachedVideos, VideoTable


def make_table(captions: list[Any]) -> VideoTable:
    columns = {name: np.array([2, 3]) for name in ("frames", "bytes", "height", "width")}
    columns |= {"label": np.array([-1, 0]), "frame_rate": np.array([25.0, 0]), "recorded": np.zeros(2, bool)}
    return VideoTable(["a.mp4", "b.mp4"], columns, np.zeros((0, 0), np.float32), ["a"], [], captions)


@pytest.mark.parametrize("captions", [[], [None, "a ball"], ["x" * 10_000, 'quoted "球" \0 \\ 👍🏽']])
def test_captions_are_kept_to_the_letter(tmp_path: Path, captions: list[Any]) -> None:
    path = tmp_path / "videos.safetensors"
    path.write_bytes(make_table(captions).to_bytes())
    table = VideoTable.read(path)
    assert table.captions == captions and table.to_bytes() == path.read_bytes()
    assert CachedVideos(table, tmp_path).captions == (captions or [None, None])


@pytest.mark.parametrize("captions", [["one"], ["a", 3], ["a", ""], ["a", "x" * 10_001], ["a", "\ud800"], {"a": "b"}])
def test_captions_that_no_video_has_are_refused(tmp_path: Path, captions: Any) -> None:
    path = tmp_path / "videos.safetensors"
    path.write_bytes(make_table(captions).to_bytes())
    with pytest.raises(MagiError, match="expected captions of 2 videos"):
        VideoTable.read(path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[NaN, NaN]", b"\xff\xff", b""])
def test_what_is_no_list_of_captions_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "videos.safetensors"
    path.write_bytes(make_table([None, "a ball"]).to_bytes())
    save_file(
        load_file(path) | {"captions": np.frombuffer(content, np.uint8)}, path, {"words": '{"class_names": ["a"]}'}
    )
    with pytest.raises(MagiError, match="unreadable table of videos"):
        VideoTable.read(path)
