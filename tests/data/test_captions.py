"""Captions: the layouts they are found in, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from magi_video.data.captions import read_captions
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.video.video import write_video


@pytest.fixture
def videos(tmp_path: Path) -> VideoFolder:
    for name in ("a/1.mp4", "a/2.mp4", "b.mp4"):
        write_video(tmp_path / name, np.zeros((2, 16, 16, 3), np.uint8), 5.0)
    return VideoFolder(tmp_path)


def test_a_text_beside_a_video_goes_before_the_metadata(videos: VideoFolder) -> None:
    assert read_captions(videos).texts == [None, None, None]
    (videos.root / "metadata.jsonl").write_text(
        '{"file_name": "a/1.mp4", "text": "listed"}\n\n{"file_name": "b.mp4", "text": "ball,\\tleft"}\n'
    )
    (videos.root / "a" / "1.txt").write_text("  beside\n it \n", encoding="utf-8")
    assert read_captions(videos).texts == ["ball, left", "beside it", None]
    (videos.root / "a" / "1.txt").write_text("\n")
    assert read_captions(videos).texts[1] == "listed", "an empty text is none"


def test_metadata_as_a_table(videos: VideoFolder) -> None:
    (videos.root / "metadata.csv").write_text('file_name,score,text\na/2.mp4,1,"a ball, red"\nx.mp4,2,absent\n')
    assert read_captions(videos).texts == [None, None, "a ball, red"]


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


def test_a_byte_order_mark_is_no_part_of_a_text(videos: VideoFolder) -> None:
    (videos.root / "metadata.csv").write_bytes(b"\xef\xbb\xbffile_name,text\r\na/2.mp4,hello\r\n")
    (videos.root / "b.txt").write_bytes(b"\xef\xbb\xbfhello\r\n")
    (videos.root / "a" / "1.txt").write_bytes("größer".encode("utf-16"))
    assert read_captions(videos).texts == ["hello", "größer", "hello"]
    (videos.root / "metadata.csv").unlink()
    (videos.root / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"file_name": "a/2.mp4", "text": "hi"}\r\n')
    assert read_captions(videos).texts[2] == "hi"


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_of_another_language(separator: str, videos: VideoFolder) -> None:
    rows = [("file_name", "text"), ("b.mp4", '"a, b"')]
    (videos.root / "metadata.csv").write_text("".join(separator.join(row) + "\n" for row in rows))
    assert read_captions(videos).texts[0] == "a, b"


def listing(*names: str) -> str:
    return "".join(json.dumps({"file_name": name, "text": f"of {name}"}) + "\n" for name in names)


def test_names_are_matched_as_users_write_them_and_the_rest_is_told(videos: VideoFolder) -> None:
    path = videos.root / "metadata.jsonl"
    names = ["./b.mp4", "a\\1.mp4", "A/2.MP4"]
    path.write_text(listing(*names))
    captions = read_captions(videos)
    assert captions.texts == [f"of {name}" for name in names]
    assert captions.summary() == "captions: 3 of 3 videos"
    path.write_text(listing("b.mp4", "gone.mp4", "/b.mp4", "../b.mp4", "x\n"))
    captions = read_captions(videos)
    assert captions.texts == ["of b.mp4", None, None]
    unmatched = f"4 lines name no video (gone.mp4, /b.mp4, ../b.mp4, …; the first in {path}: line 2)"
    assert captions.summary() == f"captions: 1 of 3 videos; {unmatched}"
    path.write_text(listing("b.mp4", "./b.mp4"))
    with pytest.raises(MagiError, match=r"line 2: '\./b\.mp4' a second time"):
        read_captions(videos)


def test_case_alone_never_decides_between_two_videos(videos: VideoFolder) -> None:
    write_video(videos.root / "B.mp4", np.zeros((2, 16, 16, 3), np.uint8), 5.0)
    folder = VideoFolder(videos.root)
    (folder.root / "metadata.jsonl").write_text(listing("B.mp4", "b.MP4"))
    captions = read_captions(folder)
    named = {video.path.name: text for video, text in zip(folder.videos, captions.texts, strict=True)}
    assert named["B.mp4"] == "of B.mp4" and named["b.mp4"] is None and captions.unmatched == ["b.MP4"]


def test_metadata_of_a_subfolder_names_its_videos_from_there(videos: VideoFolder) -> None:
    (videos.root / "a" / "metadata.jsonl").write_text(listing("1.mp4", "../b.mp4", "3.mp4"))
    assert read_captions(videos).texts == ["of ../b.mp4", "of 1.mp4", None]
    (videos.root / "metadata.csv").write_text("file_name,text\na/1.mp4,far\na/2.mp4,far\n")
    captions = read_captions(videos)
    assert captions.texts[1:] == ["of 1.mp4", "far"], "the nearer file holds"
    assert captions.unmatched == ["3.mp4"]
