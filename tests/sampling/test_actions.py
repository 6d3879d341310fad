import numpy as np
import pytest

from magi_video.errors import MagiError
from magi_video.pipeline.actions import parse_actions

NAMES = ["LEFT", "RIGHT", "FIRE"]


def test_words_repeats_and_starting_over() -> None:
    rows = parse_actions("LEFT*2 RIGHT+FIRE NONE", NAMES, 7)
    expected = [[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert np.array_equal(rows, expected) and rows.dtype == np.float32


def test_a_name_with_a_plus_in_it_is_one_action() -> None:
    rows = parse_actions("RIGHT+UP RIGHT UP+RIGHT", ["RIGHT", "RIGHT+UP", "UP"], 4)
    assert rows[1:].tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]], "in any order"


@pytest.mark.parametrize("script", ["", "JUMP", "LEFT*x", "LEFT**3", "LEFT*0", "LEFT*9999999999"])
def test_nonsense_is_refused(script: str) -> None:
    with pytest.raises(MagiError):
        parse_actions(script, NAMES, 5)
