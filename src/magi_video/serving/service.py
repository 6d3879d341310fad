"""What the routes of the page share: the model, its videos, players and uploads."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

from magi_video.fast.threads import Pace
from magi_video.models.architecture import TEXT
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.sampling import SPEEDS, Sampling
from magi_video.serving.limits import ServingLimits
from magi_video.serving.players import Players
from magi_video.serving.reading import UploadReaders
from magi_video.serving.real_game import known_games, named_games, why_no_games, world_name
from magi_video.serving.requests import MAX_TEXT, FirstFrame
from magi_video.serving.run import write_run
from magi_video.serving.trailer import Trailer
from magi_video.serving.uploads import Uploads
from magi_video.serving.videos import BusyError, VideoDesk
from magi_video.serving.visitors import Places
from magi_video.serving.worker import Worker

UPLOADS_AT_ONCE = 4
SWEEP_SECONDS = 1.0
CALM_RATE, SMOOTH_RATE = 17.5, 35.0
"""Frames/s of a world with actions, about: of a video, and of a game where the machine keeps up with it."""
SPARE = 1.25
"""How many times as quick as it must be a machine is to count as one that keeps up."""


class Service:
    """What the routes share; made when the server starts, since much of it belongs to the running event loop."""

    def __init__(
        self,
        pipe: MagiVideoPipeline,
        first_frames: list[FirstFrame],
        limits: ServingLimits,
        folder: Path,
        text_problem: str | None = None,
        pace: Pace | None = None,
        seconds: float | None = None,
    ) -> None:
        self.pipe, self.first_frames, self.limits, self.folder = pipe, first_frames, limits, folder
        self.text_problem, self._seconds = text_problem, seconds
        self.games = named_games(pipe.config.training)
        self.worker = Worker()
        self.uploads = Uploads(limits)
        self.videos = VideoDesk(pipe, self.worker, limits, folder)
        self.players = Players(pipe, self.worker, limits, pace)
        self.receiving = Places(UPLOADS_AT_ONCE, limits.share(UPLOADS_AT_ONCE), "others are uploading just now")
        self.readers = UploadReaders()
        self._trailer: Trailer | None = None
        self.game_places = Places(limits.max_games, limits.max_games, "too many real games are running")

    def describe(self, name: str) -> dict[str, Any]:
        """What the page must know of the model."""
        config, limits = self.pipe.config, self.limits
        largest = self.pipe.transformer.config.max_interval
        endless = self.pipe.transformer.config.temporal_position == "rope"
        return {
            "model": name,
            "height": config.height,
            "width": config.width,
            "frame_rate": config.frame_rate,
            "max_interval": largest,
            "interval": self.interval,
            "played_interval": self.played_interval,
            "speeds": list(SPEEDS),
            "controls": [vars(one) for one in self.players.controls.controls],
            "actions": list(config.action_names),
            "classes": list(config.class_names),
            "text": TEXT in self.pipe.transformer.condition_tokens.specs,
            "text_problem": self.text_problem,
            "max_text": MAX_TEXT,
            "first_frames": [frame.title for frame in self.first_frames],
            "endless": endless,
            "games": self.games,
            "games_problem": why_no_games(config.training) if config.action_names else None,
            "world": world_name(known_games(config.training)),
            "window": (self.pipe.transformer.config.num_frames - 1) * self.pipe.codec.temporal_factor
            if endless
            else None,
            "device": str(self.pipe.device),
            "max_frames": limits.max_frames,
            "max_clip_frames": limits.max_clip_frames,
            "max_upload_mb": limits.max_upload_mb,
            "run_frames": self.players.run_frames,
            "idle_seconds": limits.idle_seconds,
        }

    async def save_run(self, token: str, model: str) -> Path:
        """A player's run as a ZIP file (`write_run`), which the caller removes.

        Args:
            token: of the player's place.
            model: by which name the page calls it.

        Raises:
            BusyError: this run is being written already.
            MagiError: there is no such place, or nothing to save.
        """
        player = self.players.find(token)
        if player.saving:
            raise BusyError("this run is being saved already")
        run, names = player.world.run, self.players.controls.names  # read once: the worker may begin another world
        frames = run.recorded()
        path = self.folder / f"run-{secrets.token_hex(16)}.zip"
        player.saving = True
        try:
            async with self.videos.writing:
                await asyncio.to_thread(write_run, path, frames, names, run.rate, model)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            player.saving = False
        return path

    def trailer(self) -> Trailer | None:
        """The film that the page begins with, begun when it is first asked for; None where there is none to be had."""
        if self._trailer is None and self.players.run_frames and self.players.controls.controls and self.first_frames:
            arguments = {"interval": self.interval, "sampling": Sampling.of("realtime")}
            first = self.first_frames[0].frame
            self._trailer = Trailer(self.pipe, self.players.controls, first, arguments, self._is_quiet)
            self.worker.add(self._trailer)
        return self._trailer

    def _is_quiet(self) -> bool:
        return not len(self.players) and not any(self.videos.counts().values())

    @property
    def interval(self) -> int:
        """At which a video begins, and a game where nothing is known of the machine."""
        return self._interval_of(CALM_RATE) if self.pipe.config.action_names else 1

    @property
    def played_interval(self) -> int:
        """At which a game begins: that of the smoothest pace that the machine keeps up with."""
        rate = self.pipe.config.frame_rate
        if not self.pipe.config.action_names or self._seconds is None:
            return self.interval
        choices = range(self._interval_of(SMOOTH_RATE), self.interval)
        return next((one for one in choices if SPARE * self._seconds <= one / rate), self.interval)

    def _interval_of(self, rate: float) -> int:
        config, largest = self.pipe.config, self.pipe.transformer.config.max_interval
        return min(max(1, round(config.frame_rate / rate)), largest)

    async def sweep_forever(self) -> None:
        """Give up what nobody uses any more."""
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self.limits.grace_seconds / 4))
            self.videos.sweep()
            self.players.sweep()
            self.uploads.sweep()
