"""A model learns from labels what only they tell, and generates by them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from magi_video.models.architecture import ACTION, LABEL, NOISE_LEVEL, Architecture
from magi_video.models.sequence import MASKED, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, find_paradigm
from magi_video.sampling.sampling import Sampling
from tests.rollouts import start_rollout


def test_first_frames_are_of_the_class_asked_for(make_model: Callable[..., MagiVideoTransformer]) -> None:
    model = make_model(num_frames=1, conditions={NOISE_LEVEL: {"size": 6}, LABEL: {"size": 2, "drop": 0.1}})
    forcing = find_paradigm("complete")()
    label_B = torch.arange(16) % 2
    # Frames that differ in nothing but their class: the loss hardly tells, since noisy tokens show it too.
    shape = (16, 1, model.num_tokens, model.token_dim)
    mean_BTND = (2.0 * label_B - 1)[:, None, None, None].expand(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(300):
        clip = Clip(mean_BTND + 0.1 * torch.randn(shape), torch.ones(16, dtype=torch.long), {LABEL: label_B[:, None]})
        optimizer.zero_grad()
        forcing.loss(model, clip, torch.Generator().manual_seed(step)).backward()
        optimizer.step()
    rollout = start_rollout(model.eval(), list(range(16)), Sampling(None, 4, 20), 1)
    with torch.no_grad():
        tokens_BND = rollout.predict({LABEL: label_B})
    followed = (tokens_BND.mean(dim=(1, 2)) > 0) == (label_B == 1)
    assert followed.sum() >= 15


@pytest.mark.parametrize(
    ("name", "spec", "values"),
    [
        (LABEL, {"size": 2}, [0, 1, -1]),
        (ACTION, {"size": 2, "kind": "vector"}, [[0.0, 1.0], [1.0, 0.0], [torch.nan, torch.nan]]),
    ],
)
def test_conditions_differ_from_the_start(name: str, spec: dict[str, Any], values: list[Any]) -> None:
    torch.manual_seed(0)
    model = MagiVideoTransformer(
        Architecture(3, 8, 8, width=64, depth=1, heads=2, mlp_width=64, conditions={name: spec})
    )
    frame = FrameSequence(
        tokens_BSND=torch.zeros(3, 1, model.num_tokens, model.token_dim),
        masked_BSN=torch.ones(3, 1, model.num_tokens, dtype=torch.bool),
        kind_S=torch.tensor([MASKED]),
        position_S=torch.zeros(1),
        interval_B=torch.ones(3, dtype=torch.long),
        conditions={name: torch.tensor(values)[:, None]},
    )
    token_BW = model.context(frame).embedding_BSLW[:, 0, 0]
    # What is added to every token must not drown what they say: training hardly tells such conditions apart.
    likeness_BB = torch.cosine_similarity(token_BW[:, None], token_BW[None], dim=-1)
    assert likeness_BB[~torch.eye(3, dtype=torch.bool)].max() < 0.8
