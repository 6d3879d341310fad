"""The run of a player: the latest frames of a world, bounded in number, to go back to and to take home.

It is filled and cut in the worker's thread, gets its pictures from the thread that decodes, and is read in any.
"""

from __future__ import annotations

import json
import threading
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from magi_video.data.actions import RECORDING_FILE, actions_path, write_actions
from magi_video.errors import MagiError
from magi_video.exposure.memory import find_memory
from magi_video.paradigms.base import make_paradigm
from magi_video.serving.limits import ServingLimits
from magi_video.video.video import RECORDED, VideoWriter

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline

RUN_FILE = "run.zip"
FOLDER, EPISODE = "run", "episode_00000.mp4"
STATE_BYTES = 5056
"""Of a CPU generator."""
LEAD_WINDOWS, MOST_LEAD = 2, 128
"""What is read again when a run goes on from one of its frames: so many windows of the model, and frames at most. For
Doom's five blocks two windows give the same frames to 6e-6, one to 8e-4, of latents that vary by 1.8."""


@dataclass(eq=False)
class RunFrame:
    """A frame of a run.

    Attributes:
        latents_BCHW: of one video, before decoding.
        action: that led to it, float32 [A]; None where that is unknown.
        draws: state of the generator of noise after it.
        given: not made by the model.
        picture: uint8 [H, W, 3], once it is decoded.
    """

    latents_BCHW: Tensor
    action: np.ndarray | None
    draws: Tensor
    given: bool
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class Lead:
    """What is read again before a run goes on from one of its frames.

    Attributes:
        latest: frames up to that one.
        sink: the first ones of the run, where the model keeps them in sight (`FrameMemory`).
        stride: of its strided past. What lies between is left out by whole strides: the same frames stay then.
    """

    latest: int = 1
    sink: int = 0
    stride: int = 1

    def numbers(self, index: int, oldest: int) -> list[int]:
        """Of the frames, increasing, `index` the last; but for the sink none is older than `oldest`."""
        first = max(self.sink, index + 1 - self.latest, oldest)
        first = min(first + (self.sink - first) % self.stride, index)
        return [*range(min(self.sink, first)), *range(first, index + 1)]


class Run:
    """Frames without a gap, the oldest of which are dropped, but for a sink.

    Args:
        most: that are kept.
        rate: frames/s.
        sink: first frames that are kept for `lead`, whatever is dropped.
    """

    def __init__(self, most: int, rate: float, sink: int = 0) -> None:
        self.rate = rate
        self._frames: deque[RunFrame] = deque()
        self._sink, self._begin = sink, list[RunFrame]()
        self._most, self._first = most, 0
        self._lock = threading.Lock()

    def add(self, frame: RunFrame) -> None:
        """The next frame."""
        with self._lock:
            if len(self._begin) < self._sink and self._first + len(self._frames) == len(self._begin):
                self._begin.append(frame)
            self._frames.append(frame)
            if len(self._frames) > self._most:
                self._frames.popleft()
                self._first += 1

    def until(self, index: int) -> list[RunFrame]:
        """The frames that are kept, the one of this number being the last.

        Raises:
            MagiError: that one is not kept.
        """
        with self._lock:
            count = index - self._first + 1
            if not 0 < count <= len(self._frames):
                raise MagiError(f"frame {index} is not kept: the run goes back {len(self._frames)} frames")
            return list(self._frames)[:count]

    def lead(self, index: int, lead: Lead) -> list[RunFrame]:
        """What is read again before the run goes on from a frame; errors as of `until`."""
        frames = self.until(index)
        oldest = index + 1 - len(frames)
        return [frames[n - oldest] if n >= oldest else self._begin[n] for n in lead.numbers(index, oldest)]

    def cut(self, index: int) -> None:
        """Drop what came after a frame that is kept."""
        with self._lock:
            del self._begin[index + 1 :]
            while self._first + len(self._frames) - 1 > index:
                self._frames.pop()

    def recorded(self) -> list[RunFrame]:
        """The frames from the last given one on, as far as they are decoded."""
        with self._lock:
            frames = list(self._frames)
        given = [number for number, frame in enumerate(frames) if frame.given]
        frames = frames[given[-1] :] if given else frames
        waiting = (number for number, frame in enumerate(frames) if frame.picture is None)
        return frames[: next(waiting, len(frames))]


def run_length(pipe: MagiVideoPipeline, limits: ServingLimits) -> int:
    """Frames that are kept of a run: as many as the limits allow. 0 where several frames are decoded or generated
    together: they share their past, their noise and the keys read for them, so a run cannot go on from each of them."""
    if pipe.codec.temporal_factor != 1 or pipe.most_step_frames(None) != 1:
        return 0
    net, config = pipe.transformer.config, pipe.config
    latents = 4 * net.latent_channels * net.latent_height * net.latent_width
    bytes_each = 3 * config.height * config.width + latents + STATE_BYTES
    return max(2, min(limits.max_run_frames, int(limits.max_kept_mb * 10**6 / limits.max_players / bytes_each)))


def find_lead(pipe: MagiVideoPipeline) -> Lead:
    """What is read again before a run goes on. All that has a part in the next frame would be a window for each block,
    since each frame has seen those before it; of the early ones next to nothing is left (`LEAD_WINDOWS`)."""
    net = pipe.transformer.config
    if net.temporal_position != "rope":  # positions count from the first frame, and no more fit than a clip has
        return Lead(net.num_frames)
    latest = min(min(net.depth, LEAD_WINDOWS) * net.num_frames, MOST_LEAD)
    paradigm = make_paradigm(pipe.config.forcing, pipe.config.forcing_options)
    memory = find_memory(pipe.transformer, paradigm.sampled(pipe.own_sampling), pipe.own_sampling)
    if memory is None:
        return Lead(latest)
    return Lead(latest + (memory.strided + 1) * memory.stride, memory.sink, memory.stride)


def write_run(path: Path, frames: list[RunFrame], names: tuple[str, ...], rate: float, model: str) -> None:
    """A run as `magi train --data` takes it once it is unpacked: a folder with the video, its actions beside it, and
    what it is.

    Args:
        path: of the ZIP file; what it is made of lies beside it meanwhile.
        frames: of `Run.recorded`.
        names: of the columns of an action.
        rate: frames/s.
        model: that made it.

    Raises:
        MagiError: there are fewer than two frames.
    """
    if len(frames) < 2:
        raise MagiError("there are no frames to save yet")
    video = path.with_name(f"{path.stem}-{EPISODE}")
    about = {"made_by": model, "action_names": list(names), "frame_rate": rate, "episodes": {"0": len(frames)}}
    try:
        with VideoWriter(video, rate, **RECORDED) as writer:
            for frame in frames:
                assert frame.picture is not None
                writer.write(frame.picture)
        rows = [_row(names, frame.action) for frame in frames[1:]]  # a row leads to the frame after it
        write_actions(video, [*rows, {}])
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(video, f"{FOLDER}/{EPISODE}")
            archive.write(actions_path(video), f"{FOLDER}/{actions_path(Path(EPISODE)).name}")
            archive.writestr(f"{FOLDER}/{RECORDING_FILE}", json.dumps(about, indent=2) + "\n")
    finally:
        video.unlink(missing_ok=True)
        actions_path(video).unlink(missing_ok=True)


def _row(names: tuple[str, ...], action: np.ndarray | None) -> dict[str, float]:
    """What is not 0 of an action by name."""
    return {} if action is None else {names[i]: float(action[i]) for i in np.flatnonzero(action)}
