"""Speed of the data loader on a folder of videos: clips/s from cached latents and from pixels, frames/s into the cache.

    python benchmarks/data.py FOLDER [--size 64] [--workers 0 1 2] [--processes 1 2] [--json FILE]

Clips of 16 frames in batches as the trainer draws them; the codec is the shipped one (eight times smaller, 8 channels).
Alternatives take turns, and the median of the rounds is reported. Encoding is `magi encode` with so many processes of
one core each, from its first look at the folder to the finished cache. FOLDER is only read.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from magi_video.data.clips import ClipDataset, ClipSampler, FrameReader, PixelReader
from magi_video.data.folder import VideoFolder
from magi_video.files.weights import SHIPPED
from magi_video.latents.cache import LatentCache


def clips_per_second(clips: ClipDataset, batch: int, workers: int, seed: int, seconds: float) -> float:
    """Of a new loader, from its second batch on and for so many seconds at least."""
    loader = DataLoader(
        clips, batch, sampler=ClipSampler(len(clips), seed), num_workers=workers, prefetch_factor=4 if workers else None
    )
    batches = iter(loader)
    next(batches)
    began, taken = time.perf_counter(), 0
    # What the workers have prepared before must not count: go on well beyond it.
    while time.perf_counter() - began < seconds or taken < 12 * workers:
        next(batches)
        taken += 1
    return taken * batch / (time.perf_counter() - began)


def encode(folder: Path, cache: Path, scan: Path, size: int, processes: int) -> float:
    """Seconds of `magi encode` with the shipped codec, by its own clock: without the start of the interpreters."""
    shutil.rmtree(cache, ignore_errors=True)
    shutil.copytree(SHIPPED / "doom" / "codec", cache / "codec")
    if scan.is_file():
        shutil.copyfile(scan, cache / "scan.json")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = ["-m", "magi_video", "encode", "doom", "--data", str(folder), "--out", str(cache), "--json"]
    options = ["--height", str(size), "--width", str(size), "--shard-size", "0.5", "--workers", "1", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *command, *options], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    shutil.copyfile(cache / "scan.json", scan)
    return float(json.loads(done.stdout)["seconds"])


def measure(arguments: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """All figures."""
    began = time.perf_counter()
    folder = VideoFolder(arguments.folder)
    scan = time.perf_counter() - began
    size = (arguments.size, arguments.size)
    total = sum(video.num_frames for video in folder.videos)
    scanned = cache.with_name("scan.json")
    encode(arguments.folder, cache, scanned, arguments.size, 1)  # the first looks through all videos
    encoding: dict[int, list[float]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for processes in arguments.processes:
            encoding[processes].append(encode(arguments.folder, cache, scanned, arguments.size, processes))
    readers: dict[str, FrameReader] = {"latents": LatentCache(cache), "pixels": PixelReader(folder, *size)}
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    for seed in range(arguments.rounds):
        for name, reader in readers.items():
            clips = ClipDataset(folder, reader, arguments.frames, max_interval=arguments.interval)
            for workers in arguments.workers:
                rate = clips_per_second(clips, arguments.batch, workers, seed, arguments.seconds)
                rates[name, workers].append(rate)
    return {
        "threads": torch.get_num_threads(),
        "videos": len(folder.videos),
        "frames": total,
        "scanned_frames_per_second": round(total / scan),
        "encoded_frames_per_second": {
            f"{processes} processes": round(total / statistics.median(found)) for processes, found in encoding.items()
        },
        "clips_per_second": {
            f"{name}, {workers} workers": round(statistics.median(found), 1) for (name, workers), found in rates.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="videos")
    parser.add_argument("--size", type=int, default=64, help="height and width of the frames, in pixels")
    parser.add_argument("--frames", type=int, default=16, help="of a clip")
    parser.add_argument("--interval", type=int, default=4, help="the largest")
    parser.add_argument("--batch", type=int, default=16, help="clips")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader processes to try")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="encoding processes to try")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, at least")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch in the main process")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments, Path(scratch) / "cache")
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
