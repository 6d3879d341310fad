"""Videos to encode."""

from pathlib import Path

import pytest

from magi_video.data.folder import VideoFolder
from tests.data.examples import write_actions, write_numbered


@pytest.fixture
def folder(tmp_path: Path) -> VideoFolder:
    """Four videos, two of them in classes; in order they fill three shards of ten frames: c, d, a and b."""
    for name, count in {"a/x.mp4": 7, "b/x.mp4": 3, "c.mp4": 10, "d.mp4": 5}.items():
        write_numbered(tmp_path / "videos" / name, count)
    write_actions(
        tmp_path / "videos" / "c.mp4", [{"frame": t, "action": {"FIRE": t} if t % 2 else {}} for t in range(10)]
    )
    return VideoFolder(tmp_path / "videos")
