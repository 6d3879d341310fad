"""Training clips that show a sparse past: which frames they have, what is learned of them, and nothing else changes."""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from magi_video.bench.hardware import Hardware
from magi_video.bench.plan import make_plan
from magi_video.data.clips import ClipDataset, ClipRequest
from magi_video.data.sparse_past import SparsePast
from magi_video.errors import MagiError
from magi_video.exposure.memory import FrameMemory
from magi_video.files.json import read_json
from magi_video.models.sequence import Clip
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS
from magi_video.paradigms.base import make_paradigm
from magi_video.presets import load_preset
from magi_video.recipe import Preset
from magi_video.sampling.sampling import Sampling
from magi_video.training.run import train
from magi_video.training.sizing import unlearned_frames
from tests.training.conftest import tiny_recipe
from tests.training.test_trainer import final_state

MEMORY = FrameMemory(window=8, sink=2, strided=2, stride=3)
LENGTHS = 8, 9, 30, 90
"""Of the videos: of the first none has a rollout beyond the window."""


class Numbers:
    """Videos without files: frames are their own numbers `[T, 1]`, and so are the actions that follow them."""

    root, class_names, skipped = Path("numbers"), list[str](), list[str]()
    action_names = ("NUMBER",)
    videos = tuple(SimpleNamespace(num_frames=length, label=None, frame_rate=10.0) for length in LENGTHS)
    grid = None

    def read(self, video: int, frames: Sequence[int], mirrored: bool = False) -> torch.Tensor:
        return torch.tensor(frames)[:, None]

    def actions(self, video: int, names: Sequence[str]) -> np.ndarray:
        return np.arange(LENGTHS[video], dtype=np.float32)[:, None]


def clips(share: float, **settings: Any) -> ClipDataset:
    past = SparsePast(share, MEMORY) if share else None
    numbers: Any = Numbers()
    return ClipDataset(numbers, numbers, MEMORY.window, **{"max_interval": 2, "sparse_past": past} | settings)


@given(st.integers(4, 12), st.integers(0, 10), st.integers(0, 10), st.integers(2, 7), st.integers(1, 60))
def test_the_frames_in_sight_are_those_that_a_rollout_comes_to(
    window: int, sink: int, strided: int, stride: int, newest: int
) -> None:
    sink, strided = min(sink, window - 2), min(strided, window - 2 - min(sink, window - 2))
    memory, seen = FrameMemory(window, sink, strided, stride), list[int]()
    for frame in range(newest + 1):
        seen = memory.seen_by(frame, seen)
    assert memory.in_sight(newest) == seen


def test_clips_show_what_a_rollout_beyond_the_window_has_in_sight() -> None:
    found: set[tuple[int, int]] = set()
    for video, length in enumerate(LENGTHS):
        for seed in range(150):
            item = clips(1.0)[ClipRequest(video, seed)]
            frames, interval = item["frames"][:, 0].tolist(), int(item["interval"])
            rollout = [(frame - frames[0]) // interval for frame in frames]
            assert frames[0] >= 0 and frames[-1] < length
            if (length - 1) // interval < MEMORY.window:
                assert rollout == list(range(MEMORY.window)) and item["learned"].all()
                continue
            assert rollout == MEMORY.in_sight(rollout[-1]) and rollout[-1] >= MEMORY.window
            follows = [True] + [after - before == 1 for before, after in pairwise(rollout)]
            assert item["learned"].tolist() == follows and not all(follows)
            expected = [0.0] + [frame - (interval + 1) / 2 for frame in frames[1:]]  # mean of the interval before each
            assert item["action"][:, 0].tolist() == expected
            found |= {(frames[0], rollout[-1])} if (length, interval) == (30, 1) else set()
    assert max(newest for _, newest in found) > 25 and len({start for start, _ in found}) > 10


def test_the_other_clips_are_those_of_a_training_without_it() -> None:
    plain, half = clips(0.0), clips(0.5)
    sparse = 0
    for seed in range(200):
        one, other = plain[ClipRequest(3, seed)], half[ClipRequest(3, seed)]
        assert one["interval"] == other["interval"] and one["learned"].all()
        same = torch.equal(one["frames"], other["frames"])
        assert same == bool(other["learned"].all())
        assert not same or all(torch.equal(one[name], other[name]) for name in one)
        sparse += not same
    assert 70 < sparse < 130
    with pytest.raises(MagiError, match="expected as many"):
        clips(0.5, temporal_factor=7)


CACHED = [name for name, paradigm in PARADIGMS.items() if paradigm.frame_cache]


@pytest.mark.parametrize("name", CACHED)
def test_a_frame_after_a_gap_has_no_loss_and_is_seen(
    name: str, make_model: Callable[..., MagiVideoTransformer], clip: Clip
) -> None:
    """Of many draws, since some paradigms learn one frame of a clip."""
    paradigm, model = make_paradigm(name), make_model(forcing=name, temporal_position="rope")
    learned_BT = torch.tensor([[True, False, True, True, False]] * 2)

    def loss(of: Clip, seed: int = 0) -> tuple[float, float]:
        total, count = paradigm.total_loss(model, of, torch.Generator().manual_seed(seed))
        return float(total), float(count)

    def changed(frame: int) -> Clip:
        tokens_BTND = clip.tokens_BTND.clone()
        tokens_BTND[:, frame] += 1
        return dataclasses.replace(clip, tokens_BTND=tokens_BTND, learned_BT=learned_BT)

    sparse = dataclasses.replace(clip, learned_BT=learned_BT)
    with torch.no_grad():
        every = dataclasses.replace(clip, learned_BT=torch.ones_like(learned_BT))
        assert loss(every) == loss(clip)
        seeds = range(8)
        assert all(loss(sparse, seed) == loss(changed(4), seed) for seed in seeds), "the last frame is not learned"
        assert any(loss(sparse, seed)[0] != loss(changed(1), seed)[0] for seed in seeds), "frame 1 is seen"
        assert any(loss(sparse, seed)[0] != loss(changed(3), seed)[0] for seed in seeds), "frame 3 is learned"
        assert all(0 < loss(sparse, seed)[1] <= loss(clip, seed)[1] for seed in seeds)


def sparse_recipe(**train_settings: Any) -> Preset:
    preset = tiny_recipe(**train_settings)
    return dataclasses.replace(
        preset,
        data=dataclasses.replace(preset.data, num_frames=6, max_interval=2, sparse_past=0.5),
        model=dataclasses.replace(preset.model, temporal_position="rope", actions=True),
        sample=Sampling.of(preset.sample, sink_frames=1, strided_frames=2, past_stride=3),
    )


def test_training_resumes_to_the_bit_and_keeps_to_what_it_shows(videos: Path, tmp_path: Path) -> None:
    train(sparse_recipe(steps=4), videos, tmp_path / "whole", seed=3)
    train(sparse_recipe(steps=3), videos, tmp_path / "halves", seed=3)
    train(sparse_recipe(steps=4), videos, tmp_path / "halves", seed=3)
    whole, halves = final_state(tmp_path / "whole", 4), final_state(tmp_path / "halves", 4)
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    assert read_json(tmp_path / "whole" / "model_index.json")["sampling"]["strided_frames"] == 2
    preset = sparse_recipe(steps=5)
    with pytest.raises(MagiError, match="past_stride"):
        train(dataclasses.replace(preset, sample=Sampling.of(preset.sample, past_stride=2)), videos, tmp_path / "whole")
    with pytest.raises(MagiError, match="sparse_past"):
        train(
            dataclasses.replace(preset, data=dataclasses.replace(preset.data, sparse_past=0.0)),
            videos,
            tmp_path / "whole",
        )
    train(
        dataclasses.replace(preset, sample=Sampling.of(preset.sample, mask_steps=2)), videos, tmp_path / "whole", seed=3
    )


@pytest.mark.parametrize(("group", "settings", "message"), [
    ("sample", {"sink_frames": None, "strided_frames": None, "past_stride": None}, "give 1 to 4 of them together"),
    ("sample", {"sink_frames": 3, "strided_frames": 2}, "got 5"),
    ("model", {"temporal_position": "interpolate"}, "relative positions"),
    ("exposure", {"exposure": "resampling"}, "follow no neighbour"),
    (None, {"forcing": "raster"}, "frame cache; raster does not"),
])  # fmt: skip
def test_recipes_that_could_never_see_such_a_past_are_refused(
    group: str | None, settings: dict[str, Any], message: str
) -> None:
    preset = sparse_recipe()
    changes = settings if group is None else {group: dataclasses.replace(getattr(preset, group), **settings)}
    with pytest.raises(MagiError, match=message):
        dataclasses.replace(preset, **changes)


@pytest.mark.parametrize("keeps", [(4, 4, 8), (0, 3, 2), (5, 0, None), (1, 2, 5)])
def test_the_plan_counts_the_frames_without_a_loss(keeps: tuple[int, int, int | None]) -> None:
    coinrun = load_preset("coinrun")
    sample = Sampling.of(
        coinrun.sample, **dict(zip(("sink_frames", "strided_frames", "past_stride"), keeps, strict=True))
    )
    preset = dataclasses.replace(coinrun, sample=sample, data=dataclasses.replace(coinrun.data, sparse_past=0.5))
    memory = FrameMemory.of(16, sample)
    assert memory is not None
    sights = [memory.in_sight(newest) for newest in range(200, 200 + 40)]
    gaps = [sum(after - before > 1 for before, after in pairwise(one)) for one in sights]
    assert unlearned_frames(preset) == pytest.approx(0.5 * np.mean(gaps), rel=0.03)
    machine = Hardware("a CPU", float32_tflops=1.0, bf16_tflops=1.0, memory_gib=16.0)
    plain, sparse = (make_plan("coinrun", one, 1, machine) for one in (coinrun, preset))
    assert sparse.flops.head < plain.flops.head and sparse.flops.total < plain.flops.total
    assert sparse.given.memory == plain.given.memory
