"""A world that goes on frame by frame: the model's, and the real game beside it where there is one.

All of it runs in the worker's thread but `_show_all`, which runs in the thread that decodes beside it.

While a frame is decoded and encoded the next one may be predicted. Its action is asked for when it is begun, and it is
begun so that it need not wait for the decoder: no picture is later than if all was done in turns.

The latest frames are kept (`run.py`). To go on from one of them its past is read again, with the keys that were held,
and the noise goes on from where it was: the same keys lead to the same frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from magi_video.fast.beside import Beside, items_ahead
from magi_video.fast.threads import Pace
from magi_video.pipeline.inputs import spread_generator
from magi_video.serving.making import Making
from magi_video.serving.media import as_uint8, jpeg
from magi_video.serving.real_game import RealGame
from magi_video.serving.run import Lead, Run, RunFrame

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline

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
class Keys:
    """What is held when a frame is begun.

    Attributes:
        action: float32 [A]; None: nothing is known of it.
        number: of the latest message of keys that it is made with.
    """

    action: np.ndarray | None = None
    number: int = 0


@dataclass(frozen=True)
class Begun:
    """What is known of a frame when it is begun.

    Attributes:
        index: its number.
        keys: that it is made with.
        at: when, as `time.monotonic` tells it.
        kept: its place in the run; None where none is kept.
    """

    index: int
    keys: Keys
    at: float
    kept: RunFrame | None = None


class World:
    """The worlds of one player, one after another.

    Args:
        pipe: the model.
        names: of the columns of an action.
        ask: for the keys of the frame that is begun.
        tell: sends messages that belong together to the player; callable from any thread.
        wake: called in any thread when a frame may be due.
        pace: chooses the number of threads anew when the pace falls.
        run_frames: that are kept of the run; 0 for none.
        lead: what is read again before the run goes on from one of them.

    Attributes:
        game: what is played; None before the first.
        run: its latest frames.
        index: number of the next frame.
        confirmed: number of the latest frame that the page has shown; None where it says nothing of that.
    """

    def __init__(
        self,
        pipe: MagiVideoPipeline,
        names: tuple[str, ...],
        ask: Callable[[], Keys],
        tell: Callable[..., None],
        wake: Callable[[], None],
        pace: Pace,
        run_frames: int,
        lead: Lead,
    ) -> None:
        self.game: Game | None = None
        self.run = Run(run_frames, pipe.config.frame_rate)
        self.index = 0
        self.confirmed: int | None = None
        self._pipe, self._names, self._ask, self._tell, self._wake = pipe, names, ask, tell, wake
        self._pace, self._run_frames, self._lead = pace, run_frames, lead
        self._alone = False  # the real game, where there is one, stands still
        self._drawing = torch.Generator()
        self._given = 0  # frames of the world that are given
        self._read_again = 0  # frames that are known and have yet to become the past
        self._making: Making[Any, tuple[Tensor, Begun]] | None = None
        self._next_due = 0.0
        self._predict_seconds = 0.0
        self._keys = Keys()  # of the frame that was begun last
        self._decoder_free = 0.0  # when it probably is
        self._decode_seconds = 0.0  # of the latest frame, set by the thread that decodes

    def due(self) -> float:
        """When the next frame is, as `time.monotonic` tells it; infinity: not before something changes."""
        if self._making is None or (self.confirmed is not None and self.index - self.confirmed > MAX_UNSEEN):
            return math.inf
        if not self._making.works_beside:
            return self._next_due
        if not self._making.has_room:
            return math.inf
        return max(self._next_due, self._decoder_free - self._predict_seconds)

    def step(self) -> None:
        """One more frame, and one of the real game beside it; nothing where the world has come to its end."""
        if self._making is None:
            return
        if self._read_again:
            self._making.next()
            self._read_again -= 1
            return
        assert self.game is not None
        began, period = time.monotonic(), 1 / self.run.rate
        # A frame that came late may be followed at once by the next, but no more than one is made up for.
        self._next_due = max(self._next_due + period, began)
        made = self._making.next()
        if made is None:
            self._making.finish()
            self._making = None
            self._tell({"type": "ended", "frames": self.index})
            return
        begun = Begun(self.index, self._keys, began, self._keep(made) if self._run_frames else None)
        self._predict_seconds = time.monotonic() - began
        if self._making.works_beside:
            self._decoder_free = max(self._decoder_free, time.monotonic()) + self._decode_seconds
            self._making.put((made, begun))
        else:
            self._show(made, begun, began)
        self._pace.frame(time.monotonic() - began, period)
        if self.game.real_game is not None and self.index > 0 and not self._alone:
            self._step_real_game(self.game.real_game)
        self.index += 1

    def enter(self, game: Game) -> None:
        """Begin a world; the real game, where there is one, gives the first frame."""
        if game.keeps_real_game and game.real_game is None and self.game is not None:
            game.real_game, self.game.real_game = self.game.real_game, None
        self.leave()
        self.game = game
        arguments = dict(game.arguments)
        if game.real_game is not None:
            first = game.real_game.begin(game.seed)
            arguments = {name: value for name, value in arguments.items() if name != "video"} | {"image": first}
        self._given = len(arguments["video"]) if "video" in arguments else int("image" in arguments)
        (arguments["generator"],) = spread_generator(arguments.get("generator"), 1)
        rate = self._pipe.config.frame_rate / arguments["interval"]
        self.run = Run(self._run_frames, rate, self._lead.sink)
        self._alone = False
        stream = self._make_stream(arguments, [None] * max(self._given, 1))
        self._tell({"type": "begun", "rate": self.run.rate, "beside": game.real_game is not None})
        if game.real_game is not None:
            self._tell({"type": "frame", "source": "game", "index": 0}, jpeg(first))
        self._go_on(stream, arguments["generator"], 0)

    def branch(self, index: int) -> None:
        """Go on from a frame of the run, and drop what came after it; the real game stands still from then on.

        Raises:
            MagiError: that frame is not kept, or the model cannot go on from there; the world goes on as it was.
        """
        assert self.game is not None
        past = self.run.lead(index, self._lead)
        arguments = {name: one for name, one in self.game.arguments.items() if name not in ("image", "video")}
        arguments["latents"] = torch.stack([one.latents_BCHW for one in past], dim=1)
        drawing = torch.Generator()
        drawing.set_state(past[-1].draws)
        stream = self._make_stream(arguments | {"generator": drawing}, [one.action for one in past])
        if self._making is not None:
            self._making.finish()  # what was made is shown before
        self.run.cut(index)
        self._alone = True
        self._tell({"type": "branched", "index": index})
        self._go_on(stream, drawing, index + 1)
        self._read_again = len(past)

    def _make_stream(self, arguments: dict[str, Any], known: Sequence[np.ndarray | None]) -> Generator[Any]:
        """Frames from the given ones on, whose actions are known, then with the keys that are held."""
        if self._names:
            arguments = arguments | {"actions": self._actions(known)}
        output = "latent" if self._decodes_beside else "np"  # several at once are decoded, then shown at their pace
        made: Any = self._pipe.stream(**arguments | {"generator": [arguments["generator"]]}, output_type=output)
        return made

    @property
    def _decodes_beside(self) -> bool:
        return self._pipe.codec.temporal_factor == 1

    def _go_on(self, stream: Generator[Any], drawing: torch.Generator, index: int) -> None:
        """Show a stream, with its noise from `drawing`, whose next frame is the one of this number."""
        self._drawing, self._keys = drawing, Keys()
        ahead = items_ahead(self._pipe.device)
        self._making = Making(stream, Beside(self._show_all, ahead, self._wake) if self._decodes_beside else None)
        self.index, self.confirmed, self._read_again = index, None, 0
        self._next_due = time.monotonic()

    def _keep(self, latents_BCHW: Tensor) -> RunFrame:
        """Put a new frame into the run."""
        given = self.index < self._given
        frame = RunFrame(latents_BCHW.clone(), self._keys.action, self._drawing.get_state(), given)
        self.run.add(frame)
        return frame

    def _show_all(self, made: Iterator[tuple[Tensor, Begun]]) -> None:
        """Decode and show latent frames as they come: the work beside the prediction of the next one."""
        begun, taken = Begun(0, Keys(), 0.0), 0.0

        def latents() -> Iterator[Tensor]:
            nonlocal begun, taken
            for latents_BCHW, begun in made:  # noqa: B007
                taken = time.monotonic()
                yield latents_BCHW

        for frame_BHWC in self._pipe.decode_stream(latents()):
            self._show(frame_BHWC, begun, taken)

    def _show(self, frame_BHWC: np.ndarray, begun: Begun, decoding_since: float) -> None:
        """Send a frame."""
        picture = as_uint8(frame_BHWC)
        if begun.kept is not None:
            begun.kept.picture = picture
        encoded = jpeg(picture)
        now = time.monotonic()
        self._decode_seconds = now - decoding_since
        header = {"type": "frame", "source": "model", "index": begun.index, "keys": begun.keys.number}
        self._tell(header | {"ms": round(1000 * (now - begun.at), 2)}, encoded)

    def leave(self) -> None:
        """End the world."""
        if self._making is not None:
            self._making.close()
            self._making = None
        if self.game is not None and self.game.real_game is not None:
            self.game.real_game.close()
        self.game = None

    def settle(self) -> None:
        """After an error: let what was made be shown."""
        if self._making is not None:
            self._making.settle()

    def _actions(self, known: Sequence[np.ndarray | None]) -> Iterator[np.ndarray | None]:
        """What is held, asked anew when each frame is begun, after what is known of the given frames."""
        yield from known
        while True:
            self._keys = self._ask()
            yield self._keys.action

    def _step_real_game(self, real_game: RealGame) -> None:
        assert self.game is not None
        frame = real_game.step(self._names, self._keys.action)
        if frame is None:  # the episode is over: both begin the next one
            assert self._making is not None
            self._making.finish()
            self._tell({"type": "episode"})
            self.enter(Game(self.game.arguments, keeps_real_game=True, seed=self.game.seed + 1))
            self.index = -1  # it is counted up at the end of the step
            return
        self._tell({"type": "frame", "source": "game", "index": self.index}, jpeg(frame))
