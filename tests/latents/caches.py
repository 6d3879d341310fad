"""A codec and caches to test with."""

from pathlib import Path
from typing import Any

import torch

from magi_video.data.folder import VideoFolder
from magi_video.latents.encoding import Encoded, encode_latents

SIZE = (16, 24)
TWO_VIDEOS = 3 * 8 * 12 * 2 * 10  # bytes of ten frames of latents


class HalvingCodec:
    """Averages 2×2 pixels; counts the frames it encodes."""

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


def order(folder: VideoFolder) -> list[str]:
    return [video.path.relative_to(folder.root).as_posix() for video in folder.videos]


def build(folder: VideoFolder, directory: Path, codec: Any = None, **options: Any) -> Encoded:
    return encode_latents(folder, codec or HalvingCodec(), directory, *SIZE, **{"shard_bytes": TWO_VIDEOS} | options)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def shard(directory: Path, number: int) -> Path:
    return directory / "shards" / f"{number:05d}.safetensors"


def shards(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "shards").iterdir())
