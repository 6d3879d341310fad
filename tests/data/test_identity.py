"""Which videos a data set is made of: every change of it is found, whatever sizes and times say."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from magi_video.data.digests import BLOCK, content_digest, sample_digest
from magi_video.data.folder import VideoFolder
from magi_video.data.identity import DataIdentity
from magi_video.video.inspection import Inspector
from tests.data.examples import replace_unseen, write_actions, write_numbered


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, count in {"a.mp4": 5, "b/c.mp4": 6, "b/d.mp4": 5}.items():
        write_numbered(tmp_path / "root" / name, count)
    return tmp_path / "root"


def identity(root: Path) -> DataIdentity:
    return DataIdentity.of(VideoFolder(root, index=root.parent / "index.json"))


def test_the_same_videos_elsewhere_and_at_another_time_are_the_same(root: Path, tmp_path: Path) -> None:
    before = identity(root)
    os.utime(root / "a.mp4", (1, 1))
    root.rename(tmp_path / "elsewhere")
    now = identity(tmp_path / "elsewhere")
    assert before.record() == now.record() and before.difference(now) is None
    assert before.record()["videos"] == 3 and before.record()["frames"] == 16


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: (root / "a.mp4").unlink(), "1 video gone (gone: a.mp4)"),
        (lambda root: write_numbered(root / "n.mp4", 5), "1 video new (new: n.mp4)"),
        (lambda root: write_numbered(root / "a.mp4", 7), "1 video changed (changed: a.mp4 of 7 frames, not 5)"),
        (lambda root: replace_unseen(root / "b" / "d.mp4"), "1 video changed (changed: b/d.mp4)"),
        (lambda root: (root / "a.mp4").write_bytes(b"no video"), "1 video gone (gone: a.mp4)"),
        (lambda root: (root / "b").rename(root / "x"), "2 videos gone, 2 new (gone: b/c.mp4, b/d.mp4)"),
        (lambda root: write_actions(root / "a.mp4", [{"frame": t, "action": {"UP": 1}} for t in range(5)]),
         "1 video changed (changed: a.mp4 with other actions)"),
    ],
)  # fmt: skip
def test_what_has_changed_is_said_in_a_line(root: Path, change: Callable[[Path], object], told: str) -> None:
    before = identity(root)
    change(root)
    assert before.difference(identity(root)) == told
    assert before.record()["sha256"] != identity(root).record()["sha256"]


def test_actions_of_other_videos_change_nothing(root: Path) -> None:
    write_actions(root / "a.mp4", [{"frame": t, "action": {"UP": 1}} for t in range(5)])
    before = identity(root)
    write_actions(root / "b" / "c.mp4", [{"frame": t, "action": {"DOWN": 1}} for t in range(6)])
    assert before.difference(identity(root)) == "1 video changed (changed: b/c.mp4 with other actions)"


def test_a_sample_is_of_head_middle_and_tail(tmp_path: Path) -> None:
    path, content = tmp_path / "file", bytearray(np.random.default_rng(0).bytes(20 * BLOCK + 7))
    path.write_bytes(content)
    sample, whole = sample_digest(path), content_digest(path)
    for place, seen in ((3, True), (10 * BLOCK, True), (20 * BLOCK + 6, True), (5 * BLOCK, False)):
        content[place] ^= 1
        path.write_bytes(content)
        assert (sample_digest(path) != sample, content_digest(path) != whole) == (seen, True)
        content[place] ^= 1
    for size in (0, 1, BLOCK, 3 * BLOCK):  # of a small file all is read
        path.write_bytes(content[:size])
        before = sample_digest(path)
        path.write_bytes(bytes(content[: size - 1]) + b"x" if size else b"x")
        assert sample_digest(path) != before


@pytest.mark.parametrize("version", [1, 2])
def test_an_index_without_digests_is_taken_up_without_decoding(
    root: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    before = identity(root)
    index = root.parent / "index.json"
    stored = json.loads(index.read_text())
    old = {key.rpartition("|")[0]: dict(entry) for key, entry in stored["videos"].items()}
    for entry in old.values():
        del entry["content"]
        if version == 1:
            del entry["shown"]
    index.write_text(json.dumps({"version": version, "videos": old}))
    monkeypatch.setattr(Inspector, "inspect", lambda self, path: pytest.fail("decoded again"))
    assert identity(root) == before
    assert json.loads(index.read_text()) == stored


def test_the_list_of_a_data_set_is_read_back_or_none(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    assert DataIdentity.read(path) is None
    path.write_text(json.dumps({"videos": identity(root).to_json()}))
    assert DataIdentity.read(path) == identity(root)
    for damaged in ('{"videos": {"a": [1]}}', '{"videos": 3}', "[]", '{"videos": {"a": ["x", "", "", ""]}}'):
        path.write_text(damaged)
        assert DataIdentity.read(path) is None
