"""Frames that stay in sight beyond the window: which they are, where they are seen, and that keeping them is exact."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.speed import begin_past
from magi_video.models.memory import FrameMemory
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import CompleteTeacherForcing
from magi_video.paradigms.base import make_paradigm
from magi_video.sampling.past import CachedPast, Past, find_memory
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling

STEPS = Sampling(mask_steps=2, denoise_steps=3)
KEEPS = Sampling.of(STEPS, sink_frames=1, strided_frames=2, past_stride=3)
WINDOW = 6


@pytest.fixture
def model(make_model: Callable[..., MagiVideoTransformer]) -> MagiVideoTransformer:
    return make_model(temporal_position="rope", num_frames=WINDOW)


def sights(memory: FrameMemory, frames: int) -> list[list[int]]:
    """Of each frame, the frames in its sight."""
    made: list[list[int]] = []
    for newest in range(frames):
        made.append(memory.seen_by(newest, made[-1] if made else []))
    return made


def roll(
    model: MagiVideoTransformer,
    sampling: Sampling,
    past: Past | None,
    frames: int = 16,
    total: int | None = None,
    given: int = 1,
    first: float = 0.0,
) -> Tensor:
    """Frames `[2, frames, N, D]` of two seeds, the first `given` of them given."""
    generator = torch.Generator().manual_seed(0)
    start_BTND = torch.randn(2, given, model.num_tokens, model.token_dim, generator=generator)
    start_BTND[:, 0] += first
    actions = torch.rand(frames, 2, 3, generator=generator)
    noise, interval = SampleNoise.from_seeds([1, 2]), torch.full((2,), 2)
    rollout = Rollout(model, CompleteTeacherForcing(), noise, sampling, interval, total, past=past)
    made = []
    for t in range(frames):
        conditions = {"action": actions[t]}
        if t < given:
            rollout.observe(start_BTND[:, t], conditions)
            made.append(start_BTND[:, t])
        else:
            made.append(rollout.predict(conditions))
    return torch.stack(made, dim=1)


def test_the_first_frames_and_every_kth_older_one_stay_and_the_latest_have_the_rest() -> None:
    seen = sights(FrameMemory(window=8, sink=2, strided=2, stride=3), 30)
    assert seen[7] == list(range(8)), "while all fit, all are in sight"
    assert seen[8] == [0, 1, 3, 4, 5, 6, 7, 8] and seen[9] == [0, 1, 3, 5, 6, 7, 8, 9]
    assert seen[20] == [0, 1, 12, 15, 17, 18, 19, 20] and seen[21] == [0, 1, 12, 15, 18, 19, 20, 21]
    assert sights(FrameMemory(8, 0, 0, 3), 30)[29] == list(range(22, 30)), "keeping none is the window"
    for memory in (
        FrameMemory(8, 2, 2, 3),
        FrameMemory(8, 0, 6, 2),
        FrameMemory(8, 6, 0, 5),
        FrameMemory(16, 1, 7, 16),
    ):
        every = sights(memory, 300)
        for newest, frames in enumerate(every):
            assert frames[-1] == newest and len(frames) == min(newest + 1, memory.window)
            assert frames[: memory.sink] == list(range(min(memory.sink, newest + 1)))
            latest = [frame for frame, at in zip(frames, memory.positions(frames), strict=True) if frame == at]
            older = frames[memory.sink : len(frames) - len(latest)]
            assert len(latest) >= min(newest + 1, memory.window - memory.kept), "these are the latest"
            assert all(frame % memory.stride == 0 for frame in older) and len(older) <= memory.strided
            assert newest == 0 or set(frames) - {newest} <= set(every[newest - 1]), "what is gone does not come back"


@pytest.mark.parametrize("refresh", [1, 2])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_cached_and_recomputed_give_the_same_frames(
    model: MagiVideoTransformer, guidance_scale: float, refresh: int
) -> None:
    sampling = Sampling.of(KEEPS, guidance_scale=guidance_scale, guide=("action",)).resolve(model.diffusion_head)
    paradigm = CompleteTeacherForcing()
    recomputed = roll(model, sampling, begin_past(paradigm, model, 2, None, sampling, use_cache=False))
    plain = roll(model, sampling, None)
    assert torch.allclose(plain, recomputed, atol=1e-4, rtol=1e-4)
    window = roll(model, Sampling.of(sampling, sink_frames=0, strided_frames=0), None)
    assert torch.allclose(window[:, :WINDOW], plain[:, :WINDOW], atol=1e-5), "nothing differs while all frames fit"
    assert not torch.allclose(window[:, WINDOW:], plain[:, WINDOW:], atol=1e-2)
    sampling = Sampling.of(sampling, refresh=refresh).resolve(model.diffusion_head)
    fast = roll(model, sampling, begin_past(paradigm, model, 2, None, sampling))
    if refresh == 1:
        assert torch.allclose(fast, recomputed, atol=1e-4, rtol=1e-4)
    assert fast.isfinite().all()


def test_a_kept_frame_matters_and_one_that_has_left_does_not(make_model: Callable[..., MagiVideoTransformer]) -> None:
    model = make_model(temporal_position="rope", num_frames=4, depth=1)  # of one block: sight is dependence

    def last(sampling: Sampling, first: float) -> Tensor:
        return roll(model, sampling, None, frames=12, given=11, first=first)[:, -1]

    sink = Sampling.of(STEPS, sink_frames=1)
    strided = Sampling.of(STEPS, strided_frames=2, past_stride=4)
    assert torch.equal(last(STEPS, 0), last(STEPS, 3)) and torch.equal(last(strided, 0), last(strided, 3))
    assert not torch.allclose(last(sink, 0), last(sink, 3), atol=1e-3)


def test_what_it_holds_does_not_grow(model: MagiVideoTransformer) -> None:
    memory = find_memory(model, CompleteTeacherForcing(), KEEPS)
    past = CachedPast(model, 2, None, memory=memory)
    window = CachedPast(model, 2, None)
    before = past.cache.nbytes
    roll(model, KEEPS, past, frames=20)
    assert past.cache.nbytes == before <= 1.3 * window.cache.nbytes
    assert torch.allclose(roll(model, KEEPS, None, 20), roll(model, KEEPS, None, 20, total=20))


def test_half_precision_moves_keys_without_adding_up_errors(model: MagiVideoTransformer) -> None:
    model = model.to(torch.bfloat16)
    past = CachedPast(model, 2, None, memory=FrameMemory(WINDOW, 1, 1, 50))
    roll(model, KEEPS, past, frames=120, given=120)
    layer = past.cache.layers[0]
    sink_slot, row = past.cache._slots[0], past.cache._rows[0]
    moved, written = (
        held.float().norm(dim=-1) for held in (layer.keys[:, :, :, sink_slot], layer.unmoved[:, :, :, row])
    )
    assert torch.allclose(moved, written, rtol=0.01), "a turn keeps lengths"


def test_what_cannot_be_kept_is_refused(make_model: Callable[..., MagiVideoTransformer]) -> None:
    complete, relative = CompleteTeacherForcing(), make_model(temporal_position="rope")
    with pytest.raises(MagiError, match="relative positions"):
        find_memory(make_model(), complete, Sampling(sink_frames=1))
    with pytest.raises(MagiError, match="3 at most together; got 2 and 2"):
        find_memory(relative, complete, Sampling(sink_frames=2, strided_frames=2))
    with pytest.raises(MagiError, match="give strided_frames"):
        find_memory(relative, complete, Sampling(past_stride=2))
    for name, options in (("window", {}), ("raster", {}), ("diffusion", {"schedule": "pyramid", "horizon": 3})):
        model = make_model(forcing=name, temporal_position="rope")
        with pytest.raises(MagiError, match="generates in another way"):
            find_memory(model, make_paradigm(name, options), Sampling(sink_frames=1))
    assert find_memory(relative, complete, Sampling(sink_frames=0)) is None
    assert find_memory(relative, make_paradigm("diffusion"), Sampling(sink_frames=1)) is not None
