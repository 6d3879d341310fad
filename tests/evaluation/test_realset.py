"""Which clips the real set is made of, and what protocols say of themselves."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from magi_video.cli.evaluate import Evaluate
from magi_video.cli.score import Score
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.evaluation.protocols import PROTOCOLS, find_protocol
from magi_video.evaluation.realset import Numbers, choose, open_videos, real_clips
from tests.data.examples import frame_numbers, write_numbered

SMALL = PROTOCOLS["small"]
LATTE = PROTOCOLS["latte"]
pytestmark = pytest.mark.usefixtures("cache")
LENGTHS = [20, 46, 45, 100, 60, 80, 300, 47]


def test_the_choice_is_seeded_and_a_longer_one_begins_with_the_shorter() -> None:
    picks = choose(LENGTHS, LATTE, 4)
    assert picks == choose(LENGTHS, LATTE, 4)
    assert picks == choose(LENGTHS, LATTE, 6)[:4]
    assert picks != choose(LENGTHS, dataclasses.replace(LATTE, seed=1), 4)
    assert all(pick.start + LATTE.span <= LENGTHS[pick.video] for pick in choose(LENGTHS, LATTE, 6))
    assert {pick.video for pick in choose(LENGTHS, LATTE, 6)} == {1, 3, 4, 5, 6, 7}, "45 frames are one too few"
    assert len(choose(LENGTHS, LATTE, 10)) == 6, "one clip a video"


def test_orders_and_temporal_rules() -> None:
    sorted_first = choose(LENGTHS, dataclasses.replace(LATTE, order="sorted-first", temporal="first"), 3)
    assert [(pick.video, pick.start) for pick in sorted_first] == [(1, 0), (3, 0), (4, 0)]
    centred = choose([100], dataclasses.replace(LATTE, temporal="center"), 1)
    assert centred[0].start == (100 - 46) // 2
    labels: list[int | None] = [0] * 6 + [1] * 2
    balanced = choose(LENGTHS, dataclasses.replace(LATTE, order="class-balanced"), 4, labels)
    assert sorted(labels[pick.video] for pick in balanced) == [0, 0, 1, 1]


def test_several_clips_of_a_video_differ_and_end() -> None:
    picks = choose([30, 40], SMALL, 30)
    assert len(picks) == len(set(picks)) == 30
    assert {pick.video for pick in picks[:2]} == {0, 1}, "every video once before any twice"
    assert len(choose([16], SMALL, 5)) == 1, "there is only one clip in it"
    assert len(choose([160, 160], SMALL, None)) == 20, "as many as do not overlap on average"
    assert choose([], SMALL, 5) == choose([9], SMALL, 5) == []


def test_clips_have_exact_intervals_and_names(numbered_videos: Path) -> None:
    protocol = find_protocol(dataclasses.replace(SMALL, interval=2))
    clips, picks = real_clips(VideoFolder(numbered_videos), protocol, 5, (16, 48))
    assert len(clips) == 5 and clips.left_out == 2, "the short and the broken one"
    for index, pick in enumerate(picks):
        assert frame_numbers(clips[index]) == list(range(pick.start, pick.start + 32, 2))
        assert clips.names[index] == f"video_{pick.video - 1}@{pick.start}", "short.mp4 sorts first"


def test_videos_that_are_all_too_short_are_refused(numbered_videos: Path) -> None:
    with pytest.raises(MagiError, match=r"no video of at least 61 frames .*longest 55.*interval 4"):
        real_clips(VideoFolder(numbered_videos), dataclasses.replace(SMALL, interval=4), None)


def test_splits_are_found_in_lists_and_in_folders(tmp_path: Path) -> None:
    root = tmp_path / "UCF-101"
    for name in ("Bow/v_Bow_g01_c01.avi", "Bow/v_Bow_g08_c01.avi"):
        write_numbered(root / name.replace(".avi", ".mp4"), 12)
        (root / name.replace(".avi", ".mp4")).rename(root / name)
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Bow\n")
    (lists / "trainlist01.txt").write_text("Bow/v_Bow_g08_c01.avi 1\n")
    (lists / "testlist01.txt").write_text("Bow/v_Bow_g01_c01.avi\n")

    def found(data: Path, split: str) -> tuple[list[str], list[str]]:
        videos, warnings = open_videos(data, dataclasses.replace(SMALL, split=split))  # type: ignore[arg-type]
        return [video.path.name for video in videos.videos], warnings

    assert found(tmp_path, "train") == (["v_Bow_g08_c01.avi"], [])
    assert found(root, "test") == (["v_Bow_g01_c01.avi"], [])
    assert len(found(tmp_path, "all")[0]) == 2
    plain = tmp_path / "other" / "plain"
    write_numbered(plain / "test" / "a.mp4", 12)
    write_numbered(plain / "train" / "b.mp4", 12)
    assert found(plain, "test") == (["a.mp4"], [])
    names, warnings = found(plain / "test", "train")
    assert names == ["a.mp4"] and "no train split" in warnings[0]


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MagiError, match="no such folder"):
        open_videos(tmp_path / "nowhere", SMALL)
    with pytest.raises(MagiError, match="no usable video"):
        open_videos(tmp_path, SMALL)


def test_the_record_of_a_protocol_says_everything_as_json() -> None:
    for name, protocol in PROTOCOLS.items():
        record = json.loads(json.dumps(protocol.record("abc")))
        assert record["name"] == name and record["detector_sha256"] == "abc"
        missing = {field.name for field in dataclasses.fields(protocol)} - set(record)
        assert not missing and record["short_clips"] == "left out and counted"
    assert PROTOCOLS["magi-ucf101"].span == 46 and PROTOCOLS["magi-ucf101"].num_real == 2048
    assert (PROTOCOLS["magi-k600"].given, PROTOCOLS["magi-k600"].context) == (5, "5 frames")
    assert PROTOCOLS["videogpt"].ddof == PROTOCOLS["magvit"].ddof == 1 and PROTOCOLS["stylegan-v"].ddof == 0


def test_commands_name_every_protocol() -> None:
    listed = f"One of {', '.join(PROTOCOLS)}."
    for command in (Score, Evaluate):
        import inspect

        assert listed in inspect.getsource(command)


def test_changed_protocols_say_so_and_impossible_ones_are_refused() -> None:
    changed = find_protocol("magi-k600", given=3, frames=20)
    assert (changed.given, changed.frames) == (3, 20)
    assert changed.notes[-2:] == (
        "changed: given 3, the protocol's own is 5",
        "changed: frames 20, the protocol's own is 16",
    )
    assert find_protocol("magi-k600", given=5) == PROTOCOLS["magi-k600"]
    with pytest.raises(MagiError, match=r"unknown protocol 'fvd'; expected one of magi-ucf101, .*small"):
        find_protocol("fvd")
    for changes, message in (
        ({"frames": 9}, "at least 10"),
        ({"given": 16}, "at least one generated frame"),
        ({"given": -1}, "expected at least 0"),
        ({"interval": 0}, "expected at least 0 and 1"),
    ):
        with pytest.raises(MagiError, match=message):
            find_protocol("small", **changes)
    with pytest.raises(MagiError, match="8 scored frames"):
        find_protocol(dataclasses.replace(SMALL, score_given=False), given=8)


def test_numbers() -> None:
    assert Numbers.of(LATTE, None, None) == Numbers(2048, 2048)
    assert Numbers.of(LATTE, 10, None) == Numbers(10, 10)
    assert Numbers.of(LATTE, 10, 20) == Numbers(20, 10)
    assert Numbers.of(SMALL, None, None).larger(SMALL) is None
    assert Numbers.of(SMALL, None, 1000).larger(SMALL) == 1000
    with pytest.raises(MagiError, match="at least 2"):
        Numbers.of(SMALL, 1, None)


def test_the_choice_does_not_hang_on_where_the_folder_lies(tmp_path: Path, numbered_videos: Path) -> None:
    import shutil

    moved = tmp_path / "elsewhere"
    shutil.copytree(numbered_videos, moved)
    one, _ = real_clips(open_videos(numbered_videos, SMALL)[0], SMALL, 8)
    two, _ = real_clips(open_videos(moved, SMALL)[0], SMALL, 8)
    assert one.names == two.names and all(np.array_equal(one[i], two[i]) for i in range(8))
