"""Captions: the layouts they are found in, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from magi_video.data import VideoFolder, write_video
from magi_video.data.captions import read_captions
from magi_video.errors import MagiError


@pytest.fixture
def videos(tmp_path: Path) -> VideoFolder:
    for name in ("a/1.mp4", "a/2.mp4", "b.mp4"):
        write_video(tmp_path / name, np.zeros((2, 16, 16, 3), np.uint8), 5.0)
    return VideoFolder(tmp_path)


def test_a_text_beside_a_video_goes_before_the_metadata(videos: VideoFolder) -> None:
    assert read_captions(videos) == [None, None, None]
    (videos.root / "metadata.jsonl").write_text(
        '{"file_name": "a/1.mp4", "text": "listed"}\n\n{"file_name": "b.mp4", "text": "ball,\\tleft"}\n'
    )
    (videos.root / "a" / "1.txt").write_text("  beside\n it \n", encoding="utf-8")
    assert read_captions(videos) == ["ball, left", "beside it", None]
    (videos.root / "a" / "1.txt").write_text("\n")
    assert read_captions(videos)[1] == "listed", "an empty text is none"


def test_metadata_as_a_table(videos: VideoFolder) -> None:
    (videos.root / "metadata.csv").write_text('file_name,score,text\na/2.mp4,1,"a ball, red"\nx.mp4,2,absent\n')
    assert read_captions(videos) == [None, None, "a ball, red"]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("metadata.jsonl", b'{"file_name": "b.mp4"}', "line 1; expected file_name and text"),
    ("metadata.jsonl", b"[1]", "line 1; expected"),
    ("metadata.jsonl", b"{", "line 1 is not JSON"),
    ("metadata.jsonl", rb'{"file_name": "b.mp4", "text": "\ud83d"}', "line 1: half a character"),
    ("metadata.jsonl", b'{"file_name": "b.mp4", "text": "x"}\n' * 2, "line 2: 'b.mp4' a second time"),
    ("metadata.csv", b"file_name,text\nb.mp4\n", "line 2; expected"),
    ("metadata.csv", b"file_name,text\nb.mp4,\xff\n", "not a readable text file"),
    ("metadata.csv", b'file_name,text\nb.mp4,"x" y\n', "no CSV"),
    ("b.txt", b"word " * 2001, "10004 characters"),
    ("b.txt", b"x" * 50_000, "larger than"),
])  # fmt: skip
def test_hostile_captions_are_told_in_a_line(videos: VideoFolder, name: str, content: bytes, message: str) -> None:
    (videos.root / name).write_bytes(content)
    with pytest.raises(MagiError, match=message) as caught:
        read_captions(videos)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["b.txt", "metadata.jsonl"])
def test_nothing_is_read_outside_the_folder(
    videos: VideoFolder, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    secret.write_text("secret")
    (videos.root / name).symlink_to(secret)
    with pytest.raises(MagiError, match="link out of the folder"):
        read_captions(videos)
