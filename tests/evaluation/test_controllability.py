"""ΔPSNR: what is drawn, and what the figure says."""

import numpy as np
import pytest

from magi_video.errors import MagiError
from magi_video.evaluation.controllability import check_controllability, delta_psnr, random_actions


def test_actions_are_drawn_as_often_as_recorded_and_the_given_frames_keep_theirs() -> None:
    recorded_TBA = np.zeros((400, 2, 3), np.float32)
    recorded_TBA[..., 0] = 1
    pool_MA = np.eye(3, dtype=np.float32)[[1, 1, 1, 2]]
    drawn_TBA = random_actions(recorded_TBA, 5, pool_MA, [7, 8])
    assert np.array_equal(drawn_TBA[:5], recorded_TBA[:5]) and not drawn_TBA[5:, :, 0].any()
    assert 0.68 < drawn_TBA[5:, :, 1].mean() < 0.82, "three of four"
    assert not np.array_equal(drawn_TBA[:, 0], drawn_TBA[:, 1]), "each clip has its own"
    alone_TBA = random_actions(recorded_TBA[:, 1:], 5, pool_MA, [8])
    assert np.array_equal(alone_TBA[:, 0], drawn_TBA[:, 1]), "whatever clips are beside it"
    assert recorded_TBA[..., 0].all(), "the recorded ones are left alone"


def test_the_figure_is_of_the_fourth_generated_frame() -> None:
    random_NT = np.full((3, 6), 20.0)
    recorded_NT = random_NT + np.array([[0, 0, 0, 1, 5, 5], [0, 0, 0, 2, 5, 5], [0, 0, 0, 3, 5, 5]])
    control = delta_psnr(recorded_NT, random_NT)
    assert (control["frame"], control["delta_psnr"], control["psnr_random"]) == (4, 2.0, 20.0)
    assert control["interval"] == pytest.approx([2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5]), "t of 2"
    assert control["by_frame"].tolist() == [0, 0, 0, 2, 5, 5]
    assert delta_psnr(random_NT, random_NT)["interval"] == [0, 0], "actions that change nothing"
    assert delta_psnr(recorded_NT[:1], random_NT[:1])["interval"] is None, "one clip says nothing of the spread"


def test_what_cannot_be_measured_is_refused() -> None:
    check_controllability(True, 1, 4)
    check_controllability(True)
    with pytest.raises(MagiError, match="ask for --actions as well"):
        check_controllability(False, 1, 11)
    with pytest.raises(MagiError, match="--context-frames 1 or more"):
        check_controllability(True, 0, 11)
    with pytest.raises(MagiError, match="the clips have 3 generated"):
        check_controllability(True, 1, 3)
