"""Video files in and out, through PyAV; nothing else in the package opens one.

A video is the sequence of frames its file decodes to, in presentation order: frame i is the i-th of them. They come
as a player shows them, turned, mirrored and with square pixels (`geometry`), and their size is meant by `height` and
`width`. Timestamps only serve to seek, so a variable-rate file is read frame by frame like any other and its
`frame_rate` is the average.
`inspect_video` decodes the whole file once, because a header's frame count is only a claim; what it counts is exactly
what `read_frames` delivers, and a file that breaks off in an error is refused as a whole rather than read up to
there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from magi_video.errors import MagiError
from magi_video.files.atomic import part_beside
from magi_video.files.folders import ensure_folder
from magi_video.files.limits import MAX_FRAMES, MAX_READ_BYTES
from magi_video.video.geometry import Geometry
from magi_video.video.seeking import Screen, decode_by_seeking, decode_through, opened, reason, seek_pays_off

COLOUR_TAGS = {"colorspace": 6, "color_primaries": 1, "color_trc": 13, "color_range": 1}
"""What is true of written frames, so that no player guesses by their size: YUV by BT.601 (FFmpeg's conversion), in the
limited range, of sRGB pictures (the primaries of BT.709)."""
FRAMES_BETWEEN_LOOKS = 256  # whether the file has changed


@dataclass(frozen=True)
class VideoInfo:
    """What a file really holds.

    Attributes:
        num_frames: decoded frames.
        height, width: of the frames as they are shown, in pixels.
        frame_rate: the average, in frames/s; 0.0 where unknown.
        shown: what distinguishes what is shown from the decoded frames of the file's first video stream, in words
            ("stream 1, turned 90 degrees clockwise"); empty of most videos.
    """

    num_frames: int
    height: int
    width: int
    frame_rate: float
    shown: str = ""


def inspect_video(path: str | Path, on_frame: Callable[[], None] = lambda: None) -> VideoInfo:
    """Counts the frames of a video by decoding it.

    Args:
        path: a video file.
        on_frame: called after each frame.

    Raises:
        MagiError: the file cannot be opened or decoded to its end, has no frame or more than 2**20 of them, has frames
            that are too large or change their size, or changes while it is read.
    """
    path = Path(path)
    count, size, shown = 0, (0, 0), ""
    with opened(path) as (container, stream):
        before = path.stat()
        screen = Screen(path, stream)
        for frame in container.decode(stream):
            geometry = screen.begin(frame)
            if count == 0:
                size, shown = geometry.shown, _shown(container, stream, geometry)
            elif (frame.height, frame.width) != geometry.stored:
                raise MagiError(f"{path}: the frame size changes at frame {count}; expected one size throughout")
            count += 1
            if count > MAX_FRAMES:
                raise MagiError(f"{path}: more than {MAX_FRAMES} frames")
            if count % FRAMES_BETWEEN_LOOKS == 0:
                refuse_changed(path, before)
            on_frame()
        refuse_changed(path, before)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
    if count == 0:
        raise MagiError(f"{path}: zero frames")
    return VideoInfo(count, *size, rate, shown)


def is_shown_as_stored(path: str | Path) -> bool:
    """Whether what is shown are the decoded frames of the file's first video stream; decodes the first frame alone.

    Raises:
        MagiError: as `inspect_video`.
    """
    with opened(Path(path)) as (container, stream):
        screen = Screen(Path(path), stream)
        return all(not _shown(container, stream, screen.begin(frame)) for frame in islice(container.decode(stream), 1))


def _shown(container: Any, stream: Any, geometry: Geometry) -> str:
    number = list(container.streams.video).index(stream)
    return ", ".join(filter(None, (f"stream {number}" if number else "", str(geometry))))


def refuse_changed(path: Path, before: os.stat_result) -> None:
    """A file that is still being written has no number of frames yet, and may grow faster than it is read."""
    now = path.stat()
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise MagiError(f"{path}: changes while it is read")


def read_frames(path: str | Path, indices: Sequence[int] | None = None, *, num_frames: int | None = None) -> np.ndarray:
    """Reads frames by index.

    Args:
        path: a video file.
        indices: frame numbers, counted from 0, in any order and with repetitions; None for all frames.
        num_frames: what `inspect_video` has counted; lets frames deep in the video be reached by a seek in formats
            where it could not be known otherwise that a seek is exact.

    Returns:
        uint8 array [T, H, W, 3], RGB, one frame for each index in the order asked for, as a player shows it.

    Raises:
        MagiError: unreadable file, an index outside the video, or more than 8 GiB asked for at once.
    """
    path = Path(path)
    if indices is None:
        return _stack(path, decode_through(path, None))
    if len(indices) == 0:
        raise MagiError(f"{path}: no frame asked for; expected at least one index")
    wanted = sorted({int(i) for i in indices})
    if wanted[0] < 0:
        raise MagiError(f"{path}: frame {wanted[0]} asked for; expected indices from 0")
    frames = decode_by_seeking(path, wanted, num_frames) if seek_pays_off(wanted) else None
    if frames is None:
        frames = list(decode_through(path, wanted))
    if len(frames) < len(wanted):
        raise MagiError(f"{path}: frame {wanted[len(frames)]} asked for, but the video ends before it")
    stacked = _stack(path, frames)
    row = {index: position for position, index in enumerate(wanted)}
    order = [row[int(i)] for i in indices]
    return stacked if order == list(range(len(wanted))) else stacked[order]


def read_in_order(path: str | Path, size: int) -> Iterator[np.ndarray]:
    """Reads a whole video in one pass: uint8 [n, H, W, 3], `size` frames at a time and fewer the last time.

    Raises:
        MagiError: as `read_frames`.
    """
    frames = decode_through(Path(path), None)
    while chunk := list(islice(frames, size)):
        yield _stack(Path(path), chunk)


def _stack(path: Path, frames: Iterator[np.ndarray] | list[np.ndarray]) -> np.ndarray:
    kept: list[np.ndarray] = []
    total = 0
    for frame in frames:
        total += frame.nbytes
        if total > MAX_READ_BYTES:
            raise MagiError(
                f"{path}: more than {MAX_READ_BYTES / 2**30:g} GiB of frames asked for at once; expected fewer indices"
            )
        kept.append(frame)
    if not kept:
        raise MagiError(f"{path}: zero frames")
    return np.stack(kept)


RECORDED: dict[str, Any] = {"crf": 10, "pixel_format": "yuv444p"}
"""How `VideoWriter` writes what a model is to learn from: 41 dB and 0.75 kB a frame on 64 × 64 Doom."""


class VideoWriter:
    """Writes frames to an H.264 file one by one; the file appears under its name only when it is complete.

    A context manager: leaving it normally finishes the file, leaving it by an exception removes what was written. One
    encoder thread, so that the same frames give the same bytes on any number of cores.

    Args:
        path: the file to write; its folder is made.
        frame_rate: frames per second.
        min_side: frames are enlarged by a whole number (nearest neighbour) until their short side has this many pixels.
        crf: x264's quality, 0 (lossless) to 51.
        pixel_format: "yuv420p" plays everywhere and needs even sizes (edge pixels are repeated where a side is odd);
            "yuv444p" keeps every pixel's colour: for recordings.
        keyframe_interval: most frames between two keyframes: what a seek has to decode at worst.

    Raises:
        MagiError: the folder or file cannot be written, the disk is full, frames of different sizes, or no frame at
            all.
    """

    def __init__(
        self,
        path: str | Path,
        frame_rate: float,
        *,
        min_side: int = 0,
        crf: int = 16,
        pixel_format: str = "yuv420p",
        keyframe_interval: int = 32,
    ) -> None:
        if not frame_rate > 0:
            raise MagiError(f"frame rate {frame_rate}; expected more than 0 frames/s")
        if pixel_format not in ("yuv420p", "yuv444p"):
            raise MagiError(f"pixel format {pixel_format!r}; expected yuv420p or yuv444p")
        self.path = Path(path)
        self.num_frames = 0
        self._rate = Fraction(frame_rate).limit_denominator(65535)
        self._min_side = min_side
        # No B-frames: with them x264 lets memory it never set decide, and small videos differ from run to run.
        self._options = {"crf": str(crf), "preset": "medium", "bf": "0"}
        self._pixel_format = pixel_format
        self._keyframe_interval = keyframe_interval
        self._part = part_beside(self.path)
        self._shape: tuple[int, ...] | None = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        with self._told():
            ensure_folder(self.path.parent)
            self._container = av.open(str(self._part.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
        return self

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame, uint8 [H, W, 3]."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise MagiError(f"{self.path}: a frame is {frame.dtype} {frame.shape}; expected uint8 [height, width, 3]")
        if self._shape is not None and frame.shape != self._shape:
            raise MagiError(f"{self.path}: a frame is {frame.shape}; expected {self._shape} like the first")
        self._shape = frame.shape
        frame = enlarge(frame, self._min_side)
        if self._pixel_format == "yuv420p":
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        with self._told():
            if self._stream is None:
                self._open_stream(frame.shape[0], frame.shape[1])
            for packet in self._stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                self._container.mux(packet)
        self.num_frames += 1

    def _open_stream(self, height: int, width: int) -> None:
        stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        stream.height, stream.width, stream.pix_fmt = height, width, self._pixel_format
        stream.codec_context.gop_size = self._keyframe_interval
        stream.codec_context.thread_count = 1
        for name, value in COLOUR_TAGS.items():
            setattr(stream.codec_context, name, value)
        self._stream = stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.num_frames == 0:
                raise MagiError(f"{self.path}: no frame to write; expected at least one")
            with self._told():
                if kind is None:
                    for packet in self._stream.encode(None):
                        self._container.mux(packet)
                    self._container.close()
                    self._part.replace(self.path)
        finally:
            with suppress(av.FFmpegError, OSError):  # the first error is the one to tell
                self._container.close()
            self._part.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise MagiError(f"{self.path}: cannot be written ({reason(error)})") from error


def enlarge(frame: np.ndarray, min_side: int) -> np.ndarray:
    """Repeats the pixels of uint8 [H, W, 3] by the smallest whole number that makes the short side at least
    `min_side`."""
    factor = max(1, -(-min_side // min(frame.shape[:2])))
    return frame if factor == 1 else frame.repeat(factor, axis=0).repeat(factor, axis=1)


def write_video(
    path: str | Path,
    frames_THWC: np.ndarray,
    frame_rate: float,
    *,
    min_side: int = 0,
    crf: int = 16,
    pixel_format: str = "yuv420p",
) -> None:
    """Writes uint8 frames [T, H, W, 3] to an H.264 mp4 file; see `VideoWriter` for the arguments and the errors."""
    if frames_THWC.ndim != 4 or 0 in frames_THWC.shape:
        raise MagiError(f"{path}: frames are {frames_THWC.shape}; expected [frames, height, width, 3], none of them 0")
    with VideoWriter(path, frame_rate, min_side=min_side, crf=crf, pixel_format=pixel_format) as writer:
        for frame in frames_THWC:
            writer.write(frame)
