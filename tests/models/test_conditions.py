"""Condition tokens of several tokens: what is missing, what is dropped, what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.models.conditions import ConditionTokens
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, CompleteTeacherForcing

SPEC = {"text": {"size": 12, "kind": "sequence", "tokens": 5, "drop": 0.5}}


def test_a_missing_vector_has_the_unknown_token_and_dropped_text_none_but_these() -> None:
    tokens = ConditionTokens({**SPEC, "label": {"size": 2}}, 8)
    torch.nn.init.normal_(tokens.embed["text"].unknown)  # type: ignore[union-attr, arg-type]
    assert tokens.count == 6
    value = torch.randn(3, 2, 5, 12)
    value[:, :, 3:] = torch.nan
    made = tokens({"text": value}, 3, 2, torch.device("cpu"))
    nothing = tokens({}, 3, 2, torch.device("cpu"))
    assert made.shape == (3, 2, 6, 8) and made.isfinite().all()
    assert torch.equal(made[:, :, [0, 4, 5]], nothing[:, :, [0, 4, 5]])
    assert not torch.allclose(made[:, :, 1:4], nothing[:, :, 1:4])
    assert torch.allclose(made, tokens({"text": value * 1000 + 7}, 3, 2, torch.device("cpu")), atol=1e-4), "any scale"
    dropped = tokens.drop({"text": value.expand(3, 2, 5, 12)}, torch.Generator().manual_seed(2))["text"]
    hidden = dropped.isnan().flatten(1).all(1)
    assert hidden.any() and not hidden.all(), "of whole clips"


def test_text_is_felt_and_learned_from(make_model: Callable[..., MagiVideoTransformer], clip: Clip) -> None:
    model = make_model(conditions={"noise_level": {"size": 6}, **SPEC})
    assert model.num_places == 16 + 1 + 5 and model.make_cache(1, 3).layers[0].keys.shape[1] == 22
    batch, frames = clip.tokens_BTND.shape[:2]
    text = torch.randn(batch, frames, 5, 12)
    text[:, :, 4] = torch.nan

    def loss(text: torch.Tensor) -> torch.Tensor:
        told = Clip(clip.tokens_BTND, clip.interval_B, {"text": text})
        return CompleteTeacherForcing().loss(model, told, torch.Generator().manual_seed(3))

    first = loss(text)
    assert not torch.isclose(first, loss(text.flip(3)), rtol=1e-5)
    first.backward()
    parts = dict(model.condition_tokens.embed["text"].named_parameters())  # type: ignore[union-attr]
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in parts.values()), "unknown token included"


@pytest.mark.parametrize("spec", [{"size": 3, "kind": "graph"}, {"size": 3, "kind": "vector", "tokens": 2}])
def test_impossible_conditions_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(MagiError, match="condition mood"):
        ConditionTokens({"mood": spec}, 8)
