"""Captions of videos, in the two layouts of the field:

    clips/0001.mp4, clips/0001.txt         the text of a video beside it
    metadata.jsonl                         {"file_name": "clips/0001.mp4", "text": "…"}, a line for each video
    metadata.csv                           the same, as columns file_name and text

The metadata file lies in the data set's folder, as in the data sets of the Hugging Face hub; a text beside a video goes
before it. White space, line ends included, counts as one blank.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from magi_video.data.folder import VideoFolder
from magi_video.data.scan import is_inside
from magi_video.errors import MagiError
from magi_video.limits import MAX_TEXT_BYTES
from magi_video.textfiles import parse_json, read_text

METADATA = ("metadata.jsonl", "metadata.csv")
MAX_CHARACTERS = 10_000
"""Of a caption, and of any text that a model is told."""
_HALVES = re.compile("[\ud800-\udfff]")  # JSON can hold one half of a pair, which no encoder takes


def read_captions(videos: VideoFolder) -> list[str | None]:
    """The caption of every video of a data set; None for those that have none.

    Raises:
        MagiError: a metadata file, or the text beside a video, is unreadable, too large or not as described above.
    """
    listed: dict[str, str] = {}
    for name in METADATA:
        if (videos.root / name).exists():
            if not is_inside(videos.root / name, videos.root):
                raise MagiError(f"{videos.root / name}: link out of the folder")
            listed |= _read_metadata(videos.root / name)
    return [_beside(video.path, videos.root) or listed.get(_key(video.path, videos.root)) for video in videos.videos]


def _key(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _beside(video: Path, root: Path) -> str | None:
    path = video.with_suffix(".txt")
    if not path.is_file():
        return None
    if not is_inside(path, root):
        raise MagiError(f"{path}: link out of the folder")
    return _checked(read_text(path, 4 * MAX_CHARACTERS), str(path))


def _read_metadata(path: Path) -> dict[str, str]:
    text = read_text(path, MAX_TEXT_BYTES)
    captions: dict[str, str] = {}
    for number, (name, caption) in _rows(path, text):
        if name in captions:
            raise MagiError(f"{path}: line {number}: {name[:60]!r} a second time")
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
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, _pair(row, f"{path}: line {reader.line_num}")
    except csv.Error as error:
        raise MagiError(f"{path}: line {reader.line_num} is no CSV ({error})") from None


def _pair(row: dict[str, object], where: str) -> tuple[str, str]:
    name, caption = row.get("file_name"), row.get("text")
    if not isinstance(name, str) or not isinstance(caption, str):
        raise MagiError(f"{where}; expected file_name and text, both texts")
    return name, caption


def _checked(caption: str, where: str) -> str | None:
    caption = " ".join(caption.split())
    if len(caption) > MAX_CHARACTERS:
        raise MagiError(f"{where}: a caption of {len(caption)} characters; expected at most {MAX_CHARACTERS}")
    if caption and not is_caption(caption):
        raise MagiError(f"{where}: half a character, which is no text")
    return caption or None


def is_caption(value: object) -> bool:
    """Whether it is what `read_captions` gives of a video with a caption."""
    return isinstance(value, str) and 0 < len(value) <= MAX_CHARACTERS and not _HALVES.search(value)
