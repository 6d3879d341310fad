"""The latent cache: what is written equals direct encoding, whoever writes it; what is damaged is told and mended."""

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from magi_video.data.clips import ClipDataset, ClipRequest, ClipSampler, PixelReader
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.latents.cache import LatentCache
from magi_video.latents.grid import ClipGrid
from tests.codecs.codec_examples import Causal4x
from tests.data.examples import write_numbered
from tests.latents.caches import SIZE, HalvingCodec, build, contents, shard, shards


class LeaningCodec(HalvingCodec):
    """Takes the left one of two pixels: the latents of a mirrored frame are not its latents mirrored."""

    def encode(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        self.encoded += video_BTCHW.shape[1]
        return video_BTCHW[..., ::2, ::2]


def test_mirror_images_are_encoded_for_themselves(folder: VideoFolder, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    build(folder, tmp_path / "cache", LeaningCodec())
    plain, pixels = contents(tmp_path / "cache"), PixelReader(folder, *SIZE)
    with pytest.raises(MagiError, match=r"no latents of mirrored videos.*--flip 0\.5 adds them"):
        _ = LatentCache(tmp_path / "cache").mirror
    codec = LeaningCodec()
    encoded = build(folder, tmp_path / "cache", codec, flips=True, progress=lambda *told: steps.append(told))
    assert codec.encoded == 25 + 1 and encoded.shards == [] and encoded.mirror is not None, "those that there were stay"
    assert steps[0] == (4, 8) and steps[-1] == (8, 8) and [done for done, _ in steps] == sorted(d for d, _ in steps)
    assert plain.items() <= contents(tmp_path / "cache").items(), "the cache itself is as it was"
    cache, differ = LatentCache(tmp_path / "cache"), False
    for video, info in enumerate(folder.videos):
        frames = range(info.num_frames)
        direct = LeaningCodec().encode(pixels.read(video, frames, mirrored=True)[None])[0]
        assert torch.allclose(cache.read(video, frames, mirrored=True), direct, atol=1e-3)
        differ |= not torch.allclose(cache.read(video, frames).flip(-1), direct, atol=1e-2)
    assert differ, "flipping the latents would be wrong"
    clips = ClipDataset(folder, cache, 3, flip=1.0)
    (loaded,) = DataLoader(clips, batch_sampler=[[ClipRequest(0, 5)]], num_workers=1)
    assert torch.equal(loaded["frames"][0], clips[ClipRequest(0, 5)]["frames"])
    # Neither kind passes for the other.
    with pytest.raises(MagiError, match="mirrored True → False"):
        build(folder, tmp_path / "cache" / "mirrored", LeaningCodec())
    shutil.rmtree(tmp_path / "cache" / "mirrored")
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    shutil.move(tmp_path / "copy", tmp_path / "cache" / "mirrored")
    with pytest.raises(MagiError, match="not the mirrored latents"):
        _ = LatentCache(tmp_path / "cache").mirror


def test_lost_mirror_images_are_encoded_again(folder: VideoFolder, tmp_path: Path) -> None:
    build(folder, tmp_path / "cache", flips=True)
    before = contents(tmp_path / "cache")
    shard(tmp_path / "cache" / "mirrored", 1).unlink()
    encoded = build(folder, tmp_path / "cache", flips=True)
    assert encoded.shards == [] and encoded.mirror is not None and encoded.mirror.shards == [1]
    assert contents(tmp_path / "cache") == before


def test_cached_latents_equal_direct_encoding(folder: VideoFolder, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    codec = HalvingCodec()
    encoded = build(folder, tmp_path / "cache", codec, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4), (4, 4)]
    assert codec.encoded == 25 + 1 and encoded.shards == list(range(len(encoded.cache.index.shards)))
    everything = []
    for video, info in enumerate(folder.videos):
        direct = HalvingCodec().encode(PixelReader(folder, *SIZE).read(video, range(info.num_frames))[None])[0].half()
        everything.append(direct)
        for frames in ([2, 0, 1], [0, 2], [1], list(range(info.num_frames)), []):
            read = encoded.cache.read(video, frames)
            assert read.dtype == torch.float32 and read.shape == (len(frames), 3, 8, 12)
            assert torch.equal(read, direct[frames].float())
    values_CN = torch.cat(everything).movedim(1, 0).flatten(1).double()
    index = json.loads((tmp_path / "cache" / "index.json").read_text())
    assert index["mean"] == pytest.approx(values_CN.mean(1).tolist())
    assert index["std"] == pytest.approx(values_CN.std(1, correction=0).tolist())
    assert (index["videos"], index["frames"], index["rows"], index["codec"]) == (4, 25, 25, "halving 1.0")
    assert [one["bytes"] for one in index["shards"]] == [path.stat().st_size for path in sorted(shards(tmp_path))]


def test_clips_of_latents_in_loader_processes(folder: VideoFolder, tmp_path: Path) -> None:
    cache = build(folder, tmp_path / "cache").cache
    clips = ClipDataset(folder, cache, 3)
    loaded = []
    for workers in (0, 2):
        batches = iter(DataLoader(clips, 2, sampler=ClipSampler(len(clips), 0), num_workers=workers))
        loaded.append(torch.stack([next(batches)["frames"] for _ in range(4)]))
    assert loaded[0].shape == (4, 2, 3, 3, 8, 12) and torch.equal(*loaded)
    other = pickle.loads(pickle.dumps(cache))  # as a loader does that starts processes anew
    assert torch.equal(other.read(0, [1]), cache.read(0, [1]))


def test_nothing_depends_on_threads_or_on_how_the_work_was_cut(folder: VideoFolder, tmp_path: Path) -> None:
    build(folder, tmp_path / "one", workers=1)
    torch.set_num_threads(3)
    try:
        build(folder, tmp_path / "three", workers=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_the_same_call_again_changes_nothing(folder: VideoFolder, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    build(folder, directory)
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    for verify in (False, True):
        codec = HalvingCodec()
        assert build(folder, directory, codec, verify=verify).shards == [] and codec.encoded == 1
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_only_shards_whose_videos_have_changed_are_encoded_again(folder: VideoFolder, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    build(folder, directory)
    write_numbered(folder.root / "d.mp4", 6)
    assert build(VideoFolder(folder.root), directory).shards == [1]
    (folder.root / "d.mp4").unlink()
    fewer = VideoFolder(folder.root)
    cache = build(fewer, directory).cache
    build(fewer, tmp_path / "fresh")
    assert contents(directory) == contents(tmp_path / "fresh") and len(cache.videos().videos) == 3


def test_a_killed_process_loses_only_the_shard_in_work(folder: VideoFolder, tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from tests.latents.caches import *\n"
        f"kill = lambda done, total: done == 3 and os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        f"build(VideoFolder(Path({str(folder.root)!r})), Path({str(tmp_path / 'cache')!r}), progress=kill, workers=1)"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with pytest.raises(MagiError, match="unfinished"):
        LatentCache(tmp_path / "cache")
    done = [path for path in (tmp_path / "cache" / "shards").glob("*.json")]
    assert done and list((tmp_path / "cache" / "shards").glob(".*.part")), "the third video was being written"
    times = {path: path.stat().st_mtime_ns for path in (one.with_suffix(".safetensors") for one in done)}
    again = build(folder, tmp_path / "cache")
    assert len(again.shards) == len(again.cache.index.shards) - len(done)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    build(folder, tmp_path / "fresh")
    assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")


def test_an_error_leaves_no_half_written_shard_and_no_thread(
    folder: VideoFolder, tmp_path: Path, threads_left: Callable[..., list[threading.Thread]]
) -> None:
    last = folder.videos[-1]
    for count in (last.num_frames - 1, last.num_frames + 1):
        write_numbered(last.path, count)
        with pytest.raises(MagiError, match=f"{count} frames; expected {last.num_frames}"):
            build(folder, tmp_path / "cache")
        assert not list((tmp_path / "cache" / "shards").glob(".*"))
    last.path.write_bytes(b"not a video")
    with pytest.raises(MagiError, match=last.path.name):
        build(folder, tmp_path / "cache")
    assert not threads_left()


def test_a_video_is_encoded_piece_by_piece(tmp_path: Path) -> None:
    write_numbered(tmp_path / "videos" / "long.mp4", 150)
    codec = HalvingCodec()
    cache = build(VideoFolder(tmp_path / "videos"), tmp_path / "cache", codec).cache
    assert codec.largest == 64 and cache.read(0, [149]).shape == (1, 3, 8, 12)


# --- codecs that compress time ----------------------------------------------------------------------------------------


@given(
    length=st.integers(1, 9),
    intervals=st.sets(st.integers(1, 9), min_size=1, max_size=4),
    stride=st.integers(1, 20),
    num_frames=st.integers(1, 120),
)
def test_a_grid_covers_a_video_evenly(length: int, intervals: set[int], stride: int, num_frames: int) -> None:
    grid = ClipGrid(length, tuple(sorted(intervals)), stride)
    for interval in grid.intervals:
        starts, last = grid.starts(num_frames, interval), num_frames - 1 - (length - 1) * interval
        assert (not starts) == (last < 0)
        if starts:
            assert (starts[0], starts[-1]) == (0, last)
            assert all(0 < b - a <= stride for a, b in pairwise(starts))
            assert len(starts) == 1 + math.ceil(last / stride), "no more clips than needed"
    rows = grid.rows(num_frames)
    assert len(rows) == grid.count(num_frames) and list(rows.values()) == list(range(len(rows)))
    ends = [start + (length - 1) * interval for interval, start in rows]
    assert ends == sorted(ends)


def test_clips_are_encoded_for_each_interval(tmp_path: Path) -> None:
    for name, count in {"a.mp4": 40, "b.mp4": 4, "c.mp4": 9}.items():
        write_numbered(tmp_path / "videos" / name, count)
    folder, grid = VideoFolder(tmp_path / "videos"), ClipGrid(5, (1, 2, 4), 5)
    cache = build(folder, tmp_path / "cache", Causal4x(), grid=grid).cache
    assert cache.index.row == (2, 3, *SIZE) and cache.index.rows == 8 + 8 + 6 + 2 + 1
    for video, info in enumerate(folder.videos):
        for interval, start in grid.rows(info.num_frames):
            frames = list(range(start, start + 5 * interval, interval))
            online = Causal4x().encode(PixelReader(folder, *SIZE).read(video, frames)[None])[0]
            assert torch.allclose(cache.read(video, frames), online, atol=1e-3), "as if encoded while training"
    clips = ClipDataset(folder, cache, 5, 2, 3, temporal_factor=4)
    drawn = [clips[ClipRequest(0, seed)] for seed in range(20)]
    assert {int(clip["interval"]) for clip in drawn} == {2} and clips.left_out == 1
    assert drawn[0]["frames"].shape == (2, 3, *SIZE)
    with pytest.raises(MagiError, match=r"expected what the reader holds: clips of 5 frames at intervals 1, 2, 4"):
        ClipDataset(folder, cache, 9, 1, 4, temporal_factor=4)
    for frames in ([1, 2, 3, 4, 5], [0, 3, 6, 9, 12], [0, 1, 2, 3], [4, 3, 2, 1, 0], [0, 0, 0, 0, 0]):
        with pytest.raises(MagiError, match="at interval"):
            cache.read(0, frames)


# --- without the videos ------------------------------------------------------------------------------------------


def test_a_cache_knows_its_data_set(folder: VideoFolder, tmp_path: Path) -> None:
    cache = build(folder, tmp_path / "cache").cache
    cache.check_data(folder)
    known = cache.videos()
    assert known.class_names == folder.class_names == ["a", "b"] and known.action_names == ["FIRE"]
    for number, (now, then) in enumerate(zip(known.videos, folder.videos, strict=True)):
        assert (now.num_frames, now.label, now.frame_rate) == (then.num_frames, then.label, then.frame_rate)
        kept, recorded = known.actions(number), folder.actions(number)
        assert (kept is None) == (recorded is None) and (kept is None or np.array_equal(kept, recorded))
    requests = [ClipRequest(index, seed) for index in range(3) for seed in range(3)]
    for request in requests:
        one, other = (ClipDataset(videos, cache, 3)[request] for videos in (folder, known))
        assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(MagiError, match="latents, not pixels"):
        known.read(0, [0])


def test_another_data_set_is_told_apart(folder: VideoFolder, tmp_path: Path) -> None:
    cache = build(folder, tmp_path / "cache").cache
    shutil.copytree(folder.root, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "c.mp4", (1, 1))
    cache.check_data(VideoFolder(tmp_path / "copy"))  # the same, copied to another machine
    write_numbered(tmp_path / "copy" / "c.mp4", 11)
    with pytest.raises(
        MagiError, match=r"another data set than .*: 1 video changed \(changed: c\.mp4 of 11 frames, not 10\)"
    ):
        cache.check_data(VideoFolder(tmp_path / "copy"))
    (tmp_path / "copy" / "c.mp4").rename(tmp_path / "copy" / "e.mp4")
    with pytest.raises(MagiError, match=r"1 video gone, 1 new \(gone: c\.mp4\)"):
        cache.check_data(VideoFolder(tmp_path / "copy"))
