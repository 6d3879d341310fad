import math

import pytest

from magi_video.errors import MagiError
from magi_video.paradigms.masking import unmasking_schedule


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 16, 20, 64, 100, 256])
def test_every_step_predicts_a_token_and_all_tokens_are_predicted_once(tokens: int) -> None:
    for steps in range(1, tokens + 3):
        counts = unmasking_schedule(tokens, steps)
        assert sum(counts) == tokens and min(counts) >= 1
        assert len(counts) == min(steps, tokens), "as many passes as steps; more steps than tokens count as tokens"


@pytest.mark.parametrize(("tokens", "steps"), [(256, 64), (256, 12), (16, 8), (64, 48), (20, 20)])
def test_the_values_are_mars(tokens: int, steps: int) -> None:
    masked = tokens
    for step, count in enumerate(unmasking_schedule(tokens, steps)):
        # models/mar.py, sample_tokens: the ratio's floor, at least 1 and at most one less than before.
        left = math.floor(tokens * math.cos(math.pi / 2 * (step + 1) / steps))
        left = 0 if step == steps - 1 else max(1, min(masked - 1, left))
        assert count == masked - left
        masked = left
    assert masked == 0


def test_the_papers_frame_takes_64_passes() -> None:
    counts = unmasking_schedule(256, 64)
    assert len(counts) == 64
    assert counts[:14] == [1] * 13 + [2], "the first 13 predict one token each"
    assert counts[-1] == 6


def test_schedules_without_an_empty_step_are_the_plain_cosine() -> None:
    assert unmasking_schedule(256, 1) == [256]
    assert unmasking_schedule(16, 8) == [1, 1, 1, 2, 3, 2, 3, 3]
    assert unmasking_schedule(4, 3) == [1, 1, 2]
    assert unmasking_schedule(2, 4) == [1, 1]


def test_no_steps_is_refused() -> None:
    with pytest.raises(MagiError, match="at least 1"):
        unmasking_schedule(16, 0)
