"""Keys and touch buttons for a model's actions, and what is held down as an action.

An action-conditioned model knows its actions by name alone. Those of Doom, Atari and Procgen have customary keys; any
others get the digits, in order.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

CUSTOMARY: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # action: what it is called, where its button lies, keys (KeyboardEvent.code), the most wanted first
    "MOVE_FORWARD": ("Forward", "up", ("ArrowUp", "KeyW")),
    "MOVE_BACKWARD": ("Back", "down", ("ArrowDown", "KeyS")),
    "TURN_LEFT": ("Turn left", "left", ("ArrowLeft", "KeyQ")),
    "TURN_RIGHT": ("Turn right", "right", ("ArrowRight", "KeyE")),
    "MOVE_LEFT": ("Step left", "far left", ("KeyA", "ArrowLeft")),
    "MOVE_RIGHT": ("Step right", "far right", ("KeyD", "ArrowRight")),
    "UP": ("Up", "up", ("ArrowUp", "KeyW")),
    "DOWN": ("Down", "down", ("ArrowDown", "KeyS")),
    "LEFT": ("Left", "left", ("ArrowLeft", "KeyA")),
    "RIGHT": ("Right", "right", ("ArrowRight", "KeyD")),
    "ATTACK": ("Fire", "fire", ("Space",)),
    "FIRE": ("Fire", "fire", ("Space",)),
    "JUMP": ("Jump", "more", ("Space", "KeyJ")),
    "USE": ("Use", "more", ("KeyF", "Enter")),
    "SPEED": ("Run", "more", ("ShiftLeft",)),
    "STRAFE": ("Strafe", "more", ("KeyX",)),
    "CROUCH": ("Crouch", "more", ("KeyC",)),
}
SPARE_KEYS = (*(f"Digit{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)), *(f"Key{one}" for one in "YUIOPGHJKL"))
ATARI = ("FIRE", "UP", "RIGHT", "LEFT", "DOWN")
STANDING_STILL = "NOOP"
NO_KEYS = "NOTHING"
"""Of the games of Procgen, whose other actions are keys held together (`RIGHT+UP`)."""


@dataclass(frozen=True)
class Control:
    """One key or button.

    Attributes:
        name: by which the page tells that it is held.
        label: what it does.
        place: where its touch button lies: up, down, left, right, far left, far right, fire, more.
        keys: of the keyboard, as `KeyboardEvent.code`.
    """

    name: str
    label: str
    place: str
    keys: tuple[str, ...]


class Controls:
    """The controls of a model.

    Args:
        action_names: the model's.
        idle: controls that do nothing in its game and are not shown.

    Attributes:
        controls: in the order of the model's actions.
    """

    def __init__(self, action_names: Sequence[str], idle: Collection[str] = ()) -> None:
        self.names = tuple(action_names)
        self._combined = _combinations(self.names)
        taken: set[str] = set()
        wanted = sorted({key for one in self._combined.values() for key in one}) if self._combined else self.names
        self.controls: list[Control] = []
        for name in sorted((one for one in wanted if one not in idle), key=self._order):
            label, place, keys = CUSTOMARY.get(name.upper(), (name.replace("_", " ").capitalize(), "more", ()))
            free = tuple(key for key in keys if key not in taken)
            if not free:
                free = tuple(key for key in SPARE_KEYS if key not in taken)[:1]
            taken |= set(free)
            self.controls.append(Control(name, label, place, free))

    @staticmethod
    def _order(name: str) -> int:
        """Customary ones first, in their order, so that each gets the keys it is known by."""
        order = list(CUSTOMARY)
        return order.index(name.upper()) if name.upper() in order else len(order)

    def action(self, held: Collection[str]) -> np.ndarray | None:
        """The action while these controls are held, float32 [A]; None: nothing is known to it.

        Buttons may be held together. Of actions that exclude each other (Atari's), the one that holds the most of them.
        """
        vector = np.zeros(len(self.names), np.float32)
        if not self._combined:
            vector[[index for index, name in enumerate(self.names) if name in held]] = 1
            return vector
        possible = [(len(parts), name) for name, parts in self._combined.items() if parts <= set(held)]
        if not possible:
            return None
        vector[self.names.index(max(possible)[1])] = 1
        return vector


def _combinations(names: Sequence[str]) -> dict[str, frozenset[str]]:
    """Of actions that exclude each other, which of the controls each of them holds; empty where there are none such.

    Atari's say so by their names ("UPRIGHTFIRE", and "NOOP" for none), and Procgen's ("RIGHT+UP", "NOTHING"); those of
    a game whose actions have numbers alone are taken one at a time.
    """
    if NO_KEYS in names:
        return {name: frozenset() if name == NO_KEYS else frozenset(name.split("+")) for name in names}
    if STANDING_STILL in names:
        return {name: _parts(name) for name in names}
    if names and all(name.startswith("action_") for name in names):
        return {name: frozenset({name}) for name in names}
    return {}


def _parts(name: str) -> frozenset[str]:
    parts = [part for part in ATARI if part in name]
    rest = name
    for part in parts:
        rest = rest.replace(part, "", 1)
    if name == STANDING_STILL:
        return frozenset()
    return frozenset({name}) if rest else frozenset(parts)
