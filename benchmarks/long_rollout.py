"""Time and memory of a long video: processor milliseconds of a frame and resident memory, as frames go by.

    python benchmarks/long_rollout.py doom --frames 10000 --speed realtime --engine onnx --out long.json
    python benchmarks/long_rollout.py doom --frames 256 --engine torch --uncached --out uncached.json

Frames are predicted, decoded and thrown away, as a page does; one video under an action that changes now and then. The
figures are in the file whenever a mark is reached, so a run that is stopped has told how far it came.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_video import MagiVideoPipeline
from magi_video.files.atomic import write_json
from magi_video.sampling.sampling import Sampling

MARKS = (
    8,
    16,
    32,
    64,
    100,
    128,
    200,
    256,
    500,
    512,
    1000,
    1024,
    2000,
    3000,
    4000,
    5000,
    6000,
    7000,
    8000,
    9000,
    10_000,
)
HELD = 40
"""Frames for which an action is held."""


def resident_mb() -> float:
    """Memory of this process now, in MB (10⁶ bytes); the most so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return most_mb()


def most_mb() -> float:
    """The most resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--speed", default="realtime")
    parser.add_argument("--engine", default="onnx", choices=("torch", "onnx"))
    parser.add_argument("--uncached", action="store_true", help="read the past again in every pass")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pipe = MagiVideoPipeline.from_pretrained(arguments.model)
    sampling = Sampling.of(arguments.speed, refresh=1 if arguments.uncached else None)
    said = pipe.use_engine(arguments.engine, sampling, threads=1)
    names, random = pipe.config.action_names, np.random.default_rng(0)

    def actions() -> Any:
        while True:
            held = np.zeros(len(names), np.float32)
            held[random.integers(len(names))] = 1
            for _ in range(HELD):
                yield held

    stream = pipe.stream(
        sampling=sampling,
        actions=actions() if names else None,
        generator=torch.Generator().manual_seed(0),
        use_cache=not arguments.uncached,
    )
    report: dict[str, Any] = {"model": arguments.model, "speed": arguments.speed, "engine": said or arguments.engine}
    report["marks"] = []
    began, before = time.process_time(), 0
    for number, frame in enumerate(stream, 1):
        if number in MARKS or number == arguments.frames:
            now = time.process_time()
            report["marks"].append({
                "frames": number,
                "cpu_milliseconds": round(1e3 * (now - began) / (number - before), 2),
                "resident_mb": round(resident_mb(), 1),
                "most_mb": round(most_mb(), 1),
                "frame_mean": round(float(frame.mean()), 4),
            })  # fmt: skip
            write_json(arguments.out, report)
            print(json.dumps(report["marks"][-1]), flush=True)
            began, before = time.process_time(), number
        if number == arguments.frames:
            break


if __name__ == "__main__":
    main()
