"""A stand-in of Procgen's interface: the real package has a wheel for one Python alone."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

COMBOS = [("LEFT",), (), ("RIGHT",), ("RIGHT", "UP")]
WALL = 56


class Level:
    """A level is a grey of its own; a square moves sideways with LEFT and RIGHT, and the level is over at the wall."""

    combos = COMBOS
    speed = 8

    def __init__(self, num: int, env_name: str, start_level: int, num_levels: int, **rest: object) -> None:
        assert (num, num_levels, env_name) == (1, 1, "coinrun")
        self.level, self.place, self.first = start_level, 0, True

    def observe(self) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        frame = np.full((1, 64, 64, 3), self.level % 97, np.uint8)
        frame[0, 28:36, self.place : self.place + 8] = 255
        return np.zeros(1), {"rgb": frame}, np.array([self.first])

    def act(self, action: np.ndarray) -> None:
        assert action.dtype == np.int32
        held = COMBOS[int(action[0])]
        self.place = max(0, self.place + self.speed * (("RIGHT" in held) - ("LEFT" in held)))
        self.first = self.place >= WALL
        self.place *= not self.first

    def close(self) -> None:
        pass


def install(monkeypatch: pytest.MonkeyPatch, level: type[Level] = Level) -> None:
    """Put it in the place of the package."""
    module = ModuleType("procgen")
    module.ProcgenGym3Env = level  # type: ignore[attr-defined]
    module.env = SimpleNamespace(ENV_NAMES=["bigfish", "coinrun"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "procgen", module)
