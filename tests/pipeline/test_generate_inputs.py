"""What `magi generate` makes of its options before the model sees them."""

import json
from pathlib import Path

import numpy as np
import pytest

from magi_video.errors import MagiError
from magi_video.pipeline.actions import find_actions, parse_actions
from magi_video.pipeline.asked import hold_actions


def recording(path: Path, frames: int, last_row: bool) -> str:
    """Actions of a video of so many frames: A alone after every third frame, B after every other."""
    rows = [{"frame": i, "action": {"A" if i % 3 == 0 else "B": 1}} for i in range(frames if last_row else frames - 1)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return str(path)


@pytest.mark.parametrize("last_row", [False, True])
def test_the_actions_of_a_recording_lead_to_its_first_frames(tmp_path: Path, last_row: bool) -> None:
    actions = recording(tmp_path / "0.actions.jsonl", 10, last_row)
    for frames, interval in ((4, 1), (10, 1), (4, 3), (1, 1)):
        led = find_actions(actions, ["B", "A"], frames, interval)
        assert led.shape == (frames, 2) and not led[0].any()
        for i, row in enumerate(led[1:]):  # the interval 3 holds each A with two B
            np.testing.assert_allclose(row, [2 / 3, 1 / 3] if interval == 3 else [i % 3 != 0, i % 3 == 0], rtol=1e-6)


def test_a_recording_that_is_too_short_is_refused(tmp_path: Path) -> None:
    actions = recording(tmp_path / "0.actions.jsonl", 10, last_row=False)
    with pytest.raises(MagiError, match="no row for frame 9"):
        find_actions(actions, ["A", "B"], 11, 1)


def test_actions_of_another_game_are_refused(tmp_path: Path) -> None:
    actions = recording(tmp_path / "0.actions.jsonl", 10, last_row=False)
    with pytest.raises(MagiError, match="actions of another game: they are of A, B, and none of LEFT, RIGHT"):
        find_actions(actions, ["LEFT", "RIGHT"], 4, 1)
    assert find_actions(actions, ["A", "LEFT"], 4, 1)[:, 0].any(), "a name in common is enough"


def test_names_held_together_are_the_action_of_that_name_in_any_order() -> None:
    one_of = ["RIGHT", "LEFT", "UP", "RIGHT+UP", "NOTHING"]
    for script in ("RIGHT+UP", "UP+RIGHT"):
        assert parse_actions(script, one_of, 2)[1].tolist() == [0, 0, 0, 1, 0]
    assert hold_actions(["UP", "RIGHT"], one_of).tolist() == [0, 0, 0, 1, 0]
    assert hold_actions([], one_of).tolist() == [0] * 5
    for script in ("LEFT+RIGHT", "RIGHT+NOTHING", "RIGHT+UP+LEFT"):
        with pytest.raises(MagiError, match="this model has no action"):
            parse_actions(script, one_of, 2)
    with pytest.raises(MagiError, match="unknown action 'RIHGT'"):
        parse_actions("UP+RIHGT", one_of, 2)
    assert parse_actions("A+B", ["A", "B"], 2)[1].tolist() == [1, 1], "buttons, any of them together"
