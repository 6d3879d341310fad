"""Games as a source of frames: ViZDoom scenarios, Atari, or any registered Gymnasium environment that shows RGB
pictures.

`open_game` gives them one face: an action vector in, a frame out. A game package is imported only when one of its
games is named. To add a family of games, subclass `Game` and name it in `open_game`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.files.artifact import Record
from magi_video.installation import install_command
from magi_video.recordings.policy import Actions, Place, Surroundings

DOOM_TICS_PER_SECOND = 35.0
ATARI_FRAMES_PER_SECOND = 60.0
DOOM_ARM = 64.0  # units of a map: how far a Doom player reaches
DOOM_NEAR = 5.0  # in the units of Doom's depth buffer: a wall this near fills most of the view
MAX_AXIS = 1.0  # an axis without finite bounds is drawn from [-1, 1]


class Game:
    """One running environment.

    Attributes:
        actions: the columns of the action vector.
        frame_rate: recorded frames per second of game time.
    """

    actions: Actions
    frame_rate: float

    def __init__(self, env: Any, frame_rate: float, frame_skip: int, repeats: int) -> None:
        self._env = env
        self._repeats = repeats  # steps of the environment for one recorded frame, where it does not skip by itself
        self.frame_rate = frame_rate / frame_skip
        self.actions = self._describe_actions(env.action_space)

    def reset(self, seed: int) -> np.ndarray:
        """Begins an episode; its first frame, uint8 [H, W, 3]."""
        try:
            observation, _ = self._env.reset(seed=seed)
            return self._picture(observation)
        except MagiError:
            raise
        except Exception as error:  # a missing asset or package may only be noticed here
            raise _not_started(self._env.spec.id, error) from error

    def step(self, vector: np.ndarray) -> np.ndarray | None:
        """Takes an action, float32 [A]; the frame it leads to, or None where it ends the episode."""
        action = self._to_env(vector)
        for _ in range(self._repeats):
            observation, _, terminated, truncated, _ = self._env.step(action)
            if terminated or truncated:
                return None
        return self._picture(observation)

    def around(self) -> Surroundings | None:
        """How far the way is free, and where the player is; None where the game does not know."""
        return None

    def caption(self) -> str | None:
        """What the episode shows, in words; None where the game has none for it."""
        return None

    def facts(self) -> Record:
        """What a recording's record says of the game besides its actions and its frame rate."""
        return {}

    def close(self) -> None:
        """Ends the environment and removes what it left on disk."""
        self._env.close()

    def _picture(self, observation: Any) -> np.ndarray:
        frame = self._env.render() if self._env.render_mode == "rgb_array" else observation
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise MagiError(f"{self._env.spec.id} does not show RGB pictures; expected uint8 [height, width, 3]")
        return frame

    def _describe_actions(self, space: Any) -> Actions:
        from gymnasium import spaces

        if isinstance(space, spaces.Discrete):
            return Actions(tuple(f"action_{i}" for i in range(int(space.n))), "choice", brief=True)
        if isinstance(space, spaces.MultiBinary) and isinstance(space.n, (int, np.integer)):
            return Actions(tuple(f"button_{i}" for i in range(int(space.n))), "buttons", brief=True)
        if isinstance(space, spaces.Box) and len(space.shape) == 1:
            low, high = float(np.max(space.low)), float(np.min(space.high))
            bounds = (low, high) if np.isfinite([low, high]).all() and low < high else (-MAX_AXIS, MAX_AXIS)
            return Actions(tuple(f"axis_{i}" for i in range(space.shape[0])), "axes", *bounds, brief=True)
        raise MagiError(f"{self._env.spec.id} takes actions of {space}; expected Discrete, MultiBinary or a flat Box")

    def _to_env(self, vector: np.ndarray) -> Any:
        if self.actions.kind == "choice":
            return int(np.argmax(vector)) + int(self._env.action_space.start)
        return vector.astype(self._env.action_space.dtype)


class DoomGame(Game):
    """A ViZDoom scenario: one frame every `frame_skip` tics, any buttons pressed together; analogue ("delta") buttons
    stay at rest."""

    def __init__(self, env: Any, frame_skip: int) -> None:
        # The engine writes its settings into the current folder unless set otherwise.
        self._had_folder = Path("_vizdoom").exists()
        self._scratch = tempfile.TemporaryDirectory(prefix="magi-doom-", ignore_cleanup_errors=True)
        env.unwrapped.game.set_doom_config_path(f"{self._scratch.name}/vizdoom.ini")
        env.unwrapped.game.set_depth_buffer_enabled(True)  # for `around` alone
        variable = importlib.import_module("vizdoom").GameVariable
        self._where = (variable.POSITION_X, variable.POSITION_Y, variable.ANGLE)
        super().__init__(env, DOOM_TICS_PER_SECOND, frame_skip, repeats=1)

    @override
    def around(self) -> Surroundings | None:
        """The median depth along the horizon, and the player's position and angle."""
        depth = self._env.unwrapped.state.depth_buffer
        horizon = depth[int(0.42 * len(depth)) : int(0.54 * len(depth)) : 4, ::4]
        room = np.array([np.median(part) for part in np.array_split(horizon, 5, axis=1)]) / DOOM_NEAR
        x, y, degrees = (self._env.unwrapped.game.get_game_variable(variable) for variable in self._where)
        return Surroundings(room, Place(x / DOOM_ARM, y / DOOM_ARM, math.radians(degrees)))

    @override
    def close(self) -> None:
        """Ends the engine."""
        super().close()
        self._scratch.cleanup()
        if not self._had_folder:
            # The engine makes this folder in the current one, whatever its settings, and leaves it empty.
            with contextlib.suppress(OSError):
                Path("_vizdoom").rmdir()

    @override
    def _picture(self, observation: Any) -> np.ndarray:
        screen = observation["screen"]
        return screen if screen.shape[2] == 3 else np.repeat(screen, 3, axis=2)

    @override
    def _describe_actions(self, space: Any) -> Actions:
        doom = self._env.unwrapped
        names = [button.name for button in doom.game.get_available_buttons()]
        return Actions(tuple(n for n in names if not n.endswith("_DELTA")), "buttons")

    @override
    def _to_env(self, vector: np.ndarray) -> Any:
        from gymnasium import spaces

        buttons = vector.astype(np.int8)
        space = self._env.action_space
        if isinstance(space, spaces.Dict):
            return {"binary": buttons, "continuous": np.zeros(space["continuous"].shape, dtype=np.float32)}
        return buttons


class AtariGame(Game):
    """An Atari game of ale-py: the emulator skips frames by itself and repeats no action by chance."""

    @override
    def _describe_actions(self, space: Any) -> Actions:
        return Actions(tuple(self._env.unwrapped.get_action_meanings()), "choice")


def open_game(name: str, frame_skip: int = 1) -> Game:
    """Opens a game by name.

    Args:
        name: `vizdoom/SCENARIO` (`vizdoom/my_way_home`), an Atari id (`ALE/Breakout-v5`), our own
            `magi/BouncingBalls-v0`, a game of Procgen (`procgen/coinrun`), moving shapes (`shapes`), or any registered
            Gymnasium id.
        frame_skip: steps of the game (Doom: tics of 1/35 s; Atari: frames of 1/60 s) for one recorded frame.

    Raises:
        MagiError: a package is not installed, no game has this name, or it shows no RGB pictures.
    """
    if frame_skip < 1:
        raise MagiError(f"frame skip {frame_skip}; expected 1 or more")
    if name.lower().startswith("procgen/"):
        return importlib.import_module("magi_video.recordings.procgen").ProcgenGame(name, frame_skip)
    if name.lower() == "shapes" or name.lower().startswith("shapes/"):
        return importlib.import_module("magi_video.recordings.shapes").ShapesWorld(name, frame_skip)
    gymnasium = _need("gymnasium")
    if name.lower().startswith("vizdoom"):
        _need("vizdoom.gymnasium_wrapper", "vizdoom")
        env_id = _doom_id(name, list(gymnasium.registry))
        return DoomGame(_make(gymnasium, env_id, frame_skip=frame_skip, max_buttons_pressed=0), frame_skip)
    if name.upper().startswith("ALE/"):
        gymnasium.register_envs(_need("ale_py", "ale-py"))
        env_id = _known_id(name, [i for i in gymnasium.registry if i.startswith("ALE/")])
        env = _make(gymnasium, env_id, frameskip=frame_skip, repeat_action_probability=0.0)
        return AtariGame(env, ATARI_FRAMES_PER_SECOND, frame_skip, repeats=1)
    balls = importlib.import_module("magi_video.recordings.balls")  # its base class is Gymnasium's
    if balls.ENV_ID not in gymnasium.registry:
        gymnasium.register(balls.ENV_ID, balls.BouncingBalls)
    own = [i for i in gymnasium.registry if not i.startswith(("Vizdoom", "ALE/"))]
    env_id = name if ":" in name else _known_id(name, own)
    env = _make(gymnasium, env_id)
    if not _is_picture(env.observation_space):
        if "rgb_array" not in env.metadata.get("render_modes", []):
            raise MagiError(f"{name} shows no RGB pictures; expected such observations or a render mode rgb_array")
        env.close()
        env = _make(gymnasium, env_id, render_mode="rgb_array")
    return Game(env, float(env.metadata.get("render_fps") or 30), frame_skip, repeats=frame_skip)


def _is_picture(space: Any) -> bool:
    return getattr(space, "dtype", None) == np.uint8 and len(space.shape) == 3 and space.shape[2] == 3


def _make(gymnasium: Any, env_id: str, **settings: Any) -> Any:
    try:
        return gymnasium.make(env_id, disable_env_checker=True, **settings)
    except Exception as error:  # whatever a game's own constructor raises: a missing asset, a missing package
        raise _not_started(env_id, error) from error


def _not_started(env_id: str, error: Exception) -> MagiError:
    return MagiError(f"{env_id} cannot be started: {' '.join(str(error).split())}")


def _need(module: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MagiError(f"{package or module} is not installed: {install_command('games')}") from error


def _known_id(name: str, known: list[str]) -> str:
    by_lower = {i.lower(): i for i in known}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    platforms = importlib.import_module("magi_video.recordings.procgen").PLATFORMS
    hints = by_lower | {game: f"procgen/{game}" for game in platforms} | {"procgen": "procgen/coinrun"}
    close = [hints[i] for i in difflib.get_close_matches(name.lower(), hints, n=5, cutoff=0.3)]
    hint = f"; similar: {', '.join(close)}" if close else ""
    raise MagiError(
        f"no game is called {name!r}{hint}; expected vizdoom/SCENARIO, ALE/GAME-v5, procgen/GAME, shapes or a "
        "Gymnasium id"
    )


def _doom_id(name: str, registry: list[str]) -> str:
    """The registered id of a scenario, whatever the case and the underscores: `my_way_home`, `MyWayHome`,
    `VizdoomMyWayHome-v1`."""
    known = {}
    for env_id in registry:
        match = re.fullmatch(r"Vizdoom(.+?)-v\d+", env_id)
        if match and "MultiBinary" not in env_id:
            known[_plain(match[1])] = (env_id, match[1])
    asked = _plain(re.sub(r"-v\d+$", "", re.sub(r"(?i)^vizdoom/?", "", name)))
    asked = asked.removeprefix("vizdoom")
    if asked in known:
        return known[asked][0]
    scenarios = sorted(_snake(title) for env_id, title in known.values() if env_id.endswith("-v1"))
    raise MagiError(
        f"no game is called {name!r}; known: {', '.join(f'vizdoom/{s}' for s in scenarios)}, "
        "and the maps vizdoom/freedoom1_e1m1_s1 to vizdoom/freedoom2_map32_s5 (s1 to s5: skill)"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _snake(title: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", title).lower()
