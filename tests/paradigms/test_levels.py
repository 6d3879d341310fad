"""Schedules of noise levels and weights by level, against their closed forms and the authors' loops."""

import numpy as np
import pytest
import torch

from magi_video.models.epsilon import EpsilonHead
from magi_video.models.velocity import VelocityHead
from magi_video.paradigms.levels import alpha_bar, levels_of, schedule_matrix, velocity_weights


def pyramid(steps: int, frames: int, uncertainty: float) -> list[list[int]]:
    """Row by row, frame by frame (df_base.py)."""
    height = steps + int((frames - 1) * uncertainty) + 1
    return [
        [min(max(steps + int(t * uncertainty) - m, 0), steps) for t in range(frames)] for m in range(height)
    ]  # fmt: skip


@pytest.mark.parametrize(("steps", "frames", "uncertainty"), [(5, 4, 1.0), (4, 3, 0.5), (3, 5, 2.5), (6, 1, 1.0)])
def test_the_pyramid(steps: int, frames: int, uncertainty: float) -> None:
    assert schedule_matrix("pyramid", steps, frames, uncertainty).tolist() == pyramid(steps, frames, uncertainty)


def test_autoregressive_is_the_pyramid_in_which_a_frame_is_finished_before_the_next_is_begun() -> None:
    rows = schedule_matrix("autoregressive", 4, 3)
    assert rows.tolist() == pyramid(4, 3, 4)
    begun, finished = (rows < 4), (rows == 0)
    assert not (begun[:, 1:] & ~finished[:, :-1]).any()


def test_the_full_sequence_falls_together() -> None:
    assert schedule_matrix("full-sequence", 3, 2).tolist() == [[3, 3], [2, 2], [1, 1], [0, 0]]


@pytest.mark.parametrize("schedule", ["autoregressive", "pyramid", "full-sequence"])
def test_every_schedule_goes_from_noise_to_clean_by_single_levels(schedule: str) -> None:
    rows = schedule_matrix(schedule, 7, 5, 1.5)
    assert (rows[0] == 7).all() and (rows[-1] == 0).all()
    steps = rows[:-1] - rows[1:]
    assert ((steps == 0) | (steps == 1)).all() and steps.any(1).all(), "no row changes nothing"


@pytest.mark.parametrize("steps", [1, 3, 50, 100, 999])
def test_levels_are_the_authors_real_steps(steps: int) -> None:
    expected = np.linspace(-1, 999, steps + 1).astype(int)
    assert levels_of(VelocityHead(2, 4)).times(steps, 999).tolist() == expected.tolist()
    assert levels_of(EpsilonHead(2, 4, 8, 1)).times(10, 990).tolist()[::5] == [-1, 494, 990]


def loop_weights(snr: list[float], clip: float, decay: float) -> list[float]:
    """One clip's fused weights by the authors' loop, number by number."""
    own = [min(one, clip) / clip for one in snr]
    running = [own[0]]
    for t in range(1, len(own)):
        running.append(decay * running[t - 1] + (1 - decay) * own[t])
    before = [0.0, *running[:-1]]
    found = []
    for t, one in enumerate(snr):
        fused = 1 - (1 - before[t] * decay) * (1 - own[t])
        unclipped = 1 - (1 - before[t] * decay) * (1 - one / clip)
        found.append(fused * clip / (unclipped * clip + 1))
    return found


def test_fused_weights() -> None:
    levels = torch.tensor([[0, 999, 500, 20, 700], [300, 14, 600, 900, 100]])
    snr = alpha_bar(levels) / (1 - alpha_bar(levels))
    for decay in (0.0, 0.8, 0.96):
        weights = velocity_weights(snr, "fused", 5.0, decay)
        for b in range(2):
            assert weights[b].tolist() == pytest.approx(loop_weights(snr[b].tolist(), 5.0, decay))
    assert (weights > 0).all()


def test_min_snr_weights_are_the_fused_ones_of_a_first_frame() -> None:
    snr = torch.tensor([[0.1], [3.0], [40.0]])
    plain = velocity_weights(snr, "min-snr", 5.0)
    assert torch.allclose(plain, snr.clamp(max=5) / (snr + 1)) and torch.allclose(plain, velocity_weights(snr, "fused"))
    assert torch.equal(velocity_weights(snr, "none"), torch.ones(3, 1))
