"""Rollouts: cached equals uncached, batches do not matter, limits are told."""

from collections.abc import Callable

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import MASKED, OBSERVATION
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.sampling import Sampling
from tests.rollouts import start_rollout

SETTINGS = Sampling(mask_steps=3, denoise_steps=4)


def roll(
    model: MagiVideoTransformer,
    seeds: list[int],
    frames: int,
    given: torch.Tensor | None = None,
    actions: torch.Tensor | None = None,
    kind: int = OBSERVATION,
    use_cache: bool = True,
    total: int | None = None,
    settings: Sampling = SETTINGS,
) -> torch.Tensor:
    rollout = start_rollout(model, seeds, settings, total or frames, kind=kind, use_cache=use_cache, interval=2)
    made = []
    for t in range(frames):
        conditions = {} if actions is None or t == 0 else {"action": actions[:, t]}
        if given is not None and t < given.shape[1]:
            rollout.observe(given[:, t], conditions)
        else:
            made.append(rollout.predict(conditions))
    return torch.stack(made, dim=1)


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("given", [0, 1, 3])
@pytest.mark.parametrize("kind", [OBSERVATION, MASKED])
@pytest.mark.parametrize("temporal_position", ["interpolate", "rope"])
def test_cached_and_uncached_give_the_same_frames(
    make_model: Callable[..., MagiVideoTransformer],
    temporal_position: str,
    kind: int,
    given: int,
    joined: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The uncached path reads every frame whole and asks for every output: what is left out, nobody needs."""
    monkeypatch.setattr("magi_video.fast.past.JOINED_PLACES", 1000 if joined else 0)
    model = make_model(temporal_position=temporal_position)
    frames = 8  # past the 5 trained ones: positions interpolate, or the window slides
    begin = torch.randn(2, given, 16, 12) if given else None
    actions = torch.rand(2, frames, 3)
    cached = roll(model, [1, 2], frames, begin, actions, kind)
    uncached = roll(model, [1, 2], frames, begin, actions, kind, use_cache=False)
    assert cached.std() > 0.1
    assert torch.allclose(cached, uncached, atol=1e-4, rtol=1e-4)


def test_a_frame_costs_one_pass_a_mask_step_when_two_frames_share_the_first(model: MagiVideoTransformer) -> None:
    lengths: list[int] = []
    model.blocks[0].register_forward_hook(lambda _block, inputs, _out: lengths.append(inputs[0].shape[1]))
    roll(model, [1], 3)
    assert lengths == [1, 1, 1, 2, 1, 1, 2, 1, 1], "3 mask steps; the frame before joins the first of them"


def test_the_last_block_finishes_only_the_places_to_be_predicted(model: MagiVideoTransformer) -> None:
    rows: list[int] = []
    model.blocks[-1].temporal.mlp_in.register_forward_hook(lambda _m, _inputs, out: rows.append(out.shape[2]))  # type: ignore[union-attr]
    roll(model, [1], 2)
    assert sum(rows) == 2 * 16


def test_a_bfloat16_model_rolls_out_with_its_head_and_conditions(model: MagiVideoTransformer) -> None:
    actions = torch.rand(1, 3, 3)
    rough = roll(model.to(torch.bfloat16), [1], 3, None, actions)
    assert rough.dtype == torch.float32 and rough.isfinite().all()


def test_reused_work_is_a_fraction_and_near_the_exact_result(model: MagiVideoTransformer) -> None:
    rows: list[int] = []
    model.blocks[0].spatial.mlp_in.register_forward_hook(lambda _m, _inputs, out: rows.append(out[0].shape[:2].numel()))  # type: ignore[union-attr]
    exact = roll(model, [1, 2], 4, settings=Sampling(None, 8, 4))
    whole, rows[:] = sum(rows), []
    reused = roll(model, [1, 2], 4, settings=Sampling(None, 8, 4, refresh=8))
    assert sum(rows) < 0.45 * whole
    assert (reused - exact).square().mean() < 0.1 * exact.square().mean() and not torch.equal(reused, exact)
    assert torch.equal(roll(model, [1, 2], 4, settings=Sampling(None, 8, 4, refresh=1)), exact)


def test_reused_work_is_exact_where_places_do_not_see_each_other(model: MagiVideoTransformer) -> None:
    for block in model.blocks:
        torch.nn.init.zeros_(block.spatial.project.weight)  # type: ignore[union-attr, arg-type]
    exact = roll(model, [3, 4], 4, settings=Sampling(None, 8, 4))
    reused = roll(model, [3, 4], 4, settings=Sampling(None, 8, 4, refresh=3))
    assert torch.allclose(reused, exact, atol=1e-5)


def test_a_sample_depends_on_its_own_seed_alone(model: MagiVideoTransformer) -> None:
    begin = torch.randn(1, 1, 16, 12)
    four = roll(model, [5, 6, 7, 8], 4, begin.expand(4, -1, -1, -1))
    one = roll(model, [7], 4, begin)
    assert torch.allclose(four[2], one[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(four[2], four[1], atol=1e-2)


def test_orders_differ_between_samples() -> None:
    order = SampleNoise.from_seeds([1, 2]).permutation(16)
    assert not torch.equal(order[0], order[1])
    assert torch.equal(order.sort(-1).values, torch.arange(16).expand(2, -1))


def test_actions_and_interval_change_what_follows_not_what_was(model: MagiVideoTransformer) -> None:
    begin = torch.randn(1, 1, 16, 12)
    actions = torch.zeros(1, 5, 3)
    other = actions.clone()
    other[:, 3] = 4.0
    one, two = roll(model, [1], 5, begin, actions), roll(model, [1], 5, begin, other)
    assert torch.equal(one[:, :2], two[:, :2]) and not torch.allclose(one[:, 2:], two[:, 2:], atol=1e-3)


def test_going_past_the_planned_length_is_an_error_that_says_so(model: MagiVideoTransformer) -> None:
    rollout = start_rollout(model, [0], SETTINGS, 3)
    for _ in range(3):
        rollout.predict()
    with pytest.raises(MagiError, match="planned for 3 frames"):
        rollout.predict()


def test_unbounded_rollouts_need_relative_positions(
    model: MagiVideoTransformer, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    with pytest.raises(MagiError, match="rope"):
        start_rollout(model, [0], SETTINGS, None)
    rollout = start_rollout(make_model(temporal_position="rope"), [0], SETTINGS, None)
    frames = [rollout.predict() for _ in range(12)]
    assert all(frame.isfinite().all() for frame in frames)
    assert rollout.past.cache.layers[0].keys.shape[3] == 6, "memory stays that of the window and the next frame"  # type: ignore[union-attr]


@pytest.mark.parametrize("interval", [0, -1, 26])
def test_interval_out_of_range_is_refused(model: MagiVideoTransformer, interval: int) -> None:
    with pytest.raises(MagiError, match="1…25"):
        start_rollout(model, [0], SETTINGS, 3, interval=interval)


def test_positions_are_interpolated_beyond_the_trained_length(model: MagiVideoTransformer) -> None:
    assert model.frame_positions(3).tolist() == [0, 1, 2]
    positions = model.frame_positions(9)
    assert positions[0] == 0 and positions[-1] == 4 and torch.allclose(positions.diff(), torch.tensor(0.5).double())


def test_memory_of_the_cache_is_that_of_its_frames(model: MagiVideoTransformer) -> None:
    cache = model.make_cache(batch=2, capacity=7)
    # layers × batch × (16 tokens + 2 conditions) × frames × width, keys and values, 4 bytes
    assert cache.nbytes == 2 * (2 * 2 * 18 * 7 * 32) * 4
