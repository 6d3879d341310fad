"""Captions of videos, in the two layouts of the field:

    clips/0001.mp4, clips/0001.txt         the text of a video beside it
    metadata.jsonl                         {"file_name": "clips/0001.mp4", "text": "…"}, a line for each video
    metadata.csv                           the same, as columns file_name and text

A metadata file lies in any folder above its videos and names them from there, as in the data sets of the Hugging Face
hub; of two files that name a video the nearer one holds, and a text beside a video goes before both. Names are those of
the files but for "./", back slashes and the case of letters. White space, line ends included, counts as one blank.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.files.json import MAX_CHARACTERS, parse_json, read_text
from magi_video.files.limits import MAX_TEXT_BYTES

METADATA = ("metadata.jsonl", "metadata.csv")
MOST_NAMED = 3
_HALVES = re.compile("[\ud800-\udfff]")  # JSON can hold one half of a pair, which no encoder takes


@dataclass(frozen=True)
class Captions:
    """The captions of a data set.

    Attributes:
        texts: of every video, None of those that have none.
        unmatched: names in metadata files, as written there, that no video has.
        places: of every video, the file of its caption and the line in it, for messages; "" where it has none.
        first_unmatched: the file and the line of the first of `unmatched`.
    """

    texts: list[str | None]
    unmatched: list[str]
    places: list[str]
    first_unmatched: str = ""

    def summary(self) -> str:
        """ "captions: 2 of 6 videos; 4 lines name no video (v2.mp4, clips/v3.mp4, v4.mp4, …; the first in
        videos/metadata.jsonl: line 3)"."""
        line = f"captions: {sum(text is not None for text in self.texts)} of {len(self.texts)} videos"
        if not self.unmatched:
            return line
        names = ", ".join(
            [name[:60] if name.isprintable() else repr(name)[:60] for name in self.unmatched[:MOST_NAMED]]
            + (["…"] if len(self.unmatched) > MOST_NAMED else [])
        )
        lines = "1 line names" if len(self.unmatched) == 1 else f"{len(self.unmatched)} lines name"
        return f"{line}; {lines} no video ({names}; the first in {self.first_unmatched})"


class Found(NamedTuple):
    """A caption, and the file that it is in (with its line, of a metadata file)."""

    text: str
    place: str


def check_each(texts: Iterable[str], places: Iterable[str], check: Callable[[str], object]) -> None:
    """Check captions one by one.

    Args:
        texts: the captions.
        places: of each, the file and the line, see `Captions`.
        check: raises a `MagiError` of a caption that will not do.

    Raises:
        MagiError: that of `check`, the file and the line in front.
    """
    for text, place in zip(texts, places, strict=True):
        try:
            check(text)
        except MagiError as error:
            raise MagiError(f"{place}: {error}") from None


def read_captions(videos: VideoFolder) -> Captions:
    """The captions of a data set.

    Raises:
        MagiError: a metadata file, or the text beside a video, is unreadable, too large or not as described above.
    """
    paths = [video.path for video in videos.videos]
    names = [path.relative_to(videos.root).as_posix() for path in paths]
    number = {_normal(name): i for i, name in enumerate(names)}
    folded: dict[str, list[int]] = {}
    for name, i in number.items():
        folded.setdefault(_fold(name), []).append(i)
    found: list[Found | None] = [None] * len(paths)
    unmatched: list[str] = []
    first_unmatched = ""
    folders = {folder for name in names for folder in _folders_of(name)} or {""}
    for folder in sorted(folders, key=lambda folder: (folder.count("/") + bool(folder), folder)):  # nearer ones later
        listed = _read_folder(videos, folder)
        keys = {name: posixpath.normpath(posixpath.join(folder, _normal(name))) for name in listed}
        for name in sorted(listed, key=lambda name: keys[name] in number):  # so that exact names hold
            key, caption = keys[name], listed[name]
            alike = folded.get(_fold(key), [])
            video = number.get(key, alike[0] if len(alike) == 1 else None)
            if video is None:
                unmatched.append(name)
                first_unmatched = first_unmatched or caption.place
            else:
                found[video] = caption
    found = [_beside(path, videos) or listed for path, listed in zip(paths, found, strict=True)]
    return Captions(
        [None if one is None else one.text for one in found],
        unmatched,
        ["" if one is None else one.place for one in found],
        first_unmatched,
    )


def _folders_of(name: str) -> list[str]:
    """The folders that a file lies in, the data set's own first, as "": "a/b/c.mp4" in "", "a" and "a/b"."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _normal(name: str) -> str:
    """The name as it is written below its folder here."""
    return unicodedata.normalize("NFC", posixpath.normpath(name.strip().replace("\\", "/")))


def _fold(name: str) -> str:
    return name.casefold()


def _beside(video: Path, videos: VideoFolder) -> Found | None:
    path = next((one for one in (video.with_suffix(".txt"), video.with_suffix(".TXT")) if one.is_file()), None)
    if path is None:
        return None
    if not videos.holds(path):
        raise MagiError(f"{path}: link out of the folder")
    return _checked(read_text(path, 4 * MAX_CHARACTERS), str(path))


def _read_folder(videos: VideoFolder, folder: str) -> dict[str, Found]:
    """Names and captions of the metadata files of a folder below the root."""
    listed: dict[str, Found] = {}
    for path in (videos.root / folder / name for name in METADATA):
        if path.exists():
            if not videos.holds(path):
                raise MagiError(f"{path}: link out of the folder")
            listed |= _read_metadata(path)
    return listed


def _read_metadata(path: Path) -> dict[str, Found]:
    text = read_text(path, MAX_TEXT_BYTES)
    captions: dict[str, Found] = {}
    seen: set[str] = set()
    for number, (name, caption) in _rows(path, text):
        if _normal(name) in seen:
            raise MagiError(f"{path}: line {number}: {name[:60]!r} a second time")
        seen.add(_normal(name))
        if checked := _checked(caption, f"{path}: line {number}"):
            captions[name] = checked
    return captions


def _rows(path: Path, text: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """Line numbers, names of files and texts."""
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    row = parse_json(line)
                except ValueError as error:
                    raise MagiError(f"{path}: line {number} is not JSON ({error})") from None
                yield number, _pair(row if isinstance(row, dict) else {}, f"{path}: line {number}")
        return
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text))
    try:
        for row in reader:
            yield reader.line_num, _pair(row, f"{path}: line {reader.line_num}")
    except csv.Error as error:
        raise MagiError(f"{path}: line {reader.line_num} is no CSV ({error})") from None


def _delimiter(text: str) -> str:
    """What stands between the columns: a comma; a semicolon or tab as some spreadsheets write them."""
    header = text.lstrip().partition("\n")[0]
    return next((sign for sign in ";\t" if "," not in header and sign in header), ",")


def _pair(row: dict[str, object], where: str) -> tuple[str, str]:
    name, caption = row.get("file_name"), row.get("text")
    if not isinstance(name, str) or not isinstance(caption, str):
        raise MagiError(f"{where}; expected file_name and text, both texts")
    return name, caption


def _checked(caption: str, where: str) -> Found | None:
    caption = " ".join(caption.split())
    if len(caption) > MAX_CHARACTERS:
        raise MagiError(f"{where}: a caption of {len(caption)} characters; expected at most {MAX_CHARACTERS}")
    if caption and not is_caption(caption):
        raise MagiError(f"{where}: half a character, which is no text")
    return Found(caption, where) if caption else None


def is_caption(value: object) -> bool:
    """Whether it is what `read_captions` finds of a video with a caption."""
    return isinstance(value, str) and 0 < len(value) <= MAX_CHARACTERS and not _HALVES.search(value)
