"""Actions for a rollout, written by hand, "MOVE_FORWARD*30 MOVE_FORWARD+TURN_LEFT*12 NONE*5", or those of a recording.
Does not import PyTorch."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from magi_video.data.actions import read_actions
from magi_video.errors import MagiError
from magi_video.files.json import read_text
from magi_video.pipeline.asked import hold_actions

MAX_REPEATS = 100_000
WORD = re.compile(r"(?P<names>[^*\s]+)(?:\*(?P<repeats>\d{1,6}))?")


def parse_actions(script: str, names: Sequence[str], num_frames: int) -> np.ndarray:
    """The action that leads to each frame, float32 `[num_frames, A]`; row 0 is of no use and zero.

    Args:
        script: words NAME, NAME+NAME (held together) or NONE, each optionally `*` how many frames; it starts over at
            its end. Of a model with names that have a "+" in them (`RIGHT+UP`), names held together are the action of
            that name, in any order.
        names: the model's action columns.
        num_frames: rows wanted.

    Raises:
        MagiError: an empty script, an unknown name, or something that is no such word.
    """
    rows: list[np.ndarray] = []
    for word in script.split():
        match = WORD.fullmatch(word)
        if match is None:
            raise MagiError(f"actions: {word!r} is not of the form NAME, NAME+NAME or NAME*FRAMES")
        row = hold_actions([name for name in match["names"].split("+") if name != "NONE"], names)
        rows += [row] * min(int(match["repeats"] or 1), MAX_REPEATS)
    if not rows:
        raise MagiError(f"actions: nothing is done; expected words such as {(*names, 'NONE')[0]}*30")
    return np.stack([np.zeros_like(rows[0]), *(rows[index % len(rows)] for index in range(num_frames - 1))])


def find_actions(actions: str, names: Sequence[str], frames: int, interval: int) -> np.ndarray:
    """The action that leads to each frame, `[frames, A]`.

    Args:
        actions: written by hand (see `parse_actions`), or the .actions.jsonl file of a recording, whose first frames
            are taken, `interval` apart.
        names: of the model's action columns.
        frames, interval: of the video.
    """
    if not names:
        raise MagiError("this model takes no actions: it was trained without")
    if not actions.endswith(".jsonl"):
        return parse_actions(actions, names, frames)
    last = (frames - 1) * interval
    path = Path(actions)
    rows = sum(bool(line.strip()) for line in read_text(path).splitlines())  # the recording may be the longer
    recorded = read_actions(path, max(rows, last + 1)).columns(names)
    between = [recorded[start : start + interval].mean(axis=0) for start in range(0, last, interval)]
    return np.stack([np.zeros(len(names), np.float32), *between])
