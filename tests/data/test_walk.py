"""Looking for videos below a folder: what is refused early is what the search would find nothing in."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magi_video.data.walk import check_videos, find_videos
from magi_video.errors import MagiError
from magi_video.files.limits import FOLLOW_LINKS


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Closes a folder to everybody, root too."""
    scan = os.scandir

    def close(folder: Path) -> None:
        def scandir(path: Any) -> Any:
            if Path(path) == folder:
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return close


@pytest.mark.parametrize("place", [".", "a"])
def test_a_folder_that_cannot_be_read_is_called_so(tmp_path: Path, place: str, closed: Callable[[Path], None]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.mp4").touch()
    check_videos(tmp_path)
    closed(tmp_path / place)
    with pytest.raises(MagiError, match="folder cannot be read"):
        check_videos(tmp_path)
    (skipped,) = find_videos(tmp_path).skipped
    assert skipped.path == tmp_path / place and skipped.reason == "folder cannot be read"
    (tmp_path / "b.mp4").touch()
    if place == "a":
        check_videos(tmp_path)  # there is one to be used


def test_what_is_refused_early_is_what_nothing_is_found_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / ".hidden", outside):
        folder.mkdir(parents=True)
        (folder / "one.mp4").touch()
    (root / "notes.txt").touch()
    with pytest.raises(MagiError, match="no file below it is a video by its name"):
        check_videos(root)
    (root / "loop").symlink_to(root)
    (root / "link.mp4").symlink_to(outside / "one.mp4")
    with pytest.raises(MagiError, match=r"\(1 × link to a folder, 1 × link out of the folder\)"):
        check_videos(root)
    assert not find_videos(root).videos
    monkeypatch.setenv(FOLLOW_LINKS, "1")
    check_videos(root)
    assert find_videos(root).videos == [root / "link.mp4"]
    for missing, said in ((tmp_path / "nothing", "no such folder"), (root / "notes.txt", "a file")):
        with pytest.raises(MagiError, match=said):
            check_videos(missing)
