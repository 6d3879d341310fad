"""The videos of a latent cache: names, lengths, classes, recorded actions and captions, all that training needs beside
latents.

One safetensors file of columns: for 400,000 videos it is read in a moment, and no value in it is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from typing_extensions import override

from magi_video.data.actions import ActionTrack
from magi_video.data.captions import is_caption
from magi_video.data.digests import DIGITS
from magi_video.data.folder import Video, VideoFolder
from magi_video.errors import MagiError
from magi_video.files.json import parse_json

COLUMNS: dict[str, type[np.generic]] = dict.fromkeys(("frames", "bytes", "height", "width", "label"), np.int64)
COLUMNS |= {"frame_rate": np.float64, "recorded": np.bool_}
MOST = 2**31  # frames, bytes of a pixel side: beyond any video, and safe to calculate with


@dataclass(frozen=True)
class VideoTable:
    """The videos of a data set, V of them in the data set's order.

    Attributes:
        names: paths below the data set's root, "/" between their parts.
        columns: arrays [V] by name: frames; bytes, of the file; height and width, in pixels; label, -1 where there is
            none; frame_rate, in frames/s; recorded, whether there are actions.
        actions: float32 [frames of all recorded videos, A], one video after the other.
        class_names: what labels are an index into.
        action_names: of the columns of `actions`.
        captions: of each video, None where it has none; empty if no video has one.
        shown: of each video how it is shown, see `VideoInfo`; empty if all are shown as they are stored.
        contents: digest of each file, see `identity.py`; empty in a table that was written before there were any.
    """

    names: list[str]
    columns: dict[str, np.ndarray]
    actions: np.ndarray
    class_names: list[str]
    action_names: list[str]
    captions: list[str | None] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: VideoFolder, captions: Sequence[str | None] = ()) -> Self:
        """The table of a data set whose files are at hand, and of its captions, if there are to be any."""
        tracks = [folder.actions(number) for number in range(len(folder.videos))]
        facts: dict[str, list[Any]] = {
            "frames": [video.num_frames for video in folder.videos],
            "bytes": [video.path.stat().st_size for video in folder.videos],
            "height": [video.height for video in folder.videos],
            "width": [video.width for video in folder.videos],
            "label": [-1 if video.label is None else video.label for video in folder.videos],
            "frame_rate": [video.frame_rate for video in folder.videos],
            "recorded": [track is not None for track in tracks],
        }
        recorded = [track for track in tracks if track is not None]
        contents = [video.content for video in folder.videos]
        empty = np.zeros((0, len(folder.action_names)), np.float32)
        return cls(
            names=folder.names,
            columns={name: np.array(facts[name], kind) for name, kind in COLUMNS.items()},
            actions=np.concatenate([empty, *recorded]),
            class_names=list(folder.class_names),
            action_names=list(folder.action_names),
            captions=list(captions) if any(captions) else [],
            shown=[video.shown for video in folder.videos] if any(video.shown for video in folder.videos) else [],
            contents=contents if all(contents) else [],
        )

    def to_bytes(self) -> bytes:
        """The file's content; the same for the same table."""
        joined = b"\0".join(os.fsencode(name) for name in self.names)  # no file name holds a zero
        tensors = self.columns | {"names": np.frombuffer(joined, np.uint8), "actions": self.actions}
        for name, texts in (("captions", self.captions), ("shown", self.shown)):
            if texts:
                tensors[name] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        if self.contents:
            tensors["contents"] = np.frombuffer(bytes.fromhex("".join(self.contents)), np.uint8)
        words = json.dumps({"class_names": self.class_names, "action_names": self.action_names})
        return save(tensors, {"words": words})  # one entry: safetensors writes several in an order of chance

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads and checks a table.

        Raises:
            MagiError: not such a file, or values that no data set has.
        """
        try:
            with safe_open(path, framework="np") as file:
                words = json.loads((file.metadata() or {}).get("words", "{}"))
                tensors = {name: file.get_tensor(name) for name in ("names", "actions", *COLUMNS)}
                there = set(file.keys())
                captions, shown = (
                    parse_json(file.get_tensor(name).tobytes().decode()) if name in there else []
                    for name in ("captions", "shown")
                )
                digests = file.get_tensor("contents").tobytes().hex() if "contents" in there else ""
        except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
            raise MagiError(f"{path}: unreadable table of videos ({error})") from None
        joined, actions = tensors.pop("names"), tensors.pop("actions")
        names = [os.fsdecode(name) for name in joined.tobytes().split(b"\0")] if joined.dtype == np.uint8 else []
        words = words if isinstance(words, dict) else {}
        contents = [digests[at : at + DIGITS] for at in range(0, len(digests), DIGITS)]
        known = (words.get("class_names", []), words.get("action_names", []))
        table = cls(names, tensors, actions, *known, captions, shown, contents)
        if problem := table._problem():
            raise MagiError(f"{path}: {problem}")
        return table

    def _problem(self) -> str | None:
        """What is wrong with a table that was read."""
        for words in (self.class_names, self.action_names):
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                return "expected lists of names of classes and actions"
        known = isinstance(self.captions, list) and len(self.captions) in (0, len(self.names))
        if not known or not all(caption is None or is_caption(caption) for caption in self.captions):
            return f"expected captions of {len(self.names)} videos"
        known = isinstance(self.shown, list) and len(self.shown) in (0, len(self.names))
        if not known or not all(isinstance(words, str) for words in self.shown):
            return f"expected how {len(self.names)} videos are shown"
        if len(self.contents) not in (0, len(self.names)) or any(len(one) != DIGITS for one in self.contents):
            return f"expected digests of {len(self.names)} videos"
        for name, kind in COLUMNS.items():
            if self.columns[name].dtype != kind or self.columns[name].shape != (len(self.names),):
                return f"expected {len(self.names)} values {np.dtype(kind)} of {name}"
        if escape := next((name for name in self.names if not _is_below(name)), None):
            return f"names {escape[:60]!r}; expected a path below the data set's folder"
        if len(set(self.names)) < len(self.names):
            return "names a video twice"
        column = self.columns
        counts = [column["frames"], column["height"], column["width"], column["bytes"] // MOST + 1]
        sound = all(((values >= 1) & (values < MOST)).all() for values in counts)
        sound &= bool(((column["label"] >= -1) & (column["label"] < len(self.class_names))).all())
        sound &= bool((np.isfinite(column["frame_rate"]) & (column["frame_rate"] >= 0)).all())
        if not sound:
            return "lengths, sizes, labels or frame rates that no video has"
        rows = int(column["frames"][column["recorded"]].sum())
        if self.actions.dtype != np.float32 or self.actions.shape != (rows, len(self.action_names)):
            return f"expected actions float32 [{rows}, {len(self.action_names)}]"
        return None if np.isfinite(self.actions).all() else "actions that are not finite"


class CachedVideos(VideoFolder):
    """The data set of a cache without its files: lengths, classes, actions and captions, but no pixels.

    Args:
        table: of the cache.
        root: folder of the cache, for messages.

    Attributes:
        captions: of each video, None where it has none.
    """

    def __init__(self, table: VideoTable, root: Path) -> None:
        self._begin(root)
        self.num_files = len(table.names)
        self.class_names, self.action_names = table.class_names, table.action_names
        self.captions = table.captions or [None] * len(table.names)
        columns = {name: values.tolist() for name, values in table.columns.items()}
        end = 0
        for number, name in enumerate(table.names):
            label, frames = columns["label"][number], columns["frames"][number]
            size, rate = (columns["height"][number], columns["width"][number]), columns["frame_rate"][number]
            content = table.contents[number] if table.contents else ""
            shown = table.shown[number] if table.shown else ""
            facts = (frames, *size, rate, None if label < 0 else label)
            self.videos.append(Video(root / name, *facts, None, shown, content))
            if columns["recorded"][number]:
                self._tracks[number] = ActionTrack(tuple(self.action_names), table.actions[end : end + frames])
                end += frames

    @override
    def read(self, video: int, frames: Sequence[int]) -> torch.Tensor:
        """Refused: there are no pixels."""
        raise MagiError(f"{self.root}: holds latents, not pixels; expected the folder of the videos as well")


def _is_below(name: str) -> bool:
    return bool(name) and not name.startswith("/") and not {"", ".", ".."} & set(name.split("/"))
