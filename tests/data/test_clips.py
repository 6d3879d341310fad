import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from magi_video.data.clips import ClipDataset, ClipRequest, ClipSampler, PixelReader, clip_frames, max_interval
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.video.image import to_uint8
from tests.data.examples import frame_numbers, write_actions, write_numbered

LENGTHS = {"a/0.mp4": 4, "a/1.mp4": 5, "b/2.mp4": 12, "b/3.mp4": 80}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> VideoFolder:
    root = tmp_path_factory.mktemp("clips")
    for name, count in LENGTHS.items():
        write_numbered(root / name, count)
    actions = [{"frame": i, "action": {"GO": i, "FIRE": i % 2}} for i in range(80)]
    write_actions(root / "b/3.mp4", actions)
    (root / "b/recording.json").write_text(json.dumps({"action_names": ["GO", "FIRE"]}))
    return VideoFolder(root)


def dataset(folder: VideoFolder, length: int = 5, **settings: int) -> ClipDataset:
    return ClipDataset(folder, PixelReader(folder, 32, 48), length, **settings)


class NumberReader:
    """Gives the frame numbers themselves: [T, 1]."""

    grid = None

    def read(self, video: int, frames: Sequence[int], mirrored: bool = False) -> torch.Tensor:
        return torch.tensor(frames, dtype=torch.float32)[:, None]


def numbers(item: dict[str, torch.Tensor]) -> list[int]:
    return frame_numbers(to_uint8(item["frames"]))


@given(st.integers(1, 300), st.integers(2, 40))
def test_the_largest_interval_fits_and_the_next_does_not(num_frames: int, length: int) -> None:
    largest = max_interval(num_frames, length)
    assert (num_frames < length) == (largest == 0)
    if largest:
        assert clip_frames(0, largest, length)[-1] < num_frames <= clip_frames(0, largest + 1, length)[-1]


def test_clip_frames_are_exact_strides() -> None:
    assert clip_frames(7, 3, 4) == [7, 10, 13, 16]
    assert clip_frames(7, 25, 1) == [7]
    assert max_interval(1, 1) > 25 and max_interval(0, 1) == 0


def test_frames_have_exactly_the_reported_interval_and_stay_inside(folder: VideoFolder) -> None:
    clips = ClipDataset(folder, NumberReader(), 5, max_interval=25)
    assert clips.left_out == 1 and len(clips) == 3
    allowed = {0: range(1, 2), 1: range(1, 3), 2: range(1, 20)}
    seen: dict[int, set[int]] = {i: set() for i in allowed}
    starts = set()
    for index, seed in itertools.product(allowed, range(60)):
        item = clips[ClipRequest(index, seed)]
        interval, found = int(item["interval"]), item["frames"][:, 0].int().tolist()
        assert found == clip_frames(found[0], interval, 5)
        assert found[-1] < folder.videos[clips.videos[index]].num_frames
        seen[index].add(interval)
        if index == 1:
            starts.add((interval, found[0]))
    assert seen[0] == {1} and seen[1] == {1, 2} and seen[2] <= set(range(1, 20)) and len(seen[2]) > 14
    assert starts == {(1, s) for s in range(8)} | {(2, s) for s in range(4)}  # every start, the last one too


def test_items_have_the_stated_shapes_and_values(folder: VideoFolder) -> None:
    item = dataset(folder)[ClipRequest(1, 3)]
    assert item["frames"].shape == (5, 3, 32, 48) and item["frames"].dtype == torch.float32
    assert -1 <= item["frames"].min() < -0.9 and 0.9 < item["frames"].max() <= 1
    assert item["interval"].shape == () and item["interval"].dtype == torch.int64
    assert item["label"].dtype == torch.int64 and int(item["label"]) == 1
    assert item["action"].shape == (5, 2) and not item["action"].any() and not item["action_known"].any()


def test_actions_are_the_mean_on_the_way_between_two_frames(folder: VideoFolder) -> None:
    for seed in range(10):
        item = dataset(folder)[ClipRequest(2, seed)]
        frames, interval = numbers(item), int(item["interval"])
        assert item["action_known"].tolist() == [False, True, True, True, True]
        assert item["action"][0].tolist() == [0, 0]
        for t in range(1, 5):
            way = range(frames[t - 1], frames[t])
            assert len(way) == interval
            expected = [sum(way) / interval, sum(i % 2 for i in way) / interval]
            assert item["action"][t].tolist() == pytest.approx(expected)


def test_action_columns_can_be_chosen(folder: VideoFolder) -> None:
    clips = ClipDataset(folder, PixelReader(folder, 32, 48), 5, action_names=["OTHER", "GO"])
    action = clips[ClipRequest(2, 0)]["action"]
    assert action.shape == (5, 2) and not action[:, 0].any() and action[1:, 1].all()


def test_clips_without_a_way_between_frames_or_without_columns(folder: VideoFolder) -> None:
    alone = dataset(folder, length=1)[ClipRequest(3, 0)]
    assert alone["action"].tolist() == [[0, 0]] and alone["action_known"].tolist() == [False]
    clips = ClipDataset(folder, PixelReader(folder, 32, 48), 5, action_names=[])
    assert clips[ClipRequest(2, 0)]["action"].shape == (5, 0)


def test_a_latent_frame_has_the_mean_of_the_actions_of_the_frames_it_holds(folder: VideoFolder) -> None:
    alone = dataset(folder, length=9, min_interval=2, max_interval=2)
    held = dataset(folder, length=9, min_interval=2, max_interval=2, temporal_factor=4)
    number = next(i for i, video in enumerate(held.videos) if folder.videos[video].num_frames == 80)
    one, four = (clips[ClipRequest(number, 5)] for clips in (alone, held))
    assert torch.equal(one["frames"], four["frames"])
    assert one["action"].shape == (9, 2) and four["action"].shape == (3, 2)
    assert four["action_known"].tolist() == [False, True, True] and not four["action"][0].any()
    assert torch.allclose(four["action"][1:], one["action"][1:].reshape(2, 4, 2).mean(1))
    with pytest.raises(MagiError, match="expected 1 \\+ a multiple of 4"):
        dataset(folder, length=8, temporal_factor=4)


def test_a_flipped_clip_is_the_same_clip_mirrored_and_nothing_else_is_drawn_anew(folder: VideoFolder) -> None:
    reader = PixelReader(folder, 32, 48)
    plain, flipped, coin = (ClipDataset(folder, reader, 5, flip=flip) for flip in (0.0, 1.0, 0.5))
    mirrored = []
    for seed in range(60):
        request = ClipRequest(seed % len(plain), seed)
        as_it_is, mirror, either = plain[request], flipped[request], coin[request]
        assert torch.equal(mirror["frames"], as_it_is["frames"].flip(-1))
        assert not torch.equal(mirror["frames"], as_it_is["frames"])
        assert all(torch.equal(mirror[name], as_it_is[name]) for name in as_it_is if name != "frames")
        mirrored.append(torch.equal(either["frames"], mirror["frames"]))
        assert mirrored[-1] or torch.equal(either["frames"], as_it_is["frames"])
    assert 15 <= sum(mirrored) <= 45


def test_a_fixed_interval_leaves_out_what_is_too_short(folder: VideoFolder) -> None:
    clips = dataset(folder, min_interval=3, max_interval=3)
    assert clips.left_out == 3 and int(clips[ClipRequest(0, 0)]["interval"]) == 3
    with pytest.raises(MagiError, match="at least 81 frames"):
        dataset(folder, length=81)
    for bad in ({"length": 0}, {"min_interval": 0}, {"min_interval": 3, "max_interval": 2}):
        with pytest.raises(MagiError):
            dataset(folder, **bad)


def test_unlabelled_videos(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", 6)
    folder = VideoFolder(tmp_path)
    item = dataset(folder)[ClipRequest(0, 0)]
    assert int(item["label"]) == -1 and item["action"].shape == (5, 0) and item["action_known"].shape == (5,)


def test_sampler_passes_over_every_item_once_an_epoch_in_a_new_order() -> None:
    requests = list(itertools.islice(ClipSampler(7, seed=3), 70))
    epochs = [[r.index for r in requests[i : i + 7]] for i in range(0, 70, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5
    assert len({r.seed for r in requests}) == 70
    assert requests != list(itertools.islice(ClipSampler(7, seed=4), 70))


@pytest.mark.parametrize("start", [0, 1, 6, 7, 8, 23])
def test_a_resumed_sampler_continues_exactly(start: int) -> None:
    whole = list(itertools.islice(ClipSampler(7, seed=3), 40))
    assert list(itertools.islice(ClipSampler(7, seed=3, start=start), 40 - start)) == whole[start:]


def test_loader_processes_do_not_change_the_clips(folder: VideoFolder) -> None:
    clips = dataset(folder, max_interval=4)
    batches = [
        list(itertools.islice(DataLoader(clips, batch_size=4, sampler=ClipSampler(len(clips), 0), num_workers=n), 3))
        for n in (0, 2)
    ]
    for one, other in zip(*batches, strict=True):
        assert one["frames"].shape == (4, 5, 3, 32, 48)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_frame_rate_is_that_of_the_videos_in_use(tmp_path: Path) -> None:
    lengths = {"0.mp4": (4, 60.0), "1.mp4": (9, 10.0), "2.mp4": (9, 12.5), "3.mp4": (9, 12.5)}
    for name, (count, rate) in lengths.items():
        write_numbered(tmp_path / name, count, rate)
    folder = VideoFolder(tmp_path)
    assert dataset(folder).frame_rates == [12.5, 10.0], "the first is too short for a clip"
    folder.videos[1:] = [replace(video, frame_rate=0.0) for video in folder.videos[1:]]
    assert dataset(folder).frame_rates == []
