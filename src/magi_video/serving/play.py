"""Playing: a world that goes on frame by frame while keys are held.

`Player.due`, `step`, `fail` and `close` run in the worker's thread, `_show_all` in the thread that decodes beside it,
everything else in the event loop; what several touch is behind the player's lock.

While a frame is decoded and encoded the next one may be predicted. Its action is asked for when it is begun, and it is
begun so that it need not wait for the decoder: no picture is later than if all was done in turns.
"""

from __future__ import annotations

import itertools
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor
from typing_extensions import override

from magi_video.fast.beside import Beside, items_ahead
from magi_video.fast.threads import Pace
from magi_video.serving.keys import Controls
from magi_video.serving.limits import ServingLimits
from magi_video.serving.media import as_uint8, jpeg
from magi_video.serving.notify import Bell
from magi_video.serving.real_game import RealGame
from magi_video.serving.videos import BusyError
from magi_video.serving.worker import Task, Worker

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline

MAX_UNSENT = 4
"""Messages that may wait for a slow connection before the world waits for it."""
MAX_KEPT = 64
"""Messages that may wait at all; the oldest are dropped."""
MAX_UNSEEN = 12
"""Frames that may be under way to a page that confirms what it has shown."""
Message = dict[str, Any] | bytes


@dataclass
class Game:
    """What is played: one world from its first frame on.

    Attributes:
        arguments: of `MagiVideoPipeline.stream`.
        real_game: the real game beside it, which gives the first frame.
        keeps_real_game: the real game goes on that ran beside the world before.
        seed: of the real game's episode.
    """

    arguments: dict[str, Any]
    real_game: RealGame | None = None
    keeps_real_game: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Begun:
    """What is known of a frame when it is begun.

    Attributes:
        index: its number.
        keys: number of the latest message of keys that it is made with.
        at: when, as `time.monotonic` tells it.
    """

    index: int
    keys: int
    at: float


class Player(Task):
    """One player's place. A dropped connection pauses it; coming back with its token goes on.

    Attributes:
        token: random; who knows it may come back.
        address: whom the place counts for.
        connection: the one that listens now; None without one.
        touched: when a key was last heard of.
    """

    def __init__(
        self,
        pipe: MagiVideoPipeline,
        controls: Controls,
        worker: Worker,
        address: str = "",
        pace: Pace | None = None,
    ) -> None:
        self.token = secrets.token_urlsafe(16)
        self.address = address
        self.connection: object | None = None
        self.touched = self.left = time.monotonic()
        self.bell = Bell()
        self.ended = False
        self._pipe, self._controls, self._worker = pipe, controls, worker
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        self._outbox: deque[tuple[Message, ...]] = deque(maxlen=MAX_KEPT)
        self._held: frozenset[str] = frozenset()
        self._tapped: set[str] = set()
        self._sequence = 0
        self._paused = False
        self._wanted: Game | None = None
        self._confirmed: int | None = None
        # The worker's own:
        self._game: Game | None = None
        self._stream: Generator[Tensor] | Generator[np.ndarray] | None = None
        self._beside: Beside[tuple[Tensor, Begun]] | None = None
        self._index = 0
        self._next_due = 0.0
        self._predict_seconds = 0.0
        self._used_sequence = 0
        self._used_action: np.ndarray | None = None
        self._decoder_free = 0.0  # when it probably is
        self._decode_seconds = 0.0  # of the latest frame, set by the thread that decodes

    # --- the event loop's side ------------------------------------------------------------------------------------

    def begin(self, game: Game) -> None:
        """Leave the present world for this one."""
        with self._lock:
            dropped = game if self.ended else self._wanted
            if not self.ended:
                self._wanted = game
            self._paused = False
            self._held, self._tapped = frozenset(), set()
            if dropped is not None and dropped is not game and game.keeps_real_game:
                game.real_game, dropped.real_game = dropped.real_game, None
        if dropped is not None and dropped.real_game is not None:
            dropped.real_game.close()
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
        self._confirmed = index
        self._worker.wake()

    def attach(self, connection: object) -> None:
        """Someone listens from now on; what nobody heard is dropped."""
        with self._lock:
            self.connection = connection
            self._confirmed = None
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
            if self._wanted is not None:
                return now
            if self._paused or self._stream is None:
                return math.inf
        if self._confirmed is not None and self._index - self._confirmed > MAX_UNSEEN:
            return math.inf
        if self._beside is None:
            return self._next_due
        if not self._beside.has_room:
            return math.inf
        return max(self._next_due, self._decoder_free - self._predict_seconds)

    @override
    def step(self) -> bool:
        """One more frame of the world, and of the real game beside it."""
        with self._lock:
            wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self._enter(wanted)
        assert self._game is not None and self._stream is not None
        began = time.monotonic()
        period = self._game.arguments["interval"] / self._pipe.config.frame_rate
        # A frame that came late may be followed at once by the next, but no more than one is made up for.
        self._next_due = max(self._next_due + period, began)
        made = next(self._stream, None)
        if made is None:
            if self._beside is not None:
                self._beside.finish()
            self._stream = None
            self.tell({"type": "ended", "frames": self._index})
            return True
        begun = Begun(self._index, self._used_sequence, began)
        self._predict_seconds = time.monotonic() - began
        if self._beside is None:
            self._show(cast(np.ndarray, made), begun, began)
        else:
            self._decoder_free = max(self._decoder_free, time.monotonic()) + self._decode_seconds
            self._beside.put((cast(Tensor, made), begun))
        self._pace.frame(time.monotonic() - began, period)
        if self._game.real_game is not None and self._index > 0:
            self._step_real_game(self._game.real_game)
        self._index += 1
        return True

    @override
    def fail(self, reason: str) -> None:
        """Tell why the world ended, after the frames that were made."""
        if self._beside is not None:
            self._beside.settle()
        self.ended = True
        self.tell({"type": "error", "error": reason})

    @override
    def close(self) -> None:
        """Free what the world holds."""
        self._leave()
        with self._lock:
            self.ended = True
            wanted, self._wanted = self._wanted, None
        if wanted is not None and wanted.real_game is not None:
            wanted.real_game.close()
        self.bell.ring()

    def _enter(self, game: Game) -> None:
        """Begin a world; the real game, where there is one, gives the first frame."""
        if game.keeps_real_game and game.real_game is None and self._game is not None:
            game.real_game, self._game.real_game = self._game.real_game, None
        self._leave()
        self._game = game
        arguments = dict(game.arguments)
        if game.real_game is not None:
            first = game.real_game.begin(game.seed)
            arguments = {name: value for name, value in arguments.items() if name != "video"} | {"image": first}
            self.tell({"type": "frame", "source": "game", "index": 0}, jpeg(first))
        given = len(arguments["video"]) if "video" in arguments else int("image" in arguments)
        if self._controls.names:
            arguments["actions"] = self._actions(given)
        if self._pipe.codec.temporal_factor == 1:
            self._stream = cast(Generator[Tensor], self._pipe.stream(**arguments, output_type="latent"))
            self._beside = Beside(self._show_all, items_ahead(self._pipe.device), self._worker.wake)
        else:  # several frames are decoded at once, and then shown at their pace
            self._stream = cast(Generator[np.ndarray], self._pipe.stream(**arguments))
        self._index, self._confirmed = 0, None
        self._next_due = time.monotonic()

    def _show_all(self, made: Iterator[tuple[Tensor, Begun]]) -> None:
        """Decode and show latent frames as they come: the work beside the prediction of the next one."""
        begun, taken = Begun(0, 0, 0.0), 0.0

        def latents() -> Iterator[Tensor]:
            nonlocal begun, taken
            for latents_BCHW, begun in made:  # noqa: B007
                taken = time.monotonic()
                yield latents_BCHW

        for frame_BHWC in self._pipe.decode_stream(latents()):
            self._show(frame_BHWC, begun, taken)

    def _show(self, frame_BHWC: np.ndarray, begun: Begun, decoding_since: float) -> None:
        """Send a frame."""
        encoded = jpeg(as_uint8(frame_BHWC))
        now = time.monotonic()
        self._decode_seconds = now - decoding_since
        header = {"type": "frame", "source": "model", "index": begun.index, "keys": begun.keys}
        self.tell(header | {"ms": round(1000 * (now - begun.at), 2)}, encoded)

    def _leave(self) -> None:
        if self._beside is not None:
            self._beside.close()
            self._beside = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._game is not None and self._game.real_game is not None:
            self._game.real_game.close()
        self._game = None

    def _actions(self, given: int) -> Iterator[np.ndarray | None]:
        """What is held, asked anew when each frame is begun; nothing is known of the given frames."""
        yield from itertools.repeat(None, max(given, 1))
        while True:
            with self._lock:
                held, self._tapped = self._held | self._tapped, set()
                self._used_sequence = self._sequence
            self._used_action = self._controls.action(held)
            yield self._used_action

    def _step_real_game(self, real_game: RealGame) -> None:
        assert self._game is not None
        frame = real_game.step(self._controls.names, self._used_action)
        if frame is None:  # the episode is over: both begin the next one
            if self._beside is not None:
                self._beside.finish()
            self.tell({"type": "episode"})
            self._enter(Game(self._game.arguments, keeps_real_game=True, seed=self._game.seed + 1))
            self._index = -1  # it is counted up at the end of the step
            return
        self.tell({"type": "frame", "source": "game", "index": self._index}, jpeg(frame))


class Players:
    """Everybody who plays.

    Args:
        pipe: the model.
        worker: its thread.
        limits: see there.
        pace: chooses the number of threads anew when the players' pace falls; it stays if not given.
    """

    def __init__(
        self, pipe: MagiVideoPipeline, worker: Worker, limits: ServingLimits, pace: Pace | None = None
    ) -> None:
        self.pace = pace or Pace()
        self.controls = Controls(pipe.config.action_names)
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
        player = Player(self._pipe, self.controls, self._worker, address, self.pace)
        self._players[player.token] = player
        self._worker.add(player)
        return player, False

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
