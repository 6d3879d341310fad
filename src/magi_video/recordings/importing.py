"""Action data sets of other projects as recordings of ours: video files with the actions beside them (`record.py`).

A source (`lerobot.py`, `minari.py`) says which actions and frames an episode has; all that is written is written here.
What a source says is believed as far as it can be checked: an episode with fewer frames than actions, or with actions
that are no finite numbers, is left out and listed. To add a format, write a source beside these and name it in
`SOURCES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from magi_video.data.actions import MAX_NAME, MAX_NAMES, MAX_VALUE, write_actions
from magi_video.data.walk import Skipped
from magi_video.errors import MagiError
from magi_video.files.folders import LOCK_FILE
from magi_video.files.limits import MAX_FRAMES
from magi_video.recordings.episodes import EPISODES, complete_episodes, episode_name, recording
from magi_video.video.image import fit_frames
from magi_video.video.video import RECORDED, VideoWriter

SOURCES = {"lerobot": "magi_video.recordings.lerobot", "minari": "magi_video.recordings.minari"}
MAX_EPISODES = 1_000_000


class Source(ABC):
    """A data set of episodes.

    Attributes:
        root: its folder.
        action_names: the columns of an action.
        frame_rate: frames/s.
        camera: which of its videos is read.
        num_episodes: how many it says it has.
    """

    root: Path
    action_names: list[str]
    frame_rate: float
    camera: str
    num_episodes: int

    @abstractmethod
    def actions(self, episode: int) -> np.ndarray:
        """float32 `[T, A]`: row i is the action taken after frame i; the last may lead nowhere."""

    @abstractmethod
    def frames(self, episode: int, count: int) -> Iterator[np.ndarray]:
        """The first `count` frames in order, in pieces uint8 `[n, H, W, 3]`."""


@dataclass(frozen=True)
class ImportSummary:
    """What a call of `import_dataset` did: episodes and frames now in the folder, and what was left out, and why."""

    folder: Path
    episodes: int
    frames: int
    camera: str
    action_names: tuple[str, ...]
    frame_rate: float
    skipped: tuple[Skipped, ...]


def open_source(kind: str, root: str | Path, camera: str | None = None, frame_rate: float | None = None) -> Source:
    """A data set in its own layout.

    Args:
        kind: "lerobot" or "minari".
        root: its folder.
        camera: which of its videos; None where it has one.
        frame_rate: frames/s, where the data set does not say.

    Raises:
        MagiError: no such kind or camera, a folder that is none, or a library that is not installed.
    """
    if kind not in SOURCES:
        raise MagiError(f"unknown kind of data set {kind!r}; expected {' or '.join(SOURCES)}")
    if not Path(root).is_dir():
        raise MagiError(f"{root}: no such folder; expected a {kind} data set")
    return import_module(SOURCES[kind]).open_source(Path(root), camera, frame_rate)


def import_dataset(
    source: Source,
    out: str | Path,
    *,
    episodes: int | None = None,
    height: int | None = None,
    width: int | None = None,
    normalize: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportSummary:
    """Write a data set as a recording; the same call continues one that was stopped.

    Args:
        source: of `open_source`.
        out: folder of the recording; empty, new, or a recording of the same source.
        episodes: the first so many; None for all.
        height, width: of the frames, in pixels; None for their own. See `fit_frames` for how they are resized.
        normalize: map each action column linearly so that the data set's least value is −1 and its largest 1; the
            bounds are kept in `recording.json`.
        progress: called after each episode with (episodes done, episodes in all).

    Raises:
        MagiError: `out` holds something else or cannot be written, or no episode can be used.
    """
    out, count = Path(out), min(source.num_episodes, episodes or source.num_episodes)
    if (height is None) != (width is None):
        raise MagiError("height and width go together")
    usable, skipped = _usable(source, count)
    low_A, high_A = _bounds(source, usable) if normalize else (np.zeros(0), np.zeros(0))
    settings = {
        "source": f"{type(source).__module__.rpartition('.')[2]}/{source.root.resolve().name}",
        "camera": source.camera,
        "height": height,
        "width": width,
        "action_low": low_A.tolist(),
        "action_high": high_A.tolist(),
        "action_names": source.action_names,
        "frame_rate": source.frame_rate,
    }
    artifact = recording(out, settings)
    there = {one.name for one in out.iterdir()} if out.is_dir() else {"a file"} if out.exists() else set()
    if artifact.read() is None and there - {LOCK_FILE}:
        raise MagiError(f"{out}: holds something else; expected an empty folder, or an import to continue")
    done = complete_episodes(out, artifact.check(settings))
    with artifact.making(settings, carried=lambda _: {EPISODES: done}):
        for number, episode in enumerate(usable):
            if str(episode) not in done:
                actions_TA = source.actions(episode)
                if normalize:
                    span_A = np.where(high_A > low_A, high_A - low_A, 1)
                    actions_TA = ((actions_TA - low_A) / span_A * 2 - 1).astype(np.float32)
                try:
                    _write_episode(source, episode, actions_TA, out, height, width)
                except MagiError as error:
                    if not _is_of(error, source.root):
                        raise
                    skipped.append(Skipped(Path(episode_name(episode)), str(error)))
                else:
                    done[str(episode)] = len(actions_TA)
                    artifact.settle(settings, lambda _: {EPISODES: done})
            progress(number + 1, len(usable))
    if not done:
        raise MagiError(f"{source.root}: no usable episode ({skipped[0].reason if skipped else 'there is none'})")
    return ImportSummary(
        out, len(done), sum(done.values()), source.camera, tuple(source.action_names), source.frame_rate, tuple(skipped)
    )


def check_names(names: Any, size: int) -> list[str]:
    """Names of `size` action columns, or "action_0", … where those that are given cannot serve."""
    while isinstance(names, dict) and len(names) == 1:  # {"motors": [...]}
        (names,) = names.values()
    sound = isinstance(names, list) and len(names) == size == len({str(name) for name in names})
    if sound and all(isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME for name in names):
        return list(names)
    return [f"action_{column}" for column in range(size)]


def check_size(size: Any, where: Path) -> int:
    """A number of action columns that a recording can hold."""
    if type(size) is not int or not 1 <= size <= MAX_NAMES:
        raise MagiError(f"{where}: actions of {size!r} numbers; expected 1 to {MAX_NAMES}")
    return size


def check_rate(rate: Any, where: Path) -> float:
    """A frame rate that a video can have."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.01 <= rate <= 1000:
        raise MagiError(f"{where}: {rate!r} frames/s; expected 0.01 to 1000")
    return float(rate)


def choose_camera(cameras: list[str], camera: str | None, where: Path) -> str:
    """The one that is asked for, by its name or the last part of it; or the only one."""
    if not cameras:
        raise MagiError(f"{where}: no video in this data set")
    if camera is None and len(cameras) == 1:
        return cameras[0]
    found = [name for name in cameras if camera in (name, name.rpartition(".")[2])]
    if len(found) != 1:
        question = "which camera?" if camera is None else f"no camera {camera!r};"
        raise MagiError(f"{where}: {question} there {'is' if len(cameras) == 1 else 'are'} {', '.join(cameras)}"[:400])
    return found[0]


def _usable(source: Source, count: int) -> tuple[list[int], list[Skipped]]:
    """Episodes whose actions can be read, and the others."""
    if not 0 <= count <= MAX_EPISODES:
        raise MagiError(f"{source.root}: {count} episodes; expected at most {MAX_EPISODES}")
    usable: list[int] = []
    skipped: list[Skipped] = []
    for episode in range(count):
        try:
            actions_TA = source.actions(episode)
            if actions_TA.ndim != 2 or actions_TA.shape[1] != len(source.action_names) or not len(actions_TA):
                raise MagiError(f"actions {list(actions_TA.shape)}; expected [frames, {len(source.action_names)}]")
            if len(actions_TA) > MAX_FRAMES or not (np.abs(actions_TA) <= MAX_VALUE).all():  # so that NaN is refused
                raise MagiError(f"actions that are not numbers of at most {MAX_VALUE:.0f}, or too many of them")
            usable.append(episode)
        except MagiError as error:
            skipped.append(Skipped(Path(episode_name(episode)), str(error)))
    return usable, skipped


def _bounds(source: Source, episodes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value of each column, float64 `[A]`."""
    bounds = [(actions_TA.min(axis=0), actions_TA.max(axis=0)) for actions_TA in map(source.actions, episodes)]
    if not bounds:
        return np.zeros(0), np.zeros(0)
    lows, highs = zip(*bounds, strict=True)
    return np.min(lows, axis=0).astype(np.float64), np.max(highs, axis=0).astype(np.float64)


def _write_episode(
    source: Source, episode: int, actions_TA: np.ndarray, out: Path, height: int | None, width: int | None
) -> None:
    """One episode; the actions are in place before the video is, so a video is always complete."""
    path = out / episode_name(episode)
    with VideoWriter(path, source.frame_rate, **RECORDED) as writer:
        for frames_THWC in source.frames(episode, len(actions_TA)):
            if height is not None and width is not None:
                frames_THWC = fit_frames(frames_THWC, height, width)
            for frame in frames_THWC:
                writer.write(frame)
        if writer.num_frames != len(actions_TA):
            raise MagiError(f"{source.root}: {writer.num_frames} frames for {len(actions_TA)} actions")
        rows = (
            {name: round(float(value), 6) for name, value in zip(source.action_names, row, strict=True) if value}
            for row in actions_TA
        )
        write_actions(path, rows)


def _is_of(error: MagiError, root: Path) -> bool:
    """Whether an error tells of the source's files, not of ours."""
    return str(error).startswith((str(root), str(root.absolute()), str(root.resolve())))
