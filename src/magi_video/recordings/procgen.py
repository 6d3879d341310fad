"""Procgen's games (`procgen/coinrun` and fifteen others, 64×64) as a source of frames; the package is `procgen2`.

Levels are numbered and made from their number alone, 2³¹ of them, so recordings of different seeds are of different
levels: train on one, test on another. An episode is one level, from its start until the player dies, reaches the end,
or the recording has enough.

The package has a wheel for Python 3.11 on 64-bit x86 Linux only, and asks for NumPy 1, with which nothing else here
works; it runs with NumPy 2 too if it is installed without what it asks for (`install_procgen`).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.installation import install_command
from magi_video.recordings.environments import Game
from magi_video.recordings.policy import HOLD_TICS, Actions

FRAMES_PER_SECOND = 15.0
"""At which Procgen shows its games to people."""
PREFIX = "procgen/"
PLATFORMS = ("coinrun", "jumper", "ninja")
"""Games in which a player runs and jumps, and sees little of a level unless he goes on to the right."""
IDLE_KEYS = {"coinrun": frozenset("DAWSQE"), "jumper": frozenset("DAWSQE")}
"""Of the keys, those that do nothing in a game."""
PLATFORM_HOLD = (3, 16)
"""There, steps for which keys are held: a fifth of a second to a second. A jump in CoinRun takes a second, so most keys
change in the air or soon after it."""


def install_procgen() -> str:
    """The shell command that installs Procgen here."""
    return install_command("procgen", bare="procgen2 gym3 gym")


class ProcgenGame(Game):
    """One Procgen game; its 15 actions are combinations of keys, one of which is held in each frame.

    Args:
        name: such as `procgen/coinrun`.
        frame_skip: steps of the game for one recorded frame; the action is repeated.

    Raises:
        MagiError: the package is not installed, or no game has this name.
    """

    def __init__(self, name: str, frame_skip: int) -> None:
        self._procgen = load()
        self._name = known_game(name.partition("/")[2], self._procgen.env.ENV_NAMES)
        self._repeats, self.frame_rate = frame_skip, FRAMES_PER_SECOND / frame_skip
        self._env: Any = self._level(0)
        self._nothing = next(number for number, keys in enumerate(self._env.combos) if not keys)
        names = tuple("+".join(keys) or "NOTHING" for keys in self._env.combos)
        hold = PLATFORM_HOLD if self._name in PLATFORMS else HOLD_TICS
        self.actions = Actions(names, "choice", brief=True, weights=weights_of(self._name, names), hold=hold)

    def _level(self, number: int) -> Any:
        return self._procgen.ProcgenGym3Env(
            num=1, env_name=self._name, start_level=number, num_levels=1, distribution_mode="easy", rand_seed=number,
            num_threads=0,
        )  # fmt: skip

    @override
    def reset(self, seed: int) -> np.ndarray:
        """Begins the level of that number; its first frame, uint8 [64, 64, 3]."""
        self._env.close()
        self._env = self._level(seed % 2**31)
        return self._observe()[0]

    @override
    def step(self, vector: np.ndarray) -> np.ndarray | None:
        """Holds the keys of an action, float32 [15], none for zeros; the frame it leads to, or None where the level is
        over."""
        action = int(np.argmax(vector)) if vector.any() else self._nothing
        for _ in range(self._repeats):
            self._env.act(np.array([action], dtype=np.int32))
            frame, over = self._observe()
            if over:
                return None
        return frame

    def _observe(self) -> tuple[np.ndarray, bool]:
        _, observation, first = self._env.observe()
        return observation["rgb"][0].copy(), bool(first[0])

    @override
    def close(self) -> None:
        """Ends the game."""
        self._env.close()


def weights_of(game: str, names: Sequence[str]) -> tuple[float, ...]:
    """How often the explorer holds each action of a game; empty where all alike.

    Where a player runs and jumps: three fifths of the time to the right and a fifth to the left, with a jump as often
    as without, and a tenth with no key at all. Keys that do nothing there are pressed seldom.
    """
    if game not in PLATFORMS:
        return ()
    wanted = {"RIGHT": 4.0, "RIGHT+UP": 5.0, "LEFT": 1.5, "LEFT+UP": 1.5, "UP": 1.0, "NOTHING": 1.5}
    return tuple(wanted.get(name, 0.1) for name in names)


def idle_keys(games: Sequence[str]) -> frozenset[str]:
    """The keys that do nothing in any of these games, named as `magi record` names them."""
    idle = [IDLE_KEYS.get(game.lower().removeprefix(PREFIX), frozenset()) for game in games]
    return frozenset.intersection(*idle) if idle else frozenset()


def load() -> Any:
    """The package, without the advertisement that its own dependency prints when it is imported."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module("procgen")
    except ImportError as error:
        lacks = "" if error.name in (None, "procgen") else f" (it lacks {error.name})"
        fits = sys.version_info[:2] == (3, 11) and sys.platform == "linux"
        where = "" if fits else "; there is a wheel for Python 3.11 on Linux only"
        raise MagiError(f"Procgen is not installed{lacks}{where}: {install_procgen()}") from error


def known_game(name: str, known: list[str]) -> str:
    """One of the package's games, whatever the case."""
    if name.lower() in known:
        return name.lower()
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.3)
    hint = f"; similar: {', '.join(PREFIX + one for one in close)}" if close else ""
    raise MagiError(f"no game of Procgen is called {name!r}{hint}; known: {', '.join(known)}")
