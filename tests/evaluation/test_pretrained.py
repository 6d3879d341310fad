"""A score with the networks that published figures come from."""

import numpy as np
import pytest

from magi_video.evaluation.scoring import score
from magi_video.evaluation.weights import WEIGHTS, available
from tests.evaluation.conftest import random_clips


def test_the_pretrained_networks_give_all_figures() -> None:
    for name in ("i3d", "inception", "lpips-alex"):
        if not available(name):
            pytest.skip(f"the weights of {name} are not there: magi weights fetch {name}")
    real = random_clips(2, frames=10, size=32)
    fake = [np.roll(clip, 4, axis=2) for clip in real]
    result = score(real, fake, paired=True, frames=10, over_length=False, cache=False)
    assert result["fvd"] > 1 and result["fid"] > 1 and result["paired"]["lpips"] > 0.01
    assert result["detectors"] == {name: WEIGHTS[name].sha256 for name in ("i3d", "inception", "lpips-alex")}
    assert result["protocol"]["detector_sha256"] == WEIGHTS["i3d"].sha256
    assert [len(values) for values in result["per_frame"].values()] == [9] * 7
