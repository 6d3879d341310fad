"""Everybody who plays: places, and who may have one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from magi_video.errors import MagiError
from magi_video.fast.threads import Pace
from magi_video.serving.keys import Controls
from magi_video.serving.limits import ServingLimits
from magi_video.serving.play import Player
from magi_video.serving.real_game import idle_controls
from magi_video.serving.run import find_lead, run_length
from magi_video.serving.videos import BusyError
from magi_video.serving.worker import Worker

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline


class Players:
    """Everybody who plays.

    Args:
        pipe: the model.
        worker: its thread.
        limits: see there.
        pace: chooses the number of threads anew when the players' pace falls; it stays if not given.

    Attributes:
        run_frames: that are kept of each player's run; 0: none.
    """

    def __init__(
        self, pipe: MagiVideoPipeline, worker: Worker, limits: ServingLimits, pace: Pace | None = None
    ) -> None:
        self.pace = pace or Pace()
        self.controls = Controls(pipe.config.action_names, idle_controls(pipe.config.training))
        self.run_frames, self._lead = run_length(pipe, limits), find_lead(pipe)
        self._pipe, self._worker, self._limits = pipe, worker, limits
        self._players: dict[str, Player] = {}

    def __len__(self) -> int:
        return len(self._players)

    def enter(self, token: str | None, address: str) -> tuple[Player, bool]:
        """The place of that token, or a new one; and whether it is an old one.

        Raises:
            BusyError: all places are taken, or enough of them from this address.
        """
        if token is not None and token in self._players:
            return self._players[token], True
        if len(self._players) >= self._limits.max_players:
            raise BusyError(f"{len(self._players)} people are playing already: please try again in a minute")
        ours = sum(player.address == address for player in self._players.values())
        if ours >= self._limits.share(self._limits.max_players):
            raise BusyError(f"{ours} people are playing from your address already: please try again in a minute")
        player = Player(self._pipe, self.controls, self._worker, address, self.pace, self.run_frames, self._lead)
        self._players[player.token] = player
        self._worker.add(player)
        return player, False

    def find(self, token: str) -> Player:
        """The place of that token, or a `MagiError`."""
        if token not in self._players:
            raise MagiError("this run is no longer here")
        return self._players[token]

    def leave(self, player: Player) -> None:
        """Give up a place."""
        if self._players.pop(player.token, None) is not None:
            player.ended = True
            self._worker.remove(player)

    def sweep(self) -> None:
        """Give up the places of those who left, or have not touched a key for long."""
        now = time.monotonic()
        for player in list(self._players.values()):
            if player.ended or (player.connection is None and now - player.left > self._limits.grace_seconds):
                self.leave(player)
            elif now - player.touched > self._limits.idle_seconds:
                player.tell({"type": "closed", "reason": "idle"})
                self.leave(player)
