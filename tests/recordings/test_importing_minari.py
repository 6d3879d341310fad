"""Minari data sets, small ones written here, as recordings of ours."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.recordings.importing import import_dataset, open_source
from tests.recordings.episodes import LENGTHS, clip, track


@pytest.fixture
def minari(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set; `pictures` says how observations are kept, `actions` of which kind they are."""
    h5py = pytest.importorskip("h5py", reason='pip install -e ".[datasets]"')

    def write(pictures: str = "plain", discrete: bool = False) -> Path:
        root = tmp_path / "env"
        (root / "data").mkdir(parents=True)
        space = {"type": "Discrete", "n": 4} if discrete else {"type": "Box"}
        (root / "data" / "metadata.json").write_text(json.dumps({"action_space": json.dumps(space)}))
        with h5py.File(root / "data" / "main_data.hdf5", "w") as file:
            for e, frames in enumerate(LENGTHS):
                group = file.create_group(f"episode_{e}")
                group["actions"] = np.arange(frames - 1) % 3 if discrete else track(e, frames)[:-1]
                frames_THWC = clip(e, frames)
                if pictures == "plain":
                    group["observations"] = frames_THWC
                elif pictures == "grey":
                    group["observations"] = frames_THWC[..., 0]
                elif pictures == "named":
                    group["observations/rgb"], group["observations/speed"] = frames_THWC, np.zeros((frames, 2))
                elif pictures == "jpeg":
                    kept = group.create_dataset("observations", (frames,), h5py.vlen_dtype(np.uint8))
                    for t, frame in enumerate(frames_THWC):
                        Image.fromarray(frame).save(buffer := io.BytesIO(), "JPEG", quality=95)
                        kept[t] = np.frombuffer(buffer.getvalue(), np.uint8)
        return root

    return write


@pytest.mark.parametrize("pictures", ["plain", "grey", "named", "jpeg"])
def test_minari(minari: Callable[..., Path], tmp_path: Path, pictures: str) -> None:
    summary = import_dataset(open_source("minari", minari(pictures), None, 10.0), tmp_path / "out")
    assert summary.episodes == 3 and summary.action_names == ("action_0", "action_1")
    videos = VideoFolder(tmp_path / "out")
    for e, frames in enumerate(LENGTHS):
        assert np.abs(videos.read(e, range(frames)).numpy().astype(int) - clip(e, frames)).max() <= 4
        assert np.allclose(videos.actions(e)[:-1], track(e, frames)[:-1]) and not videos.actions(e)[-1].any()


def test_a_discrete_action_is_a_column_for_each_value(minari: Callable[..., Path], tmp_path: Path) -> None:
    import_dataset(open_source("minari", minari(discrete=True)), tmp_path / "out")
    videos = VideoFolder(tmp_path / "out")
    assert videos.action_names == [f"action_{n}" for n in range(4)]
    assert np.array_equal(videos.actions(0)[:-1], np.eye(4)[[0, 1, 2, 0]])


def test_hdf5_that_points_elsewhere_is_refused(minari: Callable[..., Path], tmp_path: Path) -> None:
    root = minari()
    import h5py

    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["pictures"] = clip(0, LENGTHS[1])
    layout = h5py.VirtualLayout((LENGTHS[2], 16, 16, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.hdf5"), "pictures", (LENGTHS[1], 16, 16, 3))[: LENGTHS[2]]
    with h5py.File(root / "data" / "main_data.hdf5", "a") as file:
        for e in (1, 2):
            del file[f"episode_{e}/observations"]
        file["episode_1/observations"] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "pictures")
        file.create_virtual_dataset("episode_2/observations", layout)
    summary = import_dataset(open_source("minari", root), tmp_path / "out")
    assert summary.episodes == 1
    assert ["a link" in one.reason or "another file" in one.reason for one in summary.skipped] == [True, True]


@pytest.mark.parametrize("broken", [0, 1])
def test_an_episode_that_asks_for_all_the_memory_is_left_out(
    minari: Callable[..., Path], tmp_path: Path, broken: int
) -> None:
    import h5py

    root, huge = minari(), 2**20
    path = root / "data" / "main_data.hdf5"
    shapes: dict[str, tuple[int, ...]] = {"observations": (LENGTHS[broken], huge, huge, 3), "actions": (4, huge)}
    for name, shape in shapes.items():
        with h5py.File(path, "a") as file:
            kept = file[f"episode_{broken}/{name}"][...]
            del file[f"episode_{broken}/{name}"]
            file.create_dataset(f"episode_{broken}/{name}", shape, kept.dtype, chunks=(1,) * len(shape))
        summary = import_dataset(open_source("minari", root), tmp_path / name)
        assert summary.episodes == 2 and [one.path.stem for one in summary.skipped] == [f"episode_0000{broken}"]
        assert str(huge) in summary.skipped[0].reason
        with h5py.File(path, "a") as file:
            del file[f"episode_{broken}/{name}"]
            file[f"episode_{broken}/{name}"] = kept


def test_mistakes_are_told_in_one_line(
    minari: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MagiError, match="no such folder"):
        open_source("minari", tmp_path / "nowhere")
    with pytest.raises(MagiError, match="no data/main_data"):
        open_source("minari", tmp_path)
    with pytest.raises(MagiError, match="unknown kind"):
        open_source("rlds", tmp_path)
    with pytest.raises(MagiError, match="no video in this data set"):
        open_source("minari", minari("none"))
    for kind, package in (("lerobot", "pyarrow"), ("minari", "h5py")):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        with pytest.raises(MagiError, match=f"need {package}: pip install"):
            open_source(kind, tmp_path)


def test_damaged_hdf5_is_told_in_a_line_wherever_it_is_met(minari: Callable[..., Path]) -> None:
    file = minari() / "data" / "main_data.hdf5"
    whole, random = file.read_bytes(), np.random.default_rng(0)
    told = 0
    for number in range(60):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), 40):
            damaged[at] = int(random.integers(256))
        root = file.parent.parent.parent / f"damaged{number}"
        (root / "data").mkdir(parents=True)
        (root / "data" / file.name).write_bytes(damaged)
        try:
            source = open_source("minari", root)
            for episode in range(source.num_episodes):
                list(source.frames(episode, len(source.actions(episode))))
        except MagiError as error:
            told += 1
            assert "\n" not in str(error)
    assert told > 10
