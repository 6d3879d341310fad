"""What a recipe makes by arithmetic, against what training makes."""

import pytest
import torch

from magi_video.paradigms import PARADIGMS, Clip, MaskRatio
from magi_video.registry import declared
from magi_video.training.sizing import hidden_share


@pytest.mark.parametrize(("minimum", "std", "tokens"), [(0.7, 0.25, 256), (0.5, 1.0, 16), (0.1, 0.3, 7), (1.0, 0.2, 9)])
def test_the_share_of_hidden_tokens_is_that_of_many_draws(minimum: float, std: float, tokens: int) -> None:
    drawn = MaskRatio(minimum, std).draw(1, 4096, tokens, torch.Generator().manual_seed(0), "cpu")[0].double().mean(-1)
    mean, deviation = hidden_share(minimum, std, tokens)
    assert mean == pytest.approx(float(drawn.mean()), abs=5 * deviation / 4096**0.5 + 1e-9)
    assert deviation == pytest.approx(float(drawn.std()), rel=0.05, abs=1e-9)


def test_every_paradigm_reads_as_many_frames_as_is_counted() -> None:
    clip = Clip(torch.zeros(1, 3, 1, 1), torch.ones(1, dtype=torch.long))
    hidden = torch.ones(1, 3, 1, dtype=torch.bool)
    built = {
        name: make().sequence(clip, *((hidden, torch.zeros(1, 3)) if make.past == "noisy" else (hidden,)))
        for name, make in PARADIGMS.items()
    }
    read = {name: sequence.tokens_BSND.shape[1] for name, sequence in built.items()}
    assert read == {name: 3 * values["training_frames"] for name, values in declared("paradigms").items()}
