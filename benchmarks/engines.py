"""PyTorch against ONNX Runtime, frame by frame in turns: python benchmarks/engines.py doom atari --json FILE

For each setting: processor seconds of making the graphs and of loading them, milliseconds of a frame by either engine
(one thread, medians, in turns), the largest difference of decoded pixels between the two videos; for the decoder the
same. Graphs that are in --graphs DIR are not made again.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_video.fast.engine import Engine
from magi_video.fast.engine_choice import GRAPHS, decoding_seconds
from magi_video.fast.job import Job
from magi_video.fast.onnx_engine import OnnxEngine
from magi_video.fast.onnx_graph import GraphFiles
from magi_video.files.atomic import write_json
from magi_video.paradigms import make_paradigm
from magi_video.pipeline import MagiVideoPipeline

SETTINGS = ("realtime", "fast", "balanced", "exact")


def frames_in_turns(job: Job, engines: list[Engine], frames: int) -> tuple[list[list[float]], list[Tensor]]:
    """Seconds of each frame by each engine, and the latents `[1, T, C, h, w]`; one frame before does not count."""
    rollouts = [job.begin(one) for one in engines]
    seconds, tokens = [list[float]() for _ in engines], [list[Tensor]() for _ in engines]
    for _ in range(1 + frames):
        for number, rollout in enumerate(rollouts):
            began = time.thread_time()
            tokens[number].append(rollout.predict())
            seconds[number].append(time.thread_time() - began)
    return [one[1:] for one in seconds], [job.model.unpatchify(torch.stack(one, dim=1)) for one in tokens]


def measure(world: str, setting: str, folder: Path, frames: int) -> dict[str, Any]:
    """Figures of one setting."""
    pipe = MagiVideoPipeline.from_pretrained(world)
    job = Job(make_paradigm(pipe.config.forcing), pipe.transformer, pipe.codec, pipe.resolve(setting))
    files, stages = GraphFiles([folder]), list[str]()
    began = time.process_time()
    OnnxEngine(files=files, stage=stages.append).prepare(job, build=True)
    made = [one for one in stages if one.startswith("making")]
    building = time.process_time() - began
    engine = OnnxEngine(files=files)
    began = time.process_time()
    assert engine.prepare(job, build=False) is None
    loading = time.process_time() - began
    engines = [Engine(), engine]
    seconds, latents = frames_in_turns(job, engines, frames)
    pixels = [pipe.codec.decode(one) for one in latents]
    slow, fast = decoding_seconds(job, pipe.codec, engines, trials=10)
    before, after = (1000 * statistics.median(one) for one in seconds)
    return {
        "world": world,
        "setting": setting,
        "graphs_made": len(made),
        "making_cpu_seconds": round(building, 2) if made else None,
        "loading_cpu_seconds": round(loading, 2),
        "torch_ms": round(before, 2),
        "onnx_ms": round(after, 2),
        "ratio": round(before / after, 2),
        "decode_torch_ms": round(1000 * slow, 2),
        "decode_onnx_ms": round(1000 * fast, 2),
        "ratio_with_decoder": round((before + 1000 * slow) / (after + 1000 * fast), 2),
        "largest_difference_of_pixels": float((pixels[0] - pixels[1]).abs().max() / 2),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("worlds", nargs="+")
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--graphs", type=Path, help="by default each model's own")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for world in asked.worlds:
        for setting in asked.settings:
            folder = asked.graphs or MagiVideoPipeline.from_pretrained(world).folder / GRAPHS
            rows.append(measure(world, setting, folder, asked.frames))
            print(json.dumps(rows[-1]), flush=True)
            write_json(asked.json, {"torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    main()
