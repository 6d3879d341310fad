"""The state of a masked frame in training is the state of the same frame over the cache at inference."""

from collections.abc import Callable

import pytest
import torch

from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.sequence import MASKED, OBSERVATION, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, CompleteTeacherForcing, MaskRatio, NoiseInjection

T = 5


@pytest.mark.parametrize("temporal_position", ["interpolate", "rope"])
def test_ctf_training_state_equals_state_over_the_cache(
    make_model: Callable[..., MagiVideoTransformer], clip: Clip, temporal_position: str
) -> None:
    model = make_model(temporal_position=temporal_position)
    hidden_BTN = MaskRatio().draw(2, T, 16, torch.Generator().manual_seed(1), "cpu")
    training = CompleteTeacherForcing(exposure=NoiseInjection(levels=0)).sequence(clip, hidden_BTN)
    with torch.no_grad():
        trained = model(training)
        cache = model.make_cache(batch=2, capacity=T)
        for t in range(T):
            masked = one_frame(clip, t, MASKED, hidden_BTN[:, t])
            assert torch.allclose(model(masked, cache)[:, 0], trained[:, t], atol=1e-4), f"frame {t}"
            model(one_frame(clip, t, OBSERVATION, torch.zeros_like(hidden_BTN[:, t])), cache)
            cache.advance()


def one_frame(clip: Clip, t: int, kind: int, hidden_BN: torch.Tensor) -> FrameSequence:
    return FrameSequence(
        tokens_BSND=clip.tokens_BTND[:, t : t + 1],
        masked_BSN=hidden_BN[:, None],
        kind_S=torch.tensor([kind]),
        position_S=torch.tensor([float(t)]),
        interval_B=clip.interval_B,
        conditions={
            "action": clip.conditions["action"][:, t : t + 1],
            NOISE_LEVEL: torch.zeros(2, 1, dtype=torch.long),
        },
    )
