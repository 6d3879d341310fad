import math

import pytest

from magi_video.errors import MagiError
from magi_video.sampling import unmasking_schedule


@pytest.mark.parametrize(("tokens", "steps"), [(256, 64), (256, 8), (16, 64), (16, 1), (1, 5), (100, 100), (7, 3)])
def test_every_token_once_and_no_empty_step(tokens: int, steps: int) -> None:
    counts = unmasking_schedule(tokens, steps)
    assert sum(counts) == tokens and min(counts) >= 1 and len(counts) <= min(steps, tokens)


def test_cosine_values() -> None:
    counts = unmasking_schedule(256, 64)
    left = 256
    for k, count in enumerate(counts[:-1]):
        left -= count
        if len(counts) == 64:
            assert left == max(1, math.floor(256 * math.cos(math.pi / 2 * (k + 1) / 64)))
    assert unmasking_schedule(256, 1) == [256]
    assert counts == sorted(counts) or counts[-1] >= 1, "few tokens first, many later"


def test_one_token_is_kept_for_the_last_step() -> None:
    assert unmasking_schedule(4, 3) == [1, 1, 2]
    # floor(2·cos) would be 0 after step 2 of 4; one token must wait for the last step.
    assert unmasking_schedule(2, 4) == [1, 1]


def test_no_steps_is_refused() -> None:
    with pytest.raises(MagiError, match="at least 1"):
        unmasking_schedule(16, 0)
