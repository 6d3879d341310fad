"""UCF-101 in its official layout: `UCF-101/<Class>/v_<Class>_g01_c01.avi` and the three splits of
`ucfTrainTestlist/`."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from magi_video.data.folder import VideoFolder, register
from magi_video.data.walk import Skipped, is_file
from magi_video.errors import MagiError
from magi_video.files.json import read_text

SUBSETS = ("train", "test", "all")
VIDEOS, LISTS = "UCF-101", "ucfTrainTestlist"


@register
class UCF101(VideoFolder):
    """One subset of one official split.

    A video that a list names but that is missing, lies outside the folder, or belongs to an unknown class is skipped
    and counted.

    Args:
        root: the folder that holds `UCF-101/` and `ucfTrainTestlist/`, or the folder of the classes itself with the
            lists inside or beside it.
        split: 1, 2 or 3.
        subset: "train", "test", or "all": both together, or every video where there are no lists.
        min_frames: shorter videos are skipped.
        index, sample, follow_links: see `VideoFolder`.

    Raises:
        MagiError: no such folder, no such split, or the list files are missing or malformed.
    """

    name = "ucf101"
    title = "UCF-101"
    settings = ("split",)
    training_videos = 9_537  # of split 1: its lists
    mean_frames = 180  # 7.21 s at 25 frames/s (Soomro et al. 2012, table 2)

    def __init__(
        self,
        root: str | Path,
        split: int = 1,
        subset: str = "train",
        *,
        min_frames: int = 1,
        index: str | Path | None = None,
        sample: int | None = None,
        follow_links: bool | None = None,
    ) -> None:
        if split not in (1, 2, 3):
            raise MagiError(f"UCF-101 split {split}; expected 1, 2 or 3")
        if subset not in SUBSETS:
            raise MagiError(f"UCF-101 subset {subset!r}; expected train, test or all")
        given = Path(root)
        self._begin(given / VIDEOS if (given / VIDEOS).is_dir() else given, sample, follow_links)
        lists = find_lists(given)
        if lists is None and subset != "all":
            raise MagiError(f"{root}: no {LISTS}/classInd.txt; expected the official lists in or beside the folder")
        names = self._all_files() if lists is None else self._listed(lists, split, subset)
        if lists is None:
            self.class_names = sorted({Path(name).parts[0] for name in names})
        else:
            self.class_names = _read_classes(lists / "classInd.txt")
        number = {name: i for i, name in enumerate(self.class_names)}
        paths: list[Path] = []
        labels: list[int | None] = []
        for name in names:
            path = self.root / name
            reason = self._why_not(path, name, number)
            if reason is None:
                paths.append(path)
                labels.append(number[Path(name).parts[0]])
            else:
                self.skipped.append(Skipped(path, reason))
        self._add(paths, labels, min_frames, index)

    @classmethod
    @override
    def recognises(cls, root: Path) -> bool:
        """Whether there are the official lists, or a folder `UCF-101`."""
        return (root / VIDEOS).is_dir() or find_lists(root) is not None

    @classmethod
    @override
    def for_evaluation(cls, root: Path, subset: str, index: Path | None = None) -> tuple[VideoFolder, list[str]]:
        """The subset of split 1."""
        return cls(root, subset=subset, index=index), []

    def _why_not(self, path: Path, name: str, number: dict[str, int]) -> str | None:
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or not self.holds(path):
            return "outside the folder"
        if len(parts) != 2 or parts[0] not in number:
            return "of an unknown class"
        return None if is_file(path) else "listed but missing"

    def _all_files(self) -> list[str]:
        relative = [path.relative_to(self.root) for path in self._find()]
        return [str(path) for path in relative if len(path.parts) == 2]

    def _listed(self, lists: Path, split: int, subset: str) -> list[str]:
        names: set[str] = set()
        for part in ("train", "test") if subset == "all" else (subset,):
            # "Class/video.avi 12" in the training lists, "Class/video.avi" in the test lists
            names.update(line.split()[0] for line in _read_lines(lists / f"{part}list{split:02d}.txt"))
        return sorted(names)


def find_lists(root: Path) -> Path | None:
    """The folder of the official lists, in a data set's folder or beside it."""
    return next((one for one in (root / LISTS, root.parent / LISTS, root) if (one / "classInd.txt").is_file()), None)


def _read_classes(path: Path) -> list[str]:
    """Class names in the order of their numbers, from lines like "1 ApplyEyeMakeup"."""
    numbered: dict[int, str] = {}
    for line in _read_lines(path):
        words = line.split()
        if len(words) != 2 or not words[0].isdecimal() or len(words[0]) > 9:
            raise MagiError(f'{path}: {line[:60]!r}; expected lines like "1 ApplyEyeMakeup"')
        if int(words[0]) in numbered or words[1] in numbered.values():
            raise MagiError(f"{path}: {line[:60]!r} repeats a number or a class; expected each once")
        numbered[int(words[0])] = words[1]
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        raise MagiError(f"{path}: expected the classes to be numbered from 1 without a gap")
    return [numbered[i] for i in sorted(numbered)]


def _read_lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except MagiError as error:
        raise MagiError(f"{error}; expected an official UCF-101 list file") from None
