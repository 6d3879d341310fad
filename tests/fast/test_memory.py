"""Frames that stay in sight beyond the window: which they are, where they are seen, and that keeping them is exact."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.exposure.memory import FrameMemory, find_memory
from magi_video.fast.graph_engine import not_covered
from magi_video.fast.job import Job
from magi_video.fast.memory import MemoryCache
from magi_video.fast.past import FastPast
from magi_video.fast.speed import begin_past, restore
from magi_video.models.cache import LayerCache
from magi_video.models.dropout import Dropout
from magi_video.models.embeddings import rotary_angles, rotate
from magi_video.models.layers import TemporalLayer
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import CompleteTeacherForcing
from magi_video.paradigms.base import make_paradigm
from magi_video.sampling.past import Past, pick
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


class ApartLayer(TemporalLayer):
    """Attention along time as it is defined, where each frame sees the others at positions of its own."""

    position_SS: Tensor

    def forward(
        self,
        x_BSLW: Tensor,
        mask_QS: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        q, k, v = self.along_time(x_BSLW, None)
        attended = []
        for row, position_S in enumerate(self.position_SS):
            cos, sin = rotary_angles(position_S, q.shape[-1])
            turned = rotate(q[:, :, :, row : row + 1], cos[row], sin[row])
            assert mask_QS is not None
            attended.append(self.attend(turned, rotate(k, cos, sin), v, mask_QS[row : row + 1]))
        return self.finish(x_BSLW, torch.cat(attended, dim=3).permute(0, 3, 1, 2, 4))


class Recomputed(Past):
    """All frames so far, read again in every pass: no cache, and no key that is moved."""

    def __init__(self, model: MagiVideoTransformer, memory: FrameMemory) -> None:
        self.model, self.memory, self.frames = restore(deepcopy(model)), memory, list[FrameSequence]()

    def append(self, frame: FrameSequence) -> None:
        self.frames.append(frame)

    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        sequence, count = FrameSequence.join([*self.frames, frame]), len(self.frames) + 1
        sequence.mask_SS = torch.zeros(count, count, dtype=torch.bool)
        position_SS = torch.zeros(count, count, dtype=torch.float64)
        for row, seen in enumerate(sights(self.memory, count)):
            sequence.mask_SS[row, seen] = True
            position_SS[row, seen] = torch.arange(row + 1 - len(seen), row + 1, dtype=torch.float64)
        for block in self.model.blocks:
            block.temporal.__class__ = ApartLayer  # type: ignore[assignment]
            block.temporal.position_SS = position_SS  # type: ignore[assignment]
        return pick(self.model(sequence)[:, -1], places_Bn)


def fast(model: MagiVideoTransformer, sampling: Sampling, total: int | None = None) -> FastPast:
    past = begin_past(CompleteTeacherForcing(), model, 2, total, sampling)
    assert isinstance(past, FastPast)
    return past


def roll(
    model: MagiVideoTransformer,
    sampling: Sampling,
    past: Past,
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


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_cached_and_recomputed_give_the_same_frames(model: MagiVideoTransformer, guidance_scale: float) -> None:
    sampling = Sampling.of(KEEPS, guidance_scale=guidance_scale, guide=("action",)).resolve(model.diffusion_head)
    memory = find_memory(model, CompleteTeacherForcing(), sampling)
    assert memory is not None
    recomputed = roll(model, sampling, Recomputed(model, memory))
    cached = roll(model, sampling, fast(model, sampling))
    assert torch.allclose(cached, recomputed, atol=1e-4, rtol=1e-4)
    window = roll(model, sampling, fast(model, Sampling.of(sampling, sink_frames=0, strided_frames=0)))
    assert torch.allclose(window[:, :WINDOW], cached[:, :WINDOW], atol=1e-4, rtol=1e-4), (
        "nothing differs while all frames fit"
    )
    assert not torch.allclose(window[:, WINDOW:], cached[:, WINDOW:], atol=1e-2)
    reused = Sampling.of(sampling, refresh=2)
    assert roll(model, reused, fast(model, reused)).isfinite().all()


def test_a_kept_frame_matters_and_one_that_has_left_does_not(make_model: Callable[..., MagiVideoTransformer]) -> None:
    model = make_model(temporal_position="rope", num_frames=4, depth=1)  # of one block: sight is dependence

    def last(sampling: Sampling, first: float) -> Tensor:
        return roll(model, sampling, fast(model, sampling), frames=12, given=11, first=first)[:, -1]

    sink = Sampling.of(STEPS, sink_frames=1)
    strided = Sampling.of(STEPS, strided_frames=2, past_stride=4)
    assert torch.equal(last(STEPS, 0), last(STEPS, 3)) and torch.equal(last(strided, 0), last(strided, 3))
    assert not torch.allclose(last(sink, 0), last(sink, 3), atol=1e-3)


def test_what_it_holds_does_not_grow(model: MagiVideoTransformer) -> None:
    past, window = fast(model, KEEPS), fast(model, STEPS)
    before = past.cache.nbytes
    unbounded = roll(model, KEEPS, past, frames=20)
    assert past.cache.nbytes == before <= 1.3 * window.cache.nbytes
    assert torch.equal(unbounded, roll(model, KEEPS, fast(model, KEEPS, 20), 20, total=20))
    assert not isinstance(fast(model, KEEPS, WINDOW).cache, MemoryCache), "all of a short rollout is in sight"


def test_half_precision_moves_keys_without_adding_up_errors(model: MagiVideoTransformer) -> None:
    model = model.to(torch.bfloat16)
    past = fast(model, Sampling.of(STEPS, sink_frames=1, strided_frames=1, past_stride=50))
    roll(model, STEPS, past, frames=120, given=120)
    cache = past.cache
    assert isinstance(cache, MemoryCache)
    at, row = cache._slots[0], cache._rows[0]
    moved, written = cache.layers[0].keys[:, :, :, at].float(), cache.unmoved[0][:, :, :, row].float()
    assert torch.allclose(moved.norm(dim=-1), written.norm(dim=-1), rtol=0.01), "a turn keeps lengths"
    assert not torch.allclose(moved, written, rtol=0.1)


def test_graphs_leave_it_to_pytorch(model: MagiVideoTransformer) -> None:
    for sampling, covered in ((STEPS, True), (KEEPS, False)):
        problem = not_covered(Job(CompleteTeacherForcing(), model, None, sampling.resolve(model.diffusion_head)))
        assert problem is None if covered else problem is not None and "at other positions" in problem


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
    with pytest.raises(MagiError, match="held by the cache"):
        begin_past(complete, relative, 1, None, Sampling(sink_frames=1), use_cache=False)
    for sampling in (Sampling(sink_frames=1), Sampling(strided_frames=1)):
        with pytest.raises(MagiError, match="need a past that keeps them"):
            Rollout(relative, complete, SampleNoise.from_seeds([0]), sampling, torch.ones(1).long(), None)
    assert find_memory(relative, complete, Sampling(sink_frames=0)) is None
    assert find_memory(relative, make_paradigm("diffusion"), Sampling(sink_frames=1)) is not None
