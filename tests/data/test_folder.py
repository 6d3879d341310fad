import json
import math
from pathlib import Path

import numpy as np
import pytest

from magi_video.data import scan
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from tests.data.examples import frame_numbers, write_actions, write_numbered


def test_videos_are_found_sorted_and_labelled(tmp_path: Path) -> None:
    for name in ("b/2.mp4", "b/deep/1.MP4", "a/3.mp4", "top.mp4", ".hidden/x.mp4", "a/.x.mp4"):
        write_numbered(tmp_path / name, 4)
    (tmp_path / "notes.txt").write_text("not a video")
    folder = VideoFolder(tmp_path)
    names = [str(v.path.relative_to(tmp_path)) for v in folder.videos]
    assert names == ["top.mp4", "a/3.mp4", "b/2.mp4", "b/deep/1.MP4"]
    assert [v.label for v in folder.videos] == [None, 0, 1, 1]
    assert folder.class_names == ["a", "b"]
    assert folder.summary() == "4 videos" and folder.action_names == [] and folder.actions(0) is None
    assert frame_numbers(folder.read(1, [3, 0]).numpy()) == [3, 0]


def test_what_cannot_be_used_is_skipped_and_counted(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    good = write_numbered(root / "good.mp4", 20)
    write_numbered(root / "short.mp4", 3)
    (root / "empty.mp4").write_bytes(b"")
    (root / "cut.mp4").write_bytes(good.read_bytes()[:500])
    (root / "link.mp4").symlink_to(write_numbered(outside / "a.mp4", 20))
    (root / "links").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "nowhere.mp4").symlink_to(root / "gone.mp4")
    (root / "inside.mp4").symlink_to(good)
    (root / "folder.mp4").mkdir()
    folder = VideoFolder(root, min_frames=5)
    assert [v.path.name for v in folder.videos] == ["good.mp4", "inside.mp4"]
    reasons = {s.path.name: s.reason for s in folder.skipped}
    assert set(reasons) == {"short.mp4", "empty.mp4", "cut.mp4", "link.mp4", "links", "loop", "nowhere.mp4"}
    assert reasons["link.mp4"] == "link out of the folder" and reasons["short.mp4"] == "shorter than 5 frames"
    assert folder.summary() == (
        "2 videos, 7 skipped (2 link to a folder, 2 unreadable, 1 link out of the folder, 1 no such file, "
        "1 shorter than 5 frames)"
    )


def test_no_folder_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(MagiError, match="no such folder"):
        VideoFolder(tmp_path / "missing")


def test_the_index_spares_a_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, index = tmp_path / "root", tmp_path / "cache" / "index.json"
    for name in ("a.mp4", "b.mp4"):
        write_numbered(root / name, 10)
    (root / "c.mp4").write_bytes(b"broken")
    first = VideoFolder(root, index=index)
    looked: list[str] = []
    real = scan.Inspector.inspect
    monkeypatch.setattr(scan.Inspector, "inspect", lambda self, path: looked.append(path.name) or real(self, path))
    again = VideoFolder(root, index=index)
    assert (again.videos, again.skipped, looked) == (first.videos, first.skipped, [])
    write_numbered(root / "b.mp4", 12)
    assert [v.num_frames for v in VideoFolder(root, index=index).videos] == [10, 12] and looked == ["b.mp4"]
    for bad in ("", "[]", '{"version": 1, "videos": []}', '{"version": 1, "videos": {"a": {"num_frames": -1}}}'):
        index.write_text(bad)
        assert VideoFolder(root, index=index).summary() == "2 videos, 1 skipped (1 unreadable)"


def rows(count: int, **action: float) -> list[dict]:
    return [{"frame": i, "action": action} for i in range(count)]


def test_action_columns_are_the_union_of_the_recordings(tmp_path: Path) -> None:
    for name, names in {"a": ["LEFT", "FIRE"], "b": ["RIGHT", "LEFT"]}.items():
        video = write_numbered(tmp_path / name / "v.mp4", 4)
        write_actions(video, [{"frame": i, "action": {names[1]: i}} for i in range(3)] + [{"frame": 3, "action": {}}])
        (tmp_path / name / "recording.json").write_text(json.dumps({"action_names": names, "game": f"vizdoom/{name}"}))
    write_numbered(tmp_path / "c" / "v.mp4", 4)
    folder = VideoFolder(tmp_path)
    assert folder.action_names == ["LEFT", "FIRE", "RIGHT"] and folder.games == ["vizdoom/a", "vizdoom/b"]
    assert folder.actions(0).tolist() == [[0, 0, 0], [0, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert folder.actions(1)[:, 0].tolist() == [0, 1, 2, 0] and folder.actions(1).dtype == np.float32
    assert folder.actions(2) is None and folder.videos[2].actions is None
    assert folder.actions(0, ["NEW", "FIRE"]).tolist() == [[0, 0], [0, 1], [0, 2], [0, 0]]


@pytest.mark.parametrize(
    "bad",
    [
        rows(2),  # frame 2 is missing
        rows(5),  # more rows than frames
        [*rows(3), {"frame": 1, "action": {}}],  # twice
        [*rows(3), {"frame": -1, "action": {}}],
        [*rows(3), {"frame": True, "action": {}}],
        [*rows(3), {"frame": 3.0, "action": {}}],
        [*rows(3), {"frame": 3, "action": [1]}],
        [*rows(3), {"frame": 3}],
        [*rows(3), [3, {}]],
        [*rows(3), None],
        rows(4, LEFT="1"),
        rows(4, LEFT=None),
        rows(4, LEFT=math.inf),
        rows(4, LEFT=math.nan),
        rows(4, LEFT=1e300),
        rows(4, LEFT=10**400),
        rows(4, LEFT={"deep": 1}),
        rows(4, **{f"A{i}": 1 for i in range(300)}),
        rows(4, **{"X" * 50000: 1}),
    ],
)
def test_hostile_actions_are_refused_as_a_whole(tmp_path: Path, bad: list) -> None:
    video = write_numbered(tmp_path / "v.mp4", 4)
    actions = write_actions(video, bad)
    folder = VideoFolder(tmp_path)
    assert folder.videos[0].actions is None and folder.actions(0) is None and folder.action_names == []
    assert [s.path for s in folder.skipped] == [actions]
    assert "\n" not in folder.skipped[0].reason and len(folder.skipped[0].reason) < 300


def test_other_hostile_action_files(tmp_path: Path) -> None:
    video = write_numbered(tmp_path / "root" / "v.mp4", 4)
    actions = write_actions(video, rows(4, LEFT=1))
    assert VideoFolder(tmp_path / "root").action_names == ["LEFT"]
    outside = actions.rename(tmp_path / "outside.jsonl")
    actions.symlink_to(outside)
    assert VideoFolder(tmp_path / "root").skipped[0].reason == "link out of the folder"
    actions.unlink()
    for content in (b"\xff\xfe\x00", b"[" * 30000, b"{" * 30000, b'{"frame": 0, "action": {}}\n' * 9999, b"not json"):
        actions.write_bytes(content)
        folder = VideoFolder(tmp_path / "root")
        assert folder.videos[0].actions is None and len(folder.skipped) == 1
    write_actions(video, rows(4, LEFT=1))
    (tmp_path / "root" / "recording.json").write_text('{"action_names": ["RIGHT"]}')
    assert "unknown action 'LEFT'" in VideoFolder(tmp_path / "root").skipped[0].reason
    for description in ("{", "[]", '{"action_names": "LEFT"}', '{"action_names": [1]}', "[" * 99999):
        (tmp_path / "root" / "recording.json").write_text(description)
        assert VideoFolder(tmp_path / "root").action_names == ["LEFT"]


def test_the_command_line_says_whether_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from magi_video.cli import main

    write_numbered(tmp_path / "outside" / "a.mp4", 4)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.mp4").symlink_to(tmp_path / "outside" / "a.mp4")
    monkeypatch.setenv("MAGI_FOLLOW_LINKS", "0")
    assert VideoFolder(tmp_path / "root").videos == []
    assert main(["--follow-links"]) == 2 and main(["--follow-links", "info", "doom"]) == 0
    assert len(VideoFolder(tmp_path / "root").videos) == 1
    assert VideoFolder(tmp_path / "root", follow_links=False).videos == []
