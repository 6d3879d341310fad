"""The actions beside a recorded video: JSON lines, one for each frame, `{"frame": 12, "action": {"TURN_LEFT": 1}}`.

Row i is the action taken after frame i, the one that leads to frame i+1; entries that are not written are 0. Such a
file may come from anywhere, so it is either complete and sound or refused as a whole: a half-read one would teach a
model wrong actions in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magi_video.errors import MagiError, listed
from magi_video.files.atomic import replacing
from magi_video.files.json import parse_json, read_json, read_text
from magi_video.files.limits import MAX_TEXT_BYTES

RECORDING_FILE = "recording.json"
MAX_NAMES = 256  # different actions
MAX_NAME = 100  # characters of one
MAX_ROW_BYTES = 8192  # on average
MAX_VALUE = 1e6


@dataclass(frozen=True)
class ActionTrack:
    """Names of the columns and the values float32 [num_frames, A]; the row of the last frame may be all 0."""

    names: tuple[str, ...]
    values: np.ndarray

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """The values float32 [num_frames, len(names)] in the asked order; a name this recording does not know is 0.

        Raises:
            MagiError: it knows none of them: these are actions of another game.
        """
        if names and self.names and not set(names) & set(self.names):
            raise MagiError(f"actions of another game: they are of {listed(self.names)}, and none of {listed(names)}")
        picked = np.zeros((len(self.values), len(names)), dtype=np.float32)
        for column, name in enumerate(names):
            if name in self.names:
                picked[:, column] = self.values[:, self.names.index(name)]
        return picked


def actions_path(video: Path) -> Path:
    """Where the actions of a recorded video lie."""
    return video.with_name(f"{video.stem}.actions.jsonl")


def write_actions(video: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Write the actions of a video beside it, the file whole or not at all.

    Args:
        video: its path.
        rows: name → value of what is not 0, for each frame, that of the last one included.
    """
    lines = [json.dumps({"frame": number, "action": dict(row)}) for number, row in enumerate(rows)]
    with replacing(actions_path(video)) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_actions(path: Path, num_frames: int) -> ActionTrack:
    """Reads and checks the actions of a video of `num_frames` frames.

    The columns are those that `recording.json` in the same folder names; without one, those that occur, sorted.

    Raises:
        MagiError: unreadable, too large, a row that is missing, doubled, or not as described above.
    """
    lines = read_text(path, min(MAX_TEXT_BYTES, MAX_ROW_BYTES * (num_frames + 1))).splitlines()
    rows: dict[int, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            frame, action = _parse_row(path, number, line)
            if frame in rows or frame >= num_frames:
                raise MagiError(
                    f"{path}: line {number} is for frame {frame}; expected each frame below {num_frames} once"
                )
            rows[frame] = action
    missing = next((i for i in range(num_frames - 1) if i not in rows), None)
    if missing is not None:
        raise MagiError(f"{path}: no row for frame {missing}; expected one for each frame but the last")
    occurring = sorted({name for action in rows.values() for name in action})
    names = _declared_names(path.with_name(RECORDING_FILE)) or tuple(occurring)
    unknown = sorted(set(occurring) - set(names))
    if unknown or len(names) > MAX_NAMES:
        raise MagiError(
            f"{path}: "
            + (f"unknown action {unknown[0]!r}" if unknown else f"{len(names)} actions, expected at most {MAX_NAMES}")
        )
    column = {name: i for i, name in enumerate(names)}
    values = np.zeros((num_frames, len(names)), dtype=np.float32)
    for frame, action in rows.items():
        for name, value in action.items():
            values[frame, column[name]] = value
    return ActionTrack(names, values)


def _parse_row(path: Path, number: int, line: str) -> tuple[int, dict[str, float]]:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise MagiError(f"{path}: line {number} is not JSON ({error})") from None
    frame = row.get("frame") if isinstance(row, dict) else None
    action = row.get("action") if isinstance(row, dict) else None
    if type(frame) is not int or frame < 0 or not isinstance(action, dict):
        raise MagiError(f'{path}: line {number}; expected {{"frame": 0, "action": {{"NAME": 1}}}}')
    for name, value in action.items():
        if not name.isprintable() or len(name) > MAX_NAME:
            raise MagiError(f"{path}: line {number}: {name[:40]!r} is no name of an action")
        if not isinstance(value, (int, float)) or not abs(value) <= MAX_VALUE:  # so that NaN is refused too
            raise MagiError(f"{path}: line {number}: {name[:40]!r} is not a number of at most {MAX_VALUE:.0f}")
    return frame, action


def recorded_game(folder: Path) -> str | None:
    """The game that a folder is a recording of, as `magi record` calls it; None if it does not say so."""
    try:
        game = read_json(folder / RECORDING_FILE).get("game")
    except MagiError:
        return None
    return game if isinstance(game, str) and game.isprintable() and len(game) <= MAX_NAME else None


def _declared_names(path: Path) -> tuple[str, ...]:
    """The action names of a recording's description; none where there is no (sound) one."""
    try:
        names = read_json(path).get("action_names")
    except MagiError:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
        return ()
    if len(set(names)) != len(names) or max(map(len, names), default=0) > MAX_NAME:
        return ()
    return tuple(names)
