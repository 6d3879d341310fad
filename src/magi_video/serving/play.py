"""A player's place: what a connection says and hears, and the world that it steers.

`Player.due`, `step`, `fail` and `close` run in the worker's thread, everything else in the event loop; what both touch
is behind the player's lock.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.fast.threads import Pace
from magi_video.serving.errors import public_message
from magi_video.serving.keys import Controls
from magi_video.serving.notify import Bell
from magi_video.serving.run import Lead
from magi_video.serving.worker import Task, Worker
from magi_video.serving.world import Game, Keys, Message, World

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline

MAX_UNSENT = 4
"""Messages that may wait for a slow connection before the world waits for it."""
MAX_KEPT = 64
"""Messages that may wait at all; the oldest are dropped."""


class Player(Task):
    """One player's place. A dropped connection pauses it; coming back with its token goes on.

    Args:
        pipe: the model.
        controls: of its actions.
        worker: its thread.
        address: of the player.
        pace: chooses the number of threads anew; it stays if not given.
        run_frames: that are kept of the run; 0 for none.
        lead: what is read again before the run goes on from one of them.

    Attributes:
        token: random; who knows it may come back.
        address: the visitor's, which the place counts for.
        connection: the one that listens now; None without one.
        touched: when a key was last heard of.
        world: what is played.
        saving: the run is being written to a file.
    """

    def __init__(
        self,
        pipe: MagiVideoPipeline,
        controls: Controls,
        worker: Worker,
        address: str = "",
        pace: Pace | None = None,
        run_frames: int = 0,
        lead: Lead | None = None,
    ) -> None:
        self.token = secrets.token_urlsafe(16)
        self.address = address
        self.connection: object | None = None
        self.touched = self.left = time.monotonic()
        self.bell = Bell()
        self.ended = self.saving = False
        self._controls, self._worker = controls, worker
        self._lock = threading.Lock()
        self._outbox: deque[tuple[Message, ...]] = deque(maxlen=MAX_KEPT)
        self._held: frozenset[str] = frozenset()
        self._tapped: set[str] = set()
        self._sequence = 0
        self._paused = False
        self._wanted: Game | None = None
        self._wanted_frame: int | None = None  # of the run, to go on from
        self.world = World(  # the worker's own
            pipe, controls.names, self._take_keys, self.tell, worker.wake, pace or Pace(), run_frames, lead or Lead()
        )

    # --- the event loop's side ------------------------------------------------------------------------------------

    def begin(self, game: Game) -> None:
        """Leave the present world for this one."""
        with self._lock:
            dropped = game if self.ended else self._wanted
            if not self.ended:
                self._wanted, self._wanted_frame = game, None
            self._paused = False
            self._held, self._tapped = frozenset(), set()
            if dropped is not None and dropped is not game and game.keeps_real_game:
                game.real_game, dropped.real_game = dropped.real_game, None
        if dropped is not None and dropped.real_game is not None:
            dropped.real_game.close()
        self.touched = time.monotonic()
        self._worker.wake()

    def go_back(self, index: int) -> None:
        """Go on from a frame of the run; what came after it is dropped."""
        with self._lock:
            if self._wanted is None:
                self._wanted_frame = index
            self._paused = False
        self.touched = time.monotonic()
        self._worker.wake()

    def hold(self, names: Collection[str], sequence: int) -> None:
        """These controls are held from now on; one that is let go before the next frame still counts for it."""
        known = frozenset(one.name for one in self._controls.controls if one.name in names)
        with self._lock:
            self._tapped |= known - self._held
            self._held = known
            self._sequence = sequence
        self.touched = time.monotonic()

    def pause(self, paused: bool) -> None:
        """Stand still, or go on."""
        with self._lock:
            self._paused = paused
        self._worker.wake()

    def confirm(self, index: int) -> None:
        """The page has shown the model's frame of this number."""
        self.world.confirmed = index
        self._worker.wake()

    def attach(self, connection: object) -> None:
        """Someone listens from now on; what nobody heard is dropped."""
        with self._lock:
            self.connection = connection
            self.world.confirmed = None
            self._held, self._tapped = frozenset(), set()
            lasting = [one for one in self._outbox if len(one) == 1]  # all but frames, which have a picture
            self._outbox.clear()
            self._outbox.extend(lasting)
        self.touched = time.monotonic()
        self._worker.wake()

    def detach(self, connection: object) -> None:
        """That one has left, unless another has taken its place."""
        if self.connection is connection:
            self.connection = None
            self.left = time.monotonic()

    def messages(self) -> list[Message]:
        """What there is to send; it counts as sent."""
        with self._lock:
            messages = [part for one in self._outbox for part in one]
            self._outbox.clear()
        if messages:
            self._worker.wake()
        return messages

    def tell(self, *messages: Message) -> None:
        """Send something, what belongs together at once; callable from any thread."""
        with self._lock:
            self._outbox.append(messages)
        self.bell.ring()

    # --- the worker's side ----------------------------------------------------------------------------------------

    @override
    def due(self, now: float) -> float:
        """When the world's own pace says, unless it is paused, over, or nobody keeps up with it."""
        with self._lock:
            if self.connection is None or len(self._outbox) > MAX_UNSENT:
                return math.inf
            if self._wanted is not None or (self._wanted_frame is not None and self.world.game is not None):
                return now
            if self._paused:
                return math.inf
        return self.world.due()

    @override
    def step(self) -> bool:
        """One more frame of the world that is wanted."""
        with self._lock:
            wanted, self._wanted = self._wanted, None
            frame, self._wanted_frame = self._wanted_frame, None
        if wanted is not None:
            self.world.enter(wanted)
        elif frame is not None:
            try:
                self.world.branch(frame)
            except MagiError as error:
                self.tell({"type": "error", "error": public_message(error)})
                return True
        self.world.step()
        return True

    @override
    def fail(self, reason: str) -> None:
        """Tell why the world ended, after the frames that were made."""
        self.world.settle()
        self.ended = True
        self.tell({"type": "error", "error": reason})

    @override
    def close(self) -> None:
        """Free what the world holds."""
        self.world.leave()
        with self._lock:
            self.ended = True
            wanted, self._wanted = self._wanted, None
        if wanted is not None and wanted.real_game is not None:
            wanted.real_game.close()
        self.bell.ring()

    def _take_keys(self) -> Keys:
        """What is held, and what was tapped since this was last asked."""
        with self._lock:
            held, self._tapped = self._held | self._tapped, set()
            return Keys(self._controls.action(held), self._sequence)
