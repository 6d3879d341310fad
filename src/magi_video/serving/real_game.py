"""The real game beside the model: the same first frame, the same actions, its frames at the model's size."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from magi_video.errors import MagiError
from magi_video.installation import hide_address, install_command
from magi_video.recordings.procgen import PREFIX, idle_keys, install_procgen
from magi_video.video.image import fit_frames

logger = logging.getLogger(__name__)
MAX_GAMES, MAX_NAME = 16, 100


def known_games(training: Any) -> list[str]:
    """The games that a model has seen, and nothing else, as its recipe names them."""
    data = training.get("data") if isinstance(training, dict) else None
    games = data.get("games") if isinstance(data, dict) else None
    named = [name for name in games if isinstance(name, str)] if isinstance(games, list) else []
    return [name[:MAX_NAME] for name in named[:MAX_GAMES]]


def named_games(training: Any) -> list[str]:
    """Those of them whose packages are installed."""
    # A name with a colon would make Gymnasium import a module of the model's choice.
    return [name for name in known_games(training) if ":" not in name and _is_installed(name)]


def why_no_games(training: Any) -> str | None:
    """Why no real game can run beside a model, in words; None if one can."""
    if named_games(training):
        return None
    if not known_games(training):
        return "the model does not say which game it has seen"
    games = known_games(training)
    how = install_procgen() if all(map(_is_procgen, games)) else install_command("games")
    return f"{world_name(games)} is not installed here ({hide_address(how)})"


def idle_controls(training: Any) -> frozenset[str]:
    """The controls that do nothing in the games that a model has seen."""
    return idle_keys(known_games(training))


def world_name(games: list[str]) -> str | None:
    """What the page says that a model has seen: "Doom", "Boxing", "a and b"; None of a model without games."""
    names = dict.fromkeys("Doom" if game.lower().startswith("vizdoom/") else _short(game) for game in games)
    return " and ".join(names) or None


def _short(game: str) -> str:
    name = game.rpartition("/")[2].partition("-v")[0]
    return "CoinRun" if name.lower() == "coinrun" else name


def _is_procgen(game: str) -> bool:
    return game.lower().startswith(PREFIX)


def _is_installed(game: str) -> bool:
    packages = ["procgen"] if _is_procgen(game) else ["gymnasium"]
    if game.lower().startswith("vizdoom"):
        packages.append("vizdoom")
    if game.upper().startswith("ALE/"):
        packages.append("ale_py")
    return all(importlib.util.find_spec(package) is not None for package in packages)


class RealGame:
    """One running game. Opened in any thread, then used by one at a time.

    Args:
        game: as `magi record` calls it.
        frame_rate: of the frames wanted, in a second of game time: as many steps of the game as that takes, for each.
        height, width: of the model's frames in pixels.
        on_close: called once, when the game has ended.

    Raises:
        MagiError: the game cannot be started.
    """

    def __init__(
        self, game: str, frame_rate: float, height: int, width: int, on_close: Callable[[], None] = lambda: None
    ) -> None:
        from magi_video.recordings.environments import open_game

        self._size = (height, width)
        self._on_close = on_close
        try:
            self._game: Any = open_game(game)
            steps = round(self._game.frame_rate / frame_rate)
            if steps > 1:
                self._game.close()
                self._game = open_game(game, steps)
        except Exception as error:  # whatever a game raises; its own words may name folders
            logger.warning("%s: %s", game, error)
            raise MagiError("the real game could not be started here") from None
        self._names: tuple[str, ...] = self._game.actions.names

    def begin(self, seed: int) -> np.ndarray:
        """The first frame of an episode, uint8 [height, width, 3].

        Raises:
            MagiError: the game cannot be started.
        """
        return self._fitted(self._game.reset(seed))

    def step(self, names: Sequence[str], vector: np.ndarray | None) -> np.ndarray | None:
        """The frame that an action of the model, `vector` over `names`, leads to; None where the episode ends."""
        columns = np.zeros(len(self._names), np.float32)
        for column, name in enumerate(names):
            if vector is not None and name in self._names:
                columns[self._names.index(name)] = vector[column]
        frame = self._game.step(columns)
        return None if frame is None else self._fitted(frame)

    def close(self) -> None:
        """End the game."""
        if self._game is not None:
            with contextlib.suppress(Exception):
                self._game.close()
            self._game = None
            self._on_close()

    def _fitted(self, frame: np.ndarray) -> np.ndarray:
        return fit_frames(frame[None], *self._size)[0]
