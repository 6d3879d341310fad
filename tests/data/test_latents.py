import json
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.data import ClipDataset, ClipRequest, LatentCache, PixelReader, VideoFolder
from magi_video.errors import MagiError

from .examples import write_numbered


class HalvingCodec:
    """Averages 2×2 pixels; counts the frames it encodes."""

    latent_channels = 3
    temporal_factor = 1
    device = torch.device("cpu")

    def __init__(self, gain: float = 1.0) -> None:
        self.gain, self.encoded, self.largest = gain, 0, 0

    def encode(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
        self.encoded += video_BTCHW.shape[1]
        self.largest = max(self.largest, video_BTCHW.shape[1])
        pooled = torch.nn.functional.avg_pool2d(video_BTCHW.flatten(0, 1), 2)
        return self.gain * pooled.unflatten(0, video_BTCHW.shape[:2])

    def fingerprint(self) -> str:
        return f"halving {self.gain}"


@pytest.fixture
def folder(tmp_path: Path) -> VideoFolder:
    for name, count in {"a/x.mp4": 7, "b/x.mp4": 3, "c.mp4": 10}.items():
        write_numbered(tmp_path / "videos" / name, count)
    return VideoFolder(tmp_path / "videos")


def build(folder: VideoFolder, directory: Path, gain: float = 1.0, **settings: int) -> tuple[LatentCache, int]:
    """The cache, and how many frames were encoded for it (the one that tells the shape apart)."""
    codec = HalvingCodec(gain)
    return LatentCache.build(folder, codec, directory, 16, 24, batch_size=4, **settings), codec.encoded - 1


def test_cached_latents_equal_direct_encoding(folder: VideoFolder, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    cache = LatentCache.build(
        folder, HalvingCodec(), tmp_path / "cache", 16, 24, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    for video in range(3):
        frames = [2, 0, 1]
        direct = HalvingCodec().encode(PixelReader(folder, 16, 24).read(video, frames)[None])[0]
        read = cache.read(video, frames)
        assert read.dtype == torch.float32 and read.shape == (3, 3, 8, 12)
        assert torch.allclose(read, direct, atol=1e-3)
    index = json.loads((tmp_path / "cache" / "index.json").read_text())
    assert index["codec"] == "halving 1.0" and (index["height"], index["width"]) == (16, 24)
    assert {name: entry["shape"] for name, entry in index["videos"].items()} == {
        "a/x.mp4": [7, 3, 8, 12],
        "b/x.mp4": [3, 3, 8, 12],
        "c.mp4": [10, 3, 8, 12],
    }


def test_clips_of_latents(folder: VideoFolder, tmp_path: Path) -> None:
    cache, _ = build(folder, tmp_path / "cache")
    item = ClipDataset(folder, cache, 3)[ClipRequest(0, 0)]
    assert item["frames"].shape == (3, 3, 8, 12) and item["frames"].dtype == torch.float32


def test_building_again_encodes_only_what_changed(folder: VideoFolder, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    assert build(folder, directory)[1] == 20
    assert build(folder, directory)[1] == 0
    write_numbered(tmp_path / "videos" / "b" / "x.mp4", 5)
    assert build(VideoFolder(folder.root), directory)[1] == 5
    assert build(VideoFolder(folder.root), directory, gain=2.0)[1] == 22
    assert len(list(directory.glob("*.npy"))) == 3  # nothing is left of what no longer holds


def test_damaged_files_are_encoded_again(folder: VideoFolder, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    cache, _ = build(folder, directory)
    files = sorted(directory.glob("*.npy"), key=lambda path: path.stat().st_size)
    files[0].write_bytes(files[0].read_bytes()[:-10])
    files[1].write_bytes(b"")
    np.save(files[2], np.array([{"pickled": True}], dtype=object), allow_pickle=True)
    for video in range(3):
        with pytest.raises(MagiError, match="unreadable latents"):
            cache.read(video, [0])
    assert build(folder, directory)[1] == 20
    assert torch.isfinite(cache.read(0, [0])).all()


def test_an_interrupted_build_is_continued(folder: VideoFolder, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LatentCache.build(folder, HalvingCodec(), tmp_path / "cache", 16, 24, progress=stop)
    assert not (tmp_path / "cache" / "index.json").exists()
    assert build(folder, tmp_path / "cache")[1] == folder.videos[2].num_frames


def test_a_video_is_encoded_piece_by_piece_or_not_at_all(folder: VideoFolder, tmp_path: Path) -> None:
    codec = HalvingCodec()
    LatentCache.build(folder, codec, tmp_path / "cache", 16, 24, batch_size=3)
    assert codec.largest == 3

    class Interrupted(HalvingCodec):
        def encode(self, video_BTCHW: torch.Tensor) -> torch.Tensor:
            if self.encoded > 4:  # the frame that tells the shape, the first four of a video of seven
                raise KeyboardInterrupt
            return super().encode(video_BTCHW)

    with pytest.raises(KeyboardInterrupt):
        LatentCache.build(folder, Interrupted(), tmp_path / "other", 16, 24, batch_size=4)
    assert not list((tmp_path / "other").iterdir())


def test_a_video_that_has_changed_since_it_was_counted(folder: VideoFolder, tmp_path: Path) -> None:
    for count in (folder.videos[0].num_frames - 1, folder.videos[0].num_frames + 1):
        write_numbered(folder.videos[0].path, count)
        with pytest.raises(MagiError, match=f"{count} frames; expected"):
            build(folder, tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())


def test_refusals(folder: VideoFolder, tmp_path: Path) -> None:
    codec = HalvingCodec()
    codec.temporal_factor = 4
    with pytest.raises(MagiError, match="depend on the interval"):
        LatentCache.build(folder, codec, tmp_path / "cache", 16, 24)
    with pytest.raises(MagiError, match="beyond float16"):
        build(folder, tmp_path / "cache", gain=1e9)
    (tmp_path / "file").write_text("")
    with pytest.raises(MagiError, match="cannot be written"):
        build(folder, tmp_path / "file" / "cache")
    cache, _ = build(folder, tmp_path / "cache")
    for frames in ([7], [-1]):
        with pytest.raises(MagiError, match="expected 0 to"):
            cache.read(folder.videos.index(next(v for v in folder.videos if v.num_frames == 7)), frames)
