"""Kinetics-600 as it is usually found on a disk: annotation files, and a folder of clips for each split.

    annotations/train.csv    or train.csv, kinetics600_train.csv, train.txt: label,youtube_id,time_start,time_end,split
    train/<label>/<youtube_id>_<start, 6 digits>_<end, 6 digits>.mp4    as the crawlers arrange the clips
    train/<youtube_id>_<start>_<end>.mp4                                as CVDF's archives unpack

Which clips exist is found by listing each folder once; no row of an annotation file ever becomes a path.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from magi_video.data.folder import Video, VideoFolder, register
from magi_video.data.scan import Inspected
from magi_video.data.walk import COMPANIONS, Skipped
from magi_video.errors import MagiError
from magi_video.video.names import is_video

SPLITS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}
"""The names that folders, annotation files and their last column use for each split."""
COLUMNS = ("youtube_id", "time_start", "time_end")
"""Needed; "label" and "split" are used where they are, others ("is_cc") are not read."""
YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
SECONDS = re.compile(r"[0-9]{1,6}")
CLIP = re.compile(rf"{YOUTUBE_ID.pattern}_[0-9]{{6}}_[0-9]{{6}}")
LONGEST_LINE = 1024  # bytes
MALFORMED = "malformed row"


@dataclass(frozen=True)
class Row:
    """A line of an annotation file."""

    label: str | None
    stem: str
    split: str


@register
class Kinetics600(VideoFolder):
    """One split of Kinetics-600 (or of any Kinetics in this layout).

    Clips that are annotated but missing are skipped and counted, as are rows that cannot be read, and clips in the
    folder that no row names. Without an annotation file the folders' names are the classes. Kinetics has no actions.

    Args:
        root: the folder that holds the folders of the splits, directly or in `videos/`, or the clips themselves; the
            annotation files lie in it, in `annotations/` or beside it.
        subset: "train", "val", "test", or "all": whatever there is of them.
        min_frames: shorter videos are skipped.
        index, sample, follow_links: see `VideoFolder`.

    Attributes:
        class_names: sorted, of all rows of the subset, so that a missing clip changes no number.

    Raises:
        MagiError: no such folder, subset or split in it, or a file that is not an annotation file.
    """

    name = "kinetics600"
    title = "Kinetics-600"
    training_videos = 392_622  # Carreira et al. 2018, table 1; YouTube has fewer of them every year

    def __init__(
        self,
        root: str | Path,
        subset: str = "train",
        *,
        min_frames: int = 1,
        index: str | Path | None = None,
        sample: int | None = None,
        follow_links: bool | None = None,
    ) -> None:
        if subset not in (*SPLITS, "all"):
            raise MagiError(f"Kinetics subset {subset!r}; expected train, val, test or all")
        self._begin(root, sample, follow_links)
        splits = list(SPLITS) if subset == "all" else [subset]
        found: dict[str, Path] = {}
        labels: dict[str, str | None] = {}
        known: set[str] = set()
        listed: dict[Path, dict[str, Path]] = {}
        for split in splits:
            folder = split_folder(self.root, split)
            annotations = find_annotations(self.root, split)
            if folder is None and annotations is None:
                continue
            place = folder or self.root
            clips = listed[place] if place in listed else listed.setdefault(place, self._list(place))
            rows = self._rows(annotations, split) if annotations else _rows_of_folders(clips, place)
            for row in rows:
                known |= {row.label} if row.label else set()
                if row.stem in labels:
                    self.skipped.append(Skipped(Path(row.stem), "listed twice"))
                elif row.stem not in clips:
                    self.skipped.append(Skipped(Path(row.stem), "listed but missing"))
                else:
                    found[row.stem], labels[row.stem] = clips.pop(row.stem), row.label
            if folder is not None:  # else they may well belong to another split
                self.skipped += [Skipped(path, "in no annotation file") for path in clips.values()]
        if not found and not self.skipped:
            raise MagiError(
                f"{root}: no {' or '.join(splits)} split of Kinetics; expected train/<label>/<id>_<start>_<end>.mp4 or "
                "train/<id>_<start>_<end>.mp4 and an annotation file with label,youtube_id,time_start,time_end,split"
            )
        self.class_names = sorted(known)
        number = {name: i for i, name in enumerate(self.class_names)}
        stems = sorted(found, key=lambda stem: (labels[stem] or "", stem))
        numbers = [None if (label := labels[stem]) is None else number[label] for stem in stems]
        self._add([found[stem] for stem in stems], numbers, min_frames, index)

    @classmethod
    @override
    def recognises(cls, root: Path) -> bool:
        """Whether there is an annotation file; one beside the folder, if the folder holds such clips."""
        found = [path for split in SPLITS if (path := _annotations_or_none(root, split))]
        inside = any(path.parent in (root, root / "annotations") for path in found)
        return inside or (bool(found) and _holds_clips(root))

    @classmethod
    @override
    def for_evaluation(cls, root: Path, subset: str, index: Path | None = None) -> tuple[VideoFolder, list[str]]:
        """The subset; the validation split, with a warning, where the test split is not there."""
        if subset == "test" and not split_folder(root, "test") and split_folder(root, "val"):
            warning = "no test split was found in the data: its validation split is taken"
            return cls(root, "val", index=index), [warning]
        return cls(root, subset, index=index), []

    @override
    def _take(self, path: Path, label: int | None, found: Inspected) -> None:
        info = found.info
        facts = (info.num_frames, info.height, info.width, info.frame_rate)
        self.videos.append(Video(path, *facts, label, None, info.shown, found.content))

    def _list(self, folder: Path) -> dict[str, Path]:
        """The clips of a folder and of the folders in it, by name without suffix; one listing a folder."""
        clips: dict[str, Path] = {}
        for entry in self._entries(folder):
            if entry.is_dir(follow_symlinks=self.follow_links):
                for inner in self._entries(Path(entry.path)):
                    self._note(inner, clips)
            elif entry.is_symlink() and entry.is_dir():
                self.skipped.append(Skipped(Path(entry.path), "link to a folder"))
            else:
                self._note(entry, clips)
        return clips

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
        except OSError:
            self.skipped.append(Skipped(folder, "folder cannot be read"))
            return []

    def _note(self, entry: os.DirEntry[str], clips: dict[str, Path]) -> None:
        stem, suffix = os.path.splitext(entry.name)
        if not is_video(entry.name):
            if entry.is_file() and suffix.lower() not in COMPANIONS:
                self.ignored[suffix.lower()] += 1
            return
        path = Path(entry.path)
        if entry.is_symlink() and not self.holds(path):
            self.skipped.append(Skipped(path, "link out of the folder"))
        elif stem in clips:
            self.skipped.append(Skipped(path, "there twice"))
        else:
            clips[stem] = path

    def _rows(self, path: Path, split: str) -> Iterator[Row]:
        """The rows of one split; others, and those that cannot be read, are counted."""
        malformed, elsewhere = Skipped(path, MALFORMED), Skipped(path, "row of another split")
        for row in read_annotations(path):
            if row is None:
                self.skipped.append(malformed)
            elif row.split and row.split not in SPLITS[split]:
                self.skipped.append(elsewhere)
            else:
                yield row


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split's clips, if there is one."""
    places = (place / name for place in (root, root / "videos") for name in SPLITS[split])
    return next((place for place in places if place.is_dir()), None)


def find_annotations(root: Path, split: str) -> Path | None:
    """The annotation file of a split: in the folder, in `annotations/` or beside it; `.csv` before `.txt`, and the
    shortest name first. A file for held-out clips is none.

    Raises:
        MagiError: there are files of such a name, but none of them has the columns.
    """
    problem: MagiError | None = None
    for place in (root, root / "annotations", root.parent, root.parent / "annotations"):
        candidates = [path for path in _text_files(place) if _names_split(path.stem, split)]
        for path in sorted(candidates, key=lambda path: (path.suffix.lower(), len(path.name), path.name)):
            try:
                _read_header(path)
            except MagiError as error:
                # A list that lies beside the folder may belong to anything.
                problem = problem or (error if place in (root, root / "annotations") else None)
            else:
                return path
    if problem:
        raise problem
    return None


def _annotations_or_none(root: Path, split: str) -> Path | None:
    try:
        return find_annotations(root, split)
    except MagiError:
        return None


def _holds_clips(root: Path) -> bool:
    """Whether a file in the folder, or in one of the folders in it, is named as a clip."""
    return any(CLIP.fullmatch(path.stem) for pattern in ("*", "*/*", "*/*/*") for path in root.glob(pattern))


def read_annotations(path: Path) -> Iterator[Row | None]:
    """The rows of an annotation file, None for each that cannot be read; line by line, whatever its size.

    Raises:
        MagiError: the file cannot be read, or its first line does not name the columns.
    """
    header = _read_header(path)
    places = [header.index(name) for name in COLUMNS]
    label_at, split_at = (header.index(name) if name in header else None for name in ("label", "split"))
    with _lines(path) as lines:
        next(lines)
        for line in lines:
            if not (line and line.strip()):
                if line is None:
                    yield None
                continue
            try:
                (fields,) = csv.reader([line], strict=True)
                youtube_id, start, end = (fields[place].strip() for place in places)
                label = fields[label_at].strip() if label_at is not None else ""
                split = fields[split_at].strip().lower() if split_at is not None else ""
            except (csv.Error, ValueError, IndexError):
                yield None
                continue
            sound = YOUTUBE_ID.fullmatch(youtube_id) and SECONDS.fullmatch(start) and SECONDS.fullmatch(end)
            if sound and label.isprintable():
                yield Row(label or None, f"{youtube_id}_{int(start):06d}_{int(end):06d}", split)
            else:
                yield None


def _rows_of_folders(clips: dict[str, Path], folder: Path) -> list[Row]:
    """What the folders say where nothing else does: a class each."""
    return [Row(None if path.parent == folder else path.parent.name, stem, "") for stem, path in clips.items()]


def _text_files(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            return [Path(one.path) for one in entries if one.name.lower().endswith((".csv", ".txt")) and one.is_file()]
    except OSError:
        return []


def _names_split(stem: str, split: str) -> bool:
    """Whether a file's name speaks of a split: "kinetics600_train" of "train"; "kinetics600_holdout_test" of none."""
    words = re.split("[^a-z]+", stem.lower())
    return "holdout" not in words and any(name in words for name in SPLITS[split])


def _read_header(path: Path) -> list[str]:
    with _lines(path) as lines:
        line = next(lines, "")
    try:
        (fields,) = csv.reader([(line or "").removeprefix("\ufeff")], strict=True)
    except (csv.Error, ValueError):
        fields = []
    header = [name.strip().lower() for name in fields]
    if not set(COLUMNS) <= set(header):
        found = "no short line of UTF-8" if line is None else repr(line.strip()[:60])
        raise MagiError(f"{path}: the first line is {found}; expected label,youtube_id,time_start,time_end,split")
    return header


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str | None]]:
    """The lines of a text file, None for each that is too long or not UTF-8; an OSError becomes a `MagiError`."""
    try:
        with path.open("rb") as file:
            yield (_decode(raw) for raw in iter(lambda: _next_line(file), b""))
    except OSError as error:
        raise MagiError(f"{path}: cannot be read ({error.strerror or error})") from error


def _next_line(file: BinaryIO) -> bytes | None:
    """The next line, None for one that is too long, b"" at the end."""
    line = file.readline(LONGEST_LINE + 1)
    if len(line) <= LONGEST_LINE:
        return line
    while line and not line.endswith(b"\n"):
        line = file.readline(LONGEST_LINE)
    return None


def _decode(line: bytes | None) -> str | None:
    try:
        return None if line is None else line.decode("utf-8")
    except ValueError:
        return None
