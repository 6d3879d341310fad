"""LeRobot data sets, small ones written here, as recordings of ours."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magi_video.cli import main
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.files.lock import alone
from magi_video.recordings.importing import check_names, import_dataset, open_source
from magi_video.recordings.lerobot import fill, read_actions_table
from magi_video.video.video import write_video
from tests.recordings.episodes import LENGTHS, NAMES, check_recording, clip, track


@pytest.fixture
def lerobot(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set in layout v2.1 or v3.0, with the given changes of info.json."""
    pyarrow = pytest.importorskip("pyarrow", reason='pip install -e ".[datasets]"')
    from pyarrow import parquet

    def table(episodes: range, kind: Any) -> Any:
        rows = [(e, t, track(e, LENGTHS[e])[t].tolist()) for e in episodes for t in range(LENGTHS[e])]
        columns = list(zip(*rows, strict=True))
        return pyarrow.table(
            {"episode_index": columns[0], "frame_index": columns[1], "action": list(columns[2])},
            schema=pyarrow.schema([
                ("episode_index", pyarrow.int64()), ("frame_index", pyarrow.int64()),
                ("action", kind),
            ]),
        )  # fmt: skip

    def write(version: str = "v2.1", **changes: Any) -> Path:
        root = tmp_path / "robot"
        v3 = version.startswith("v3")
        file = "chunk-{chunk_index:03d}/file-{file_index:03d}"
        info = {
            "codebase_version": version, "fps": 10, "total_episodes": len(LENGTHS), "chunks_size": 1000,
            "data_path": f"data/{file}.parquet" if v3
            else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": f"videos/{{video_key}}/{file}.mp4" if v3
            else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
            "features": {
                "action": {"dtype": "float32", "shape": [2], "names": {"motors": NAMES}},
                "observation.images.top": {"dtype": "video", "shape": [16, 16, 3]},
            },
        }  # fmt: skip
        (root / "meta").mkdir(parents=True)
        (root / "meta" / "info.json").write_text(json.dumps(info | changes))
        camera = "observation.images.top"
        if v3:
            for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
                (root / folder).mkdir(parents=True)
            parquet.write_table(
                table(range(3), pyarrow.list_(pyarrow.float32(), 2)), root / "data/chunk-000/file-000.parquet"
            )
            whole = np.concatenate([clip(e, frames) for e, frames in enumerate(LENGTHS)])
            write_video(root / "videos" / camera / "chunk-000" / "file-000.mp4", whole, 10.0, crf=1)
            zeros = [0] * 3
            episodes = {"episode_index": [0, 1, 2], "data/chunk_index": zeros, "data/file_index": zeros}
            episodes |= {f"videos/{camera}/{name}": zeros for name in ("chunk_index", "file_index")}
            episodes |= {f"videos/{camera}/from_timestamp": [0.0, 0.5, 1.2], "length": list(LENGTHS)}
            parquet.write_table(pyarrow.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
        else:
            (root / "data" / "chunk-000").mkdir(parents=True)
            for e, frames in enumerate(LENGTHS):
                rows = table(range(e, e + 1), pyarrow.list_(pyarrow.float32()))
                parquet.write_table(rows, root / f"data/chunk-000/episode_{e:06d}.parquet")
                path = root / "videos" / "chunk-000" / camera / f"episode_{e:06d}.mp4"
                write_video(path, clip(e, frames), 10.0, crf=1)
        return root

    return write


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_lerobot(lerobot: Callable[..., Path], tmp_path: Path, version: str) -> None:
    summary = import_dataset(open_source("lerobot", lerobot(version)), tmp_path / "out")
    assert (summary.episodes, summary.frames, summary.skipped) == (3, 16, ())
    check_recording(tmp_path / "out")


def change_rows(path: Path, **columns: list[Any]) -> None:
    """Put other columns into a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(parquet.read_table(path).to_pydict() | columns), path)


STAMP = "videos/observation.images.top/from_timestamp"


@pytest.mark.parametrize(
    ("column", "values", "lost", "reason"),
    [
        (STAMP, [0.0, 0.52, 1.16], [], ""),  # rounded stamps: lengths say where an episode begins
        (STAMP, [0.0, 9.9, 1.2], [1], "begins at 9.9 s, frame 99 of its video; expected frame 5"),
        (STAMP, [0.0, -1.0, 1.2], [1], "an episode at"),
        (STAMP, [0.0, None, 1.2], [1], "an episode at"),
        ("length", [5, None, 4], [1], "an episode at"),
        ("length", [5, 10**12, 4], [1], "an episode at"),
        ("episode_index", [0, None, 2], [1], "no episode 1"),
        ("length", [6, 7, 4], [0], "5 rows for 6 frames"),  # the third confirms the second's time stamp
        ("length", [5, 6, 4], [1, 2], "7 rows for 6 frames"),  # nothing confirms the third's
        ("data/file_index", [0, 7, 0], [1], "no such file"),
    ],
)
def test_a_bad_row_of_the_index_costs_its_episode(
    lerobot: Callable[..., Path], tmp_path: Path, column: str, values: list[Any], lost: list[int], reason: str
) -> None:
    root = lerobot("v3.0")
    change_rows(root / "meta/episodes/chunk-000/file-000.parquet", **{column: values})
    summary = import_dataset(open_source("lerobot", root), tmp_path / "out")
    assert [one.path.stem for one in summary.skipped] == [f"episode_{episode:05d}" for episode in lost]
    assert not lost or reason in summary.skipped[0].reason
    videos = VideoFolder(tmp_path / "out")
    for number, episode in enumerate(sorted({0, 1, 2} - set(lost))):
        shown = videos.read(number, range(LENGTHS[episode])).numpy().astype(int)
        assert np.abs(shown - clip(episode, LENGTHS[episode])).max() <= 3


def test_a_bad_row_of_actions_costs_its_episode(lerobot: Callable[..., Path], tmp_path: Path) -> None:
    root = lerobot("v3.0")
    path = root / "data/chunk-000/file-000.parquet"
    rows = [track(e, frames)[t].tolist() for e, frames in enumerate(LENGTHS) for t in range(frames)]
    frames = [t for count in LENGTHS for t in range(count)]
    change_rows(path, action=[*rows[:6], [1.0], *rows[7:]], frame_index=[*frames[:12], None, *frames[13:]])
    summary = import_dataset(open_source("lerobot", root), tmp_path / "out")
    assert [one.path.stem for one in summary.skipped] == ["episode_00001", "episode_00002"]
    assert all("has not one row for every frame" in one.reason for one in summary.skipped)
    assert np.allclose(VideoFolder(tmp_path / "out").actions(0), track(0, 5))


def test_a_small_file_that_grows_is_refused(
    lerobot: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    from pyarrow import parquet

    root = lerobot()
    path, count = root / "data/chunk-000/episode_000001.parquet", 200_000
    monkeypatch.setattr("magi_video.recordings.lerobot.MAX_EPISODE_BYTES", 2**20)
    numbers = pyarrow.array(np.zeros(count, np.int64))
    pairs = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.zeros(4 * count, np.float32)), 4)
    names = ["episode_index", "frame_index", "action"]
    parquet.write_table(pyarrow.table([numbers, numbers, pairs], names=names), path, row_group_size=count)
    assert path.stat().st_size < 20_000, "repeated numbers cost nothing on the disk"
    summary = import_dataset(open_source("lerobot", root), tmp_path / "out")
    assert summary.episodes == 2 and "200000 rows of 9600000 bytes; too large" in summary.skipped[0].reason


def test_the_command_resizes_normalizes_and_continues(
    lerobot: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["import", "lerobot", str(lerobot()), "--out", str(tmp_path / "out"), "--camera", "top", "--normalize"]
    command += ["--height", "8", "--width", "12", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 3
    videos = VideoFolder(tmp_path / "out")
    assert (videos.videos[0].height, videos.videos[0].width) == (8, 12)
    actions = np.concatenate([videos.actions(e) for e in range(3)])
    assert actions[:, 0].min() == -1 and actions[:, 0].max() == 1 and (actions[:, 1] == -1).all()
    second = tmp_path / "out" / "episode_00001.mp4"
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.mp4")}
    second.unlink()
    assert main(command) == 0
    assert second.is_file() and times["episode_00000.mp4"] == (tmp_path / "out/episode_00000.mp4").stat().st_mtime_ns
    capsys.readouterr()
    assert main(command[:-5]) == 1 and "other settings (height 8" in capsys.readouterr().err


def test_two_imports_into_one_folder_do_not_meet(lerobot: Callable[..., Path], tmp_path: Path) -> None:
    source, out = open_source("lerobot", lerobot("v3.0")), tmp_path / "out"
    if (child := os.fork()) == 0:  # locks are per process
        with alone(out):
            (tmp_path / "held").touch()
            signal.pause()
    try:
        while not (tmp_path / "held").exists():
            time.sleep(0.01)
        with pytest.raises(MagiError, match="another run is at work there"):
            import_dataset(source, out)
        assert not list(out.glob("*.mp4"))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert import_dataset(source, out).episodes == len(LENGTHS), "what the other has left open is taken up"


def test_a_broken_episode_is_left_out_and_listed(lerobot: Callable[..., Path], tmp_path: Path) -> None:
    root = lerobot()
    (root / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1 nonsense PAR1")
    write_video(root / "videos/chunk-000/observation.images.top/episode_000002.mp4", clip(2, 2), 10.0)
    summary = import_dataset(open_source("lerobot", root), tmp_path / "out")
    assert summary.episodes == 1 and [one.path.stem for one in summary.skipped] == ["episode_00000", "episode_00002"]
    assert "unreadable Parquet" in summary.skipped[0].reason and "ends before" in summary.skipped[1].reason
    assert [video.path.name for video in VideoFolder(tmp_path / "out").videos] == ["episode_00001.mp4"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, "layout 'v1.6'; expected v2.0 to v3.0"),
        ({"fps": 0}, "0 frames/s"),
        ({"fps": "10"}, "frames/s"),
        ({"total_episodes": -1}, "total_episodes"),
        ({"total_episodes": 10**9}, "expected at most"),
        ({"features": []}, "expected features"),
        ({"features": {"action": {"shape": [2]}}}, "no video"),
        ({"features": {"action": {"shape": [2]}, "x": {"dtype": "image"}}}, "pictures inside"),
        ({"features": {"action": {"shape": [9999]}, "x": {"dtype": "video"}}}, "1 to 256"),
        ({"features": {"action": {"shape": [2]}, "a": {"dtype": "video"}, "b": {"dtype": "video"}}}, "which camera"),
        ({"data_path": "../../{episode_index}"}, "outside the data set"),
        ({"data_path": "/etc/hostname"}, "outside the data set"),
        ({"data_path": "data/{episode_index.__class__}"}, "expected fields"),
        ({"data_path": "data/{episode_index:0999999999d}"}, "expected fields"),
        ({"data_path": "data/{other}"}, "unknown field"),
        ({"features": {"action": {"shape": [3]}, "x": {"dtype": "video"}}}, "no such file|actions of 3 numbers"),
    ],
)
def test_hostile_descriptions_are_told_in_one_line(
    lerobot: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MagiError, match=message) as error:
        import_dataset(open_source("lerobot", lerobot(**changes)), tmp_path / "out")
    assert "\n" not in str(error.value) and not list(tmp_path.glob("out/*.mp4"))


def test_links_out_of_the_data_set_are_not_followed(lerobot: Callable[..., Path], tmp_path: Path) -> None:
    root = lerobot()
    video = root / "videos/chunk-000/observation.images.top/episode_000001.mp4"
    (tmp_path / "elsewhere.mp4").write_bytes(video.read_bytes())
    video.unlink()
    video.symlink_to(tmp_path / "elsewhere.mp4")
    (skipped,) = import_dataset(open_source("lerobot", root), tmp_path / "out").skipped
    assert "outside the data set" in skipped.reason


def test_paths_and_names() -> None:
    assert fill("a/{x:03d}/{y}.mp4", {"x": 7, "y": "top"}) == "a/007/top.mp4"
    assert check_names({"motors": ["a", "b"]}, 2) == ["a", "b"]
    assert (
        check_names(["a", "a"], 2) == check_names(["a\n", "b"], 2) == check_names(None, 2) == ["action_0", "action_1"]
    )


def test_actions_of_one_number_are_no_lists(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason='pip install -e ".[datasets]"')
    from pyarrow import parquet

    rows = {"episode_index": [0, 0], "frame_index": [0, 1], "action": [0.5, -2.0]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "one.parquet")
    assert read_actions_table(tmp_path / "one.parquet", 1)[2].tolist() == [[0.5], [-2.0]]
    with pytest.raises(MagiError, match="expected actions of 2 numbers"):
        read_actions_table(tmp_path / "one.parquet", 2)
