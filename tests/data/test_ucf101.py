from pathlib import Path

import numpy as np
import pytest

from magi_video.data.ucf101 import UCF101
from magi_video.errors import MagiError
from magi_video.video.video import read_frames
from tests.data.examples import write_numbered


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    """Two classes of three videos in the official layout, with faults in the lists."""
    names = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Archery", "Bowling") for g in (1, 2, 3)]
    for i, name in enumerate(names):
        write_numbered(tmp_path / "UCF-101" / name, 6 + i).rename(tmp_path / "UCF-101" / name)
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Bowling\r\n2 Archery\r\n")  # numbers decide, not the alphabet
    for split in (1, 2, 3):
        test = [name for name in names if f"g0{split}" in name]
        train = [name for name in names if name not in test]
        (lists / f"testlist0{split}.txt").write_text("\r\n".join(test) + "\r\n")
        lines = [f"{name} {1 + name.startswith('Archery')}" for name in train]
        (lists / f"trainlist0{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_three_splits(miniature: Path) -> None:
    for split in (1, 2, 3):
        train, test = UCF101(miniature, split, "train"), UCF101(miniature, split, "test")
        assert len(train.videos) == 4 and len(test.videos) == 2
        assert {v.path for v in train.videos} | {v.path for v in test.videos} == {
            v.path for v in UCF101(miniature, split, "all").videos
        }
        assert all(f"g0{split}" in v.path.name for v in test.videos)
        assert train.class_names == ["Bowling", "Archery"]
        assert all(train.class_names[v.label] == v.path.parent.name for v in train.videos + test.videos)
        assert train.skipped == []


def test_root_may_be_the_folder_of_the_classes(miniature: Path) -> None:
    assert len(UCF101(miniature / "UCF-101", 2, "train").videos) == 4  # lists beside it
    (miniature / "ucfTrainTestlist").rename(miniature / "UCF-101" / "ucfTrainTestlist")
    assert len(UCF101(miniature / "UCF-101", 2, "train").videos) == 4  # lists in it
    (miniature / "UCF-101" / "ucfTrainTestlist").rename(miniature / "elsewhere")
    folder = UCF101(miniature / "UCF-101", subset="all")
    assert len(folder.videos) == 6 and folder.class_names == ["Archery", "Bowling"]
    with pytest.raises(MagiError, match="official lists"):
        UCF101(miniature / "UCF-101", 1, "train")


def test_faulty_entries_are_skipped_and_counted(miniature: Path) -> None:
    outside = write_numbered(miniature / "secret" / "s.mp4", 9)
    (miniature / "UCF-101" / "Archery" / "v_Archery_g07_c01.avi").symlink_to(outside)
    (miniature / "UCF-101" / "Bowling" / "v_Bowling_g07_c01.avi").write_bytes(b"broken")
    faulty = [
        "Archery/v_Archery_g99_c01.avi 2",
        "../secret/s.mp4 1",
        f"{outside} 1",
        "Archery/../../secret/s.mp4 1",
        "Archery/v_Archery_g07_c01.avi 2",
        "Bowling/v_Bowling_g07_c01.avi 1",
        "Curling/v_Curling_g01_c01.avi 3",
        "v_Archery_g01_c01.avi 1",
    ]
    with (miniature / "ucfTrainTestlist" / "trainlist01.txt").open("a") as file:
        file.write("\n".join(faulty) + "\n")
    folder = UCF101(miniature, 1, "train")
    assert len(folder.videos) == 4 and len(folder.skipped) == len(faulty)
    reasons = [s.reason.split(" (")[0] for s in folder.skipped]
    assert {r: reasons.count(r) for r in reasons} == {
        "outside the folder": 4,
        "listed but missing": 1,
        "of an unknown class": 2,
        "unreadable": 1,
    }


def test_wrong_settings_and_lists_are_told(miniature: Path) -> None:
    for arguments in [(miniature, 4), (miniature, 1, "valid"), (miniature / "no", 1)]:
        with pytest.raises(MagiError):
            UCF101(*arguments)
    (miniature / "ucfTrainTestlist" / "testlist02.txt").unlink()
    with pytest.raises(MagiError, match=r"testlist02\.txt"):
        UCF101(miniature, 2, "test")
    for bad in ("Archery", "1 Archery\n3 Bowling", "x Archery", "1 Archery\n2 Archery", "1 Archery\n1 Bowling"):
        (miniature / "ucfTrainTestlist" / "classInd.txt").write_text(bad)
        with pytest.raises(MagiError, match=r"classInd\.txt"):
            UCF101(miniature, 1)
    (miniature / "ucfTrainTestlist" / "classInd.txt").write_text("\ufeff1 Bowling\n2 Archery\n")  # Windows' editor
    assert UCF101(miniature, 1, sample=2).num_files == 4 and len(UCF101(miniature, 1, sample=2).videos) == 2


def test_the_real_data_set(ucf101: Path) -> None:
    folder = UCF101(ucf101, 1, "test")
    assert len(folder.videos) > 0 and not folder.skipped
    generator = np.random.default_rng(0)
    for video in generator.choice(len(folder.videos), 6, replace=False):
        info = folder.videos[video]
        assert folder.class_names[info.label] == info.path.parent.name
        everything = read_frames(info.path)
        assert everything.shape == (info.num_frames, info.height, info.width, 3)
        for _ in range(3):
            indices = generator.integers(0, info.num_frames, 5).tolist()
            assert np.array_equal(folder.read(video, indices).numpy(), everything[indices])
