"""The order of GtR: tokens that lie apart first, the gaps between them last."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.fast.sparse_to_dense import SparseToDense
from magi_video.fast.speed import begin_past
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, MaskedFrames, MaskRatio, NoiseInjection
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling

SHAPES = [(1, 1), (5, 5), (4, 2), (16, 4), (64, 8), (48, 4), (256, 16), (144, 16)]


@pytest.mark.parametrize(("tokens", "columns"), SHAPES)
def test_every_step_predicts_a_token_and_all_tokens_are_predicted_once(tokens: int, columns: int) -> None:
    for steps in range(1, tokens + 3):
        counts = SparseToDense.counts(tokens, columns, steps)
        assert sum(counts) == tokens and min(counts) >= 1 and len(counts) == min(steps, tokens)
    assert len(SparseToDense.counts(tokens, columns, 1)) == 1


def test_the_papers_frame_has_gtrs_rates() -> None:
    counts = SparseToDense.counts(256, 16, 32)
    assert len(counts) == 32
    assert set(counts[:24]) == {2, 3} and sum(counts[:24]) == 64, "64 / 24 = 2.67 tokens a step"
    assert set(counts[24:30]) == {10, 11} and sum(counts[24:30]) == 64, "10.67"
    assert counts[30:] == [64, 64]
    assert SparseToDense.counts(256, 16, 2) == [128, 128]
    assert SparseToDense.counts(256, 16, 4) == [32, 32, 64, 128]


def test_tokens_of_the_last_stage_have_all_their_neighbours() -> None:
    noise = SampleNoise.from_seeds([0, 1])
    order = SparseToDense(noise, 128, 8, Sampling().complete())
    places = order.left_Bm
    assert torch.equal(places.sort(1).values, torch.arange(128).expand(2, -1)), "a permutation"
    assert not torch.equal(places[0], places[1]), "each sample has its own"
    row, column = places // 8, places % 8
    stage = torch.tensor([0, 2, 1, 2])[(row + column) % 4]
    assert torch.equal(stage, stage.sort(1).values), "stage after stage"
    for first, second in ((row[:, :32], column[:, :32]), (row[:, :64], column[:, :64])):
        apart = (first[:, :, None] - first[:, None]).abs() + (second[:, :, None] - second[:, None]).abs()
        same_frame = (places[:, : apart.shape[1], None] < 64) == (places[:, None, : apart.shape[1]] < 64)
        assert apart[same_frame & ~torch.eye(apart.shape[1], dtype=torch.bool)].min() == 2, "no neighbours"


@pytest.mark.parametrize("name", [name for name, one in PARADIGMS.items() if issubclass(one, MaskedFrames)])
def test_cached_and_recomputed_pasts_give_the_same_frames(
    name: str, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    model = make_model()
    paradigm = PARADIGMS[name](MaskRatio(), NoiseInjection(levels=0))
    settings = Sampling(mask_steps=5, denoise_steps=2, order="sparse-to-dense").resolve(model.diffusion_head)
    given = torch.randn(2, model.num_tokens, model.token_dim, generator=torch.Generator().manual_seed(0))
    pasts = [
        paradigm.make_recomputed_past(model),
        paradigm.make_past(model, 2, 4),
        begin_past(paradigm, model, 2, 4, settings),
    ]
    frames = []
    for past in pasts:
        noise = SampleNoise.from_seeds([0, 1])
        rollout = Rollout(model, paradigm, noise, settings, torch.ones(2, dtype=torch.long), 4, past=past)
        rollout.observe(given)
        frames.append(torch.stack([rollout.predict() for _ in range(3)], dim=1))
    assert torch.allclose(frames[0], frames[1], atol=1e-4) and torch.allclose(frames[0], frames[2], atol=1e-4)


def test_the_tokens_appear_stage_after_stage(make_model: Callable[..., MagiVideoTransformer]) -> None:
    """What each mask step of a frame of 4 × 4 tokens predicts, in generation."""
    model = make_model()
    paradigm = PARADIGMS["complete"](MaskRatio(), NoiseInjection(levels=0))
    settings = Sampling(mask_steps=4, denoise_steps=2, order="sparse-to-dense").resolve(model.diffusion_head)
    past, seen = begin_past(paradigm, model, 1, 2, settings), []
    sample = past.sample

    def watch(head: Any, frames: Any, places_Rn: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(sorted(places_Rn[0].tolist()))
        return sample(head, frames, places_Rn, *rest)

    past.sample = watch  # type: ignore[method-assign]
    Rollout(
        model, paradigm, SampleNoise.from_seeds([0]), settings, torch.ones(1, dtype=torch.long), 2, past=past
    ).predict()
    assert [len(places) for places in seen] == [2, 2, 4, 8]
    assert sorted(seen[0] + seen[1]) == [0, 7, 10, 13]
    assert seen[2] == [2, 5, 8, 15]
    assert seen[3] == [1, 3, 4, 6, 9, 11, 12, 14]


def test_raster_has_an_order_of_its_own() -> None:
    paradigm = PARADIGMS["raster"](MaskRatio(), NoiseInjection(levels=0))
    with pytest.raises(MagiError, match="order of its own"):
        paradigm.check_sampling(Sampling(order="sparse-to-dense"))
