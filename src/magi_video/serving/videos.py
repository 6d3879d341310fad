"""Videos that visitors have asked for: a queue with a limit, frames as they are made, files to take home.

Everything here runs in the event loop, but `Video.due`, `step`, `fail` and `close`, which run in the worker's thread,
`_finish_frames`, which runs in the thread that decodes beside it, and `VideoDesk.counts`, which runs in any thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.fast.beside import Beside, items_ahead
from magi_video.serving.limits import ServingLimits
from magi_video.serving.making import Making
from magi_video.serving.media import FILES, as_uint8, jpeg
from magi_video.serving.notify import Bell
from magi_video.serving.worker import Task, Worker

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline

OVER = ("done", "cancelled", "failed")
OF_ONE_VISITOR = 3
MAX_OVER = 64
"""Videos that are kept after they are over."""


class BusyError(MagiError):
    """There is no room now; later there will be."""


class Video(Task):
    """One video: waiting, running, then done, cancelled or failed.

    Attributes:
        token: random; who knows it may look.
        frames, jpegs: so far, uint8 [H, W, 3] and encoded.
        watchers: connections that follow it.
        seen: when someone last looked.
    """

    def __init__(
        self, pipe: MagiVideoPipeline, arguments: dict[str, Any], owner: str, address: str, desk: VideoDesk
    ) -> None:
        self.token = secrets.token_urlsafe(16)
        self.owner, self.address = owner, address
        self.total: int = arguments["num_frames"]
        self.rate: float = pipe.config.frame_rate / arguments["interval"]
        self.state, self.reason = "waiting", ""
        self.frames: list[np.ndarray] = []
        self.jpegs: list[bytes] = []
        self.times: list[float] = []
        self.watchers = 0
        self.seen = time.monotonic()
        self.bell = Bell()
        self.writing = asyncio.Lock()
        self._pipe, self._arguments, self._desk = pipe, arguments, desk
        self._making: Making[Tensor, Tensor] | None = None

    @override
    def due(self, now: float) -> float:
        """Always, unless the decoder has fallen behind."""
        return now if self._making is None or self._making.has_room else math.inf

    @override
    def step(self) -> bool:
        """One more latent frame; at the end, what is left to decode."""
        if self._making is None:
            stream = cast(Generator[Tensor], self._pipe.stream(**self._arguments, output_type="latent"))
            beside = Beside(self._finish_frames, items_ahead(self._pipe.device), self._desk.wake)
            self._making = Making(stream, beside)
        latents_BCHW = self._making.next()
        if latents_BCHW is not None:
            self._making.put(latents_BCHW)
            return True
        self._making.finish()
        self._desk.tell_ended(self, "done")
        return False

    def _finish_frames(self, latents: Iterator[Tensor]) -> None:
        """Decode and encode what comes, and let those who watch have it."""
        for frame_BHWC in self._pipe.decode_stream(latents, self.total):
            frame = as_uint8(frame_BHWC)
            self.frames.append(frame)
            self.times.append(time.monotonic())
            self.jpegs.append(jpeg(frame))
            self.bell.ring()

    @override
    def fail(self, reason: str) -> None:
        """Tell why there is no video; the frames that were made are kept."""
        if self._making is not None:
            self._making.settle()
        self._desk.tell_ended(self, "failed", reason)

    @override
    def close(self) -> None:
        """Free what the rollout holds."""
        if self._making is not None:
            self._making.close()
            self._making = None
        self._arguments = {name: one for name, one in self._arguments.items() if name not in ("image", "video")}

    def seconds_left(self) -> float | None:
        """By the pace of the latest frames; None before there is one."""
        recent = self.times[-9:]
        if len(recent) < 2:
            return None
        return (recent[-1] - recent[0]) / (len(recent) - 1) * (self.total - len(self.times))

    def status(self) -> dict[str, Any]:
        """What its owner sees."""
        left = self.seconds_left()
        return {
            "type": "state",
            "video": self.token,
            "state": self.state,
            "reason": self.reason,
            "position": self._desk.position(self),
            "made": len(self.jpegs),
            "frames": self.total,
            "rate": self.rate,
            "seconds_left": None if left is None else round(left, 2),
            "files": list(FILES) if self.state in OVER and len(self.frames) > 1 else [],
        }


class VideoDesk:
    """Takes orders, lets them run in turn, keeps what came of them for a while.

    Args:
        pipe: the model.
        worker: its thread.
        limits: see there.
        folder: for the files, a subfolder a video.

    Attributes:
        writing: a lock, held while a file of frames is written.
    """

    def __init__(self, pipe: MagiVideoPipeline, worker: Worker, limits: ServingLimits, folder: Path) -> None:
        self._pipe, self._worker, self._limits, self._folder = pipe, worker, limits, folder
        self._videos: dict[str, Video] = {}
        self._loop = asyncio.get_running_loop()
        self.writing = asyncio.Semaphore(1)  # so that encoders do not take the machine from the model

    def order(self, arguments: dict[str, Any], owner: str, address: str) -> Video:
        """Take an order of a visitor at an address.

        Raises:
            BusyError: the queue is full, or this visitor or this address has enough in it.
        """
        waiting = [one for one in self._videos.values() if one.state == "waiting"]
        if len(waiting) >= self._limits.max_queue:
            raise BusyError(f"{len(waiting)} videos are waiting already: please try again in a while")
        if sum(one.address == address for one in waiting) >= self._limits.share(self._limits.max_queue):
            raise BusyError("enough videos of your address are waiting: please try again in a while")
        if sum(one.owner == owner and one.state not in OVER for one in self._videos.values()) >= OF_ONE_VISITOR:
            raise BusyError(f"you have {OF_ONE_VISITOR} videos in the making: please wait for one of them")
        video = Video(self._pipe, arguments, owner, address, self)
        self._videos[video.token] = video
        self._advance()
        return video

    def find(self, token: str) -> Video:
        """The video of that token, or a `MagiError`."""
        video = self._videos.get(token)
        if video is None:
            raise MagiError("this video is no longer here: please make it again")
        video.seen = time.monotonic()
        return video

    def position(self, video: Video) -> int:
        """How many stand before a waiting video, itself included; 0 for any other."""
        waiting = [one for one in self._videos.values() if one.state == "waiting"]
        return waiting.index(video) + 1 if video in waiting else 0

    def counts(self) -> dict[str, int]:
        """How many wait and how many run. Callable from any thread."""
        states = [one.state for one in list(self._videos.values())]  # a copy: the event loop adds and removes videos
        return {"waiting": states.count("waiting"), "running": states.count("running")}

    def cancel(self, video: Video, reason: str = "cancelled") -> None:
        """Stop a video; what there is of it is kept."""
        if video.state not in OVER:
            self._worker.remove(video)
            self._end(video, "cancelled", reason)

    def wake(self) -> None:
        """From any thread: a video may go on."""
        self._worker.wake()

    def tell_ended(self, video: Video, state: str, reason: str = "") -> None:
        """From the worker's thread: a video is over."""
        self._loop.call_soon_threadsafe(self._end, video, state, reason)

    def _end(self, video: Video, state: str, reason: str) -> None:
        if video.state not in OVER:
            video.state, video.reason = state, reason
            video.seen = time.monotonic()
            self._advance()
        video.bell.ring()

    def _advance(self) -> None:
        """Let waiting videos run while there is room: first come, first served, but one of each visitor at a time, no
        more of an address than its share, and first of the address that has the fewest."""
        running = [one for one in self._videos.values() if one.state == "running"]
        while len(running) < self._limits.max_running:
            owners, addresses = {one.owner for one in running}, Counter(one.address for one in running)
            waiting = [
                one
                for one in self._videos.values()
                if one.state == "waiting"
                and one.owner not in owners
                and addresses[one.address] < self._limits.share(self._limits.max_running)
            ]
            if not waiting:
                break
            video = min(waiting, key=lambda one: addresses[one.address])
            video.state = "running"
            running.append(video)
            self._worker.add(video)
        for video in self._videos.values():
            if video.state in ("waiting", "running"):
                video.bell.ring()  # places in the queue have changed

    def sweep(self) -> None:
        """Stop what nobody follows, forget what nobody fetched."""
        now = time.monotonic()
        for video in list(self._videos.values()):
            unseen = 0.0 if video.watchers else now - video.seen
            if video.state not in OVER and unseen > self._limits.grace_seconds:
                self.cancel(video, "nobody was watching any more")
            elif video.state in OVER and unseen > self._limits.keep_seconds:
                self._forget(video)
        over = [one for one in self._videos.values() if one.state in OVER and not one.watchers]
        over.sort(key=lambda one: one.seen)
        while over and (len(over) > MAX_OVER or self._held() > self._limits.max_kept_mb * 10**6):
            most = Counter(one.address for one in over).most_common(1)[0][0]
            video = next(one for one in over if one.address == most)
            over.remove(video)
            self._forget(video)

    def _held(self) -> int:
        return sum(one.frames[0].nbytes * len(one.frames) for one in self._videos.values() if one.frames)

    def _forget(self, video: Video) -> None:
        del self._videos[video.token]
        shutil.rmtree(self._folder / video.token, ignore_errors=True)

    async def file(self, video: Video, name: str) -> Path:
        """A file of a finished video, written when it is first asked for.

        Raises:
            MagiError: there is no such file, the video is not over, or it has too few frames.
        """
        if name not in FILES:
            raise MagiError(f"no such file; there are {', '.join(FILES)}")
        if name not in video.status()["files"]:
            raise MagiError("the video is not finished")
        path = self._folder / video.token / name
        async with video.writing, self.writing:
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                try:
                    await asyncio.to_thread(FILES[name], path, tuple(video.frames), video.rate)
                except Exception:
                    path.unlink(missing_ok=True)
                    logging.getLogger(__name__).exception("a file could not be written")
                    raise MagiError("the file could not be written; the server's log says why") from None
        return path
