"""Kinetics-600 in the layouts it is found in, and what becomes of lists that are wrong."""

import os
from pathlib import Path

import pytest

from magi_video.data.folder import VideoFolder
from magi_video.data.kinetics import Kinetics600, find_annotations, read_annotations
from magi_video.errors import MagiError
from magi_video.evaluation.protocols import find_protocol
from magi_video.evaluation.realset import open_videos as open_protocol_videos
from magi_video.presets import load_preset
from magi_video.training.preparation import open_videos
from tests.data.examples import write_numbered

HEADER = "label,youtube_id,time_start,time_end,split"
CLIPS = {  # youtube id → label, start
    "aaaaaaaaaa0": ("bowling", 0), "-bbbbbbbbb1": ("bowling", 12), "__cccccccc2": ("air drumming", 107),
}  # fmt: skip


def name_of(youtube_id: str) -> str:
    start = CLIPS[youtube_id][1]
    return f"{youtube_id}_{start:06d}_{start + 10:06d}"


def write_list(path: Path, split: str = "train", more: tuple[str, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f'"{label}",{name},{start},{start + 10},{split}' for name, (label, start) in CLIPS.items()]
    path.write_text("\r\n".join([HEADER, *rows, *more]) + "\r\n")


def write_clips(folder: Path, by_label: bool, suffix: str = ".mp4") -> None:
    for length, (name, (label, _)) in enumerate(CLIPS.items(), 5):
        path = folder / label / name_of(name) if by_label else folder / name_of(name)
        write_numbered(path.with_suffix(".mp4"), length).rename(path.with_suffix(suffix))


def reasons(folder: VideoFolder) -> dict[str, int]:
    told = [one.reason.split(" (")[0] for one in folder.skipped]
    return {reason: told.count(reason) for reason in told}


@pytest.mark.parametrize(("by_label", "annotations", "folder", "suffix"), [
    (True, "annotations/train.csv", "train", ".mp4"),
    (False, "annotations/train.txt", "train", ".mkv"),
    (False, "kinetics-600_train.csv", "videos/train", ".MP4"),
    (True, "train.csv", "", ".webm"),
    (False, "../annotations/kinetics600_train.csv", "", ".mp4"),
])  # fmt: skip
def test_the_usual_layouts(tmp_path: Path, by_label: bool, annotations: str, folder: str, suffix: str) -> None:
    root = tmp_path / "k600"
    write_clips(root / folder, by_label, suffix)
    write_list(root / annotations)
    videos = open_videos(load_preset("k600"), root, root / "videos.json")
    assert isinstance(videos, Kinetics600) and not videos.skipped
    assert videos.class_names == ["air drumming", "bowling"]
    told = [(video.path.stem, video.num_frames, video.label) for video in videos.videos]
    assert told == [(name_of(name), {"_": 7, "a": 5, "-": 6}[name[0]], label) for name, label in (
        ("__cccccccc2", 0), ("-bbbbbbbbb1", 1), ("aaaaaaaaaa0", 1)
    )]  # fmt: skip
    assert (root / "videos.json").is_file() and videos.num_files == 3
    assert len(open_videos(load_preset("k600"), root, sample=2).videos) == 2


def test_folders_speak_for_themselves_without_a_list(tmp_path: Path) -> None:
    write_clips(tmp_path / "train", by_label=True)
    videos = Kinetics600(tmp_path, "train")
    assert [videos.class_names[video.label or 0] for video in videos.videos] == ["air drumming", "bowling", "bowling"]
    with pytest.raises(MagiError, match=r"no val split .* expected train/<label>"):
        Kinetics600(tmp_path, "val")
    with pytest.raises(MagiError, match="subset 'dev'"):
        Kinetics600(tmp_path, "dev")


def test_what_is_missing_or_wrong_is_skipped_and_counted(tmp_path: Path) -> None:
    root, secret = tmp_path / "k600", write_numbered(tmp_path / "secret.mp4", 5)
    write_clips(root / "train", by_label=False)
    (root / "train" / "dddddddddd3_000000_000010.mp4").symlink_to(secret)
    (root / "train" / "eeeeeeeeee4_000000_000010.mp4").write_bytes(b"broken")
    write_numbered(root / "train" / "unlisted.mp4", 5)
    (root / "train" / "notes.txt").write_text("not a video")
    (root / "train" / "elsewhere").symlink_to(tmp_path)
    write_list(root / "train.csv", more=(
        "bowling,dddddddddd3,0,10,train",          # a link out of the folder
        "bowling,eeeeeeeeee4,0,10,train",          # unreadable
        "curling,ffffffffff5,0,10,train",          # missing
        "bowling,aaaaaaaaaa0,0,10,train",          # again
        "bowling,gggggggggg6,0,10,validate",       # of another split
        "bowling,../../secret,0,10,train", "bowling,/etc/passwd,0,10,train", "bowling,,0,10,train",
        "bowling,hhhhhhhhhh7,-3,10,train", "bowling,hhhhhhhhhh7,0,1e9,train", "bowling,hhhhhhhhhh7,0",
        'bowling,"hhhhhhhhhh7,0,10,train', "bow\x00ling,hhhhhhhhhh7,0,10,train", "bowling," + "h" * 200_000,
        "", "   ",
    ))  # fmt: skip
    videos = Kinetics600(root, "train", index=tmp_path / "index.json")
    assert len(videos.videos) == 3 and videos.class_names == ["air drumming", "bowling", "curling"]
    assert reasons(videos) == {
        "link to a folder": 1, "link out of the folder": 1, "malformed row": 9, "row of another split": 1,
        "listed but missing": 2, "listed twice": 1, "in no annotation file": 1, "unreadable": 1,
    }  # fmt: skip
    assert "9 malformed row" in videos.summary() and "2 listed but missing" in videos.summary()


@pytest.mark.parametrize(("content", "told"), [
    (b"path label\nx.mp4 3\n", "'path label'"),
    (b"", "''"),
    ("label,youtube_id,time_start,time_end,split\n".encode("utf-16"), "no short line of UTF-8"),
    (b"l" * 100_000, "no short line of UTF-8"),
    (b"\x00\x01\x02\n", "x00"),
    (b'"label,youtube_id\n', "youtube_id"),
])  # fmt: skip
def test_a_file_that_is_no_list_is_told_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    write_clips(tmp_path / "train", by_label=False)
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(MagiError, match=r"train\.csv: the first line is .*expected label,youtube_id") as error:
        Kinetics600(tmp_path, "train")
    assert told in str(error.value) and "\n" not in str(error.value)
    assert not Kinetics600.recognises(tmp_path)


def test_rows_in_another_encoding_are_counted_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_bytes(b"\xef\xbb\xbfyoutube_id,time_start,time_end\nabc_DEF-123,4,14\n\xff\xfe,1,2\nabc_DEF-124,5,15")
    rows = list(read_annotations(path))
    assert [row and (row.label, row.stem, row.split) for row in rows] == [
        (None, "abc_DEF-123_000004_000014", ""), None, (None, "abc_DEF-124_000005_000015", ""),
    ]  # fmt: skip


def test_which_list_is_taken(tmp_path: Path) -> None:
    for name in ("kinetics600_holdout_test.csv", "test.txt", "kinetics_600_test.csv", "test.csv", "contest.csv"):
        (tmp_path / name).write_text(HEADER + "\n")
        (tmp_path / "train_list.csv").write_text("path label\n")
    assert find_annotations(tmp_path, "test") == tmp_path / "test.csv"
    assert find_annotations(tmp_path, "val") is None
    (tmp_path / "validate.csv").write_text(HEADER + "\n")
    assert find_annotations(tmp_path, "val") == tmp_path / "validate.csv"
    os.mkfifo(tmp_path / "fifo_train.csv")  # would be waited for without end
    with pytest.raises(MagiError, match=r"train_list\.csv"):
        find_annotations(tmp_path, "train")


def test_the_protocol_takes_the_test_split_or_else_validation(tmp_path: Path) -> None:
    protocol = find_protocol("magi-k600")
    write_clips(tmp_path / "train", by_label=False)
    write_list(tmp_path / "train.csv")
    with pytest.raises(MagiError, match="no test split"):
        open_protocol_videos(tmp_path, protocol)
    write_numbered(tmp_path / "val" / f"{name_of('aaaaaaaaaa0')}.mp4", 20)
    write_list(tmp_path / "val.csv", split="validate")
    videos, warnings = open_protocol_videos(tmp_path, protocol)
    assert [video.path.parent.name for video in videos.videos] == ["val"] and "validation" in warnings[0]
    write_numbered(tmp_path / "test" / f"{name_of('-bbbbbbbbb1')}.mp4", 20)
    write_list(tmp_path / "test.csv", split="test")
    videos, warnings = open_protocol_videos(tmp_path, protocol)
    assert [video.path.parent.name for video in videos.videos] == ["test"] and not warnings
    assert len(Kinetics600(tmp_path, "all").videos) == 3  # a clip counts once


def test_no_row_of_a_long_list_is_looked_for_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    with (tmp_path / "train.csv").open("w") as file:
        file.write(HEADER + "\n")
        file.writelines(f"bowling,{number:011d},0,10,train\n" for number in range(2_000))
        file.writelines(",,,,\n" for _ in range(2_000))
    looks = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *given, **named: (looks.append(given), stat(*given, **named))[1])
    videos = Kinetics600(tmp_path, "train")
    assert reasons(videos) == {"listed but missing": 2_000, "malformed row": 2_000}
    assert 0 < len(looks) < 100
