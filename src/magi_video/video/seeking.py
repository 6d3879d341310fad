"""Decoding frames of a video file: from its beginning, or from the nearest keyframe where that is provably the same.

Of several video streams the one is read that players take, and frames come as players show them (`geometry`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from magi_video.errors import MagiError
from magi_video.files.limits import MAX_FRAMES, MAX_PIXELS
from magi_video.video.geometry import Geometry, find_geometry

# Demuxers for the suffixes of videos, and raw streams. Others read playlists (further files), text, or whole devices.
FORMATS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,gif,yuv4mpegpipe,h264,hevc,m4v"
SEEKABLE = ("mp4", "matroska", "avi")  # containers that store a timestamp for every packet; others make theirs up
PYAV = int(av.__version__.partition(".")[0])  # the major version
SEEK_WORTHWHILE = 48  # frames; decoding through fewer than this is quicker than listing the packets for a seek


def seek_pays_off(wanted: list[int]) -> bool:
    """Whether frames (sorted) lie deep enough in a video, or far enough apart, to seek for them."""
    return wanted[0] >= SEEK_WORTHWHILE or any(b - a > 4 * SEEK_WORTHWHILE for a, b in pairwise(wanted))


def decode_through(path: Path, wanted: list[int] | None) -> Iterator[np.ndarray]:
    """Decodes from the first frame on and yields the wanted ones (sorted), or all."""
    with opened(path) as (container, stream):
        show = Screen(path, stream)
        position = 0
        for index, frame in enumerate(container.decode(stream)):
            show.begin(frame)
            if wanted is None:
                yield show(frame)
                continue
            if index == wanted[position]:
                yield show(frame)
                position += 1
                if position == len(wanted):
                    return


def decode_by_seeking(path: Path, wanted: list[int], num_frames: int | None) -> list[np.ndarray] | None:
    """Decodes the wanted frames (sorted) from the nearest keyframe before each; None where that could be inexact.

    Frame i is the one with the i-th smallest timestamp, provided that every packet gives one frame. That is checked
    again on the way: the decoded timestamps must follow the list of packets without a gap.
    """
    status = path.stat() if path.is_file() else None
    if status is None or (timeline := _timeline(path, status.st_size, status.st_mtime_ns)) is None:
        return None
    if num_frames != len(timeline.stamps) and not (num_frames is None and timeline.one_frame_a_packet):
        return None
    if wanted[-1] >= len(timeline.stamps):
        return None
    frames: list[np.ndarray] = []
    with opened(path) as (container, stream):
        show = Screen(path, stream, timeline.geometry)
        decoder: Iterator[Any] | None = None
        upcoming = 0  # index of the frame the decoder delivers next
        for index in wanted:
            keyframe = int(timeline.keyframes[np.searchsorted(timeline.keyframes, index, side="right") - 1])
            if decoder is None or keyframe > upcoming + SEEK_WORTHWHILE:
                container.seek(int(timeline.stamps[keyframe]), stream=stream, backward=True)
                decoder, upcoming = container.decode(stream), -1
            for frame in decoder:
                position = timeline.index_of(frame.pts)
                if position is None or position > index or upcoming not in (-1, position):
                    return None
                upcoming = position + 1
                if position == index:
                    frames.append(show(frame))
                    break
            else:
                return None
    return frames


@dataclass(frozen=True)
class _Timeline:
    """Timestamps of a file's packets (int64, ascending), the indices of the keyframes (ascending, the first one 0),
    whether the format promises one frame a packet, and the geometry of the file."""

    stamps: np.ndarray
    keyframes: np.ndarray
    one_frame_a_packet: bool
    geometry: Geometry

    def index_of(self, stamp: int | None) -> int | None:
        if stamp is None:
            return None
        index = int(np.searchsorted(self.stamps, stamp))
        return index if index < len(self.stamps) and self.stamps[index] == stamp else None


@lru_cache(maxsize=512)
def _timeline(path: Path, size: int, mtime_ns: int) -> _Timeline | None:
    """Lists the packets of a file, without decoding; None where they tell too little.

    Size and time are there to remember the answer by.
    """
    with opened(path) as (container, stream):
        if not any(name in container.format.name for name in SEEKABLE):
            return None
        packets = [packet for packet in islice(container.demux(stream), MAX_FRAMES + 1) if packet.size > 0]
        if not 0 < len(packets) < MAX_FRAMES or any(p.pts is None or p.is_discard or p.is_corrupt for p in packets):
            return None
        stamps = np.array([p.pts for p in packets])
        order = np.sort(stamps)
        starts_clean = packets[0].is_keyframe and stamps[0] == order[0]
        if not starts_clean or (np.diff(order) == 0).any():
            return None
        keyframes = np.searchsorted(order, np.sort(stamps[[p.is_keyframe for p in packets]]))
        # MPEG-4 part 2, for one, has packets that only say "the same again" and give no frame.
        promised = stream.codec_context.name == "h264" and "mp4" in container.format.name
        first = next((frame for packet in (*packets, None) for frame in stream.decode(packet)), None)
        if first is None:
            return None
        return _Timeline(order, keyframes, promised, find_geometry(path, stream, first))


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and the video stream that players take; every failure inside becomes a MagiError."""
    if not path.is_file():
        raise MagiError(f"{path}: {'not a regular' if path.exists() else 'no such'} file; expected a video")
    try:
        # Absolute, so that a colon in a name is no protocol; file only, so that a playlist called .mp4 fetches nothing.
        options: dict[str, Any] = {"options": {"protocol_whitelist": "file", "format_whitelist": FORMATS}}
        if PYAV < 19:  # later ones keep any tag, and know no such setting
            options["metadata_errors"] = "ignore"
        with av.open(str(path.absolute()), **options) as container:
            stream = pick_stream(path, container.streams.video)
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                width, height = stream.codec_context.width, stream.codec_context.height
                raise MagiError(
                    f"{path}: frames of {width} x {height} pixels; expected at most {MAX_PIXELS} pixels a frame"
                )
            # A stream may change its size on the way: the decoder itself refuses to allocate such a frame.
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            # Threads would pay off for whole films only, and cost their start in every short read; files are read side
            # by side instead.
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, OSError, ValueError, OverflowError) as error:
        raise MagiError(f"{path}: unreadable ({reason(error)})") from error


def pick_stream(path: Path, streams: Sequence[Any]) -> Any:
    """Of a file's video streams the default one, of several or none the largest, of equals the first."""
    moving = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]  # no cover art
    if not moving:
        raise MagiError(f"{path}: no video stream in it{' but a cover picture' if streams else ''}")
    decodable = [stream for stream in moving if stream.codec_context is not None]
    if not decodable:
        raise MagiError(f"{path}: a video format that cannot be decoded")

    def rank(stream: Any) -> tuple[bool, int]:
        size = stream.codec_context.width * stream.codec_context.height
        return bool(stream.disposition & Disposition.default), size

    return max(decodable, key=rank)  # of equals, max gives the first


class Screen:
    """Makes of decoded frames of one file what a player shows: uint8 [H, W, 3].

    Args:
        path, stream: of the file.
        geometry: of its first frame; taken from the first that `begin` is given if it is not known.
    """

    def __init__(self, path: Path, stream: Any, geometry: Geometry | None = None) -> None:
        self._path, self._stream, self._geometry = path, stream, geometry
        # One scaler for all: a frame's own `to_ndarray` sets up a new one, which takes ten times as long as its use.
        self._scaler = VideoReformatter()
        # PyAV 17 made a thread per core the default for every picture; before, there was neither that nor the setting.
        self._settings: dict[str, Any] = {"threads": 1} if PYAV >= 17 else {}

    def begin(self, first: Any) -> Geometry:
        """The geometry of the file, of which this is the first frame, unless there was one before."""
        if self._geometry is None:
            self._geometry = find_geometry(self._path, self._stream, first)
        return self._geometry

    def __call__(self, frame: Any) -> np.ndarray:
        """A frame as it is shown."""
        geometry = self.begin(frame)
        if (frame.height, frame.width) != geometry.stored:
            raise MagiError(f"{self._path}: the frame size changes within the file; expected one size throughout")
        height, width = geometry.stretched
        # Its bilinear filter is wider where it makes frames smaller, as that of `fit_frames` is.
        rgb = self._scaler.reformat(frame, width=width, height=height, format="rgb24", **self._settings)
        return geometry.turn(rgb.to_ndarray())


def reason(error: Exception) -> str:
    """What an error of PyAV or of the system says, without its numbers and paths."""
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
