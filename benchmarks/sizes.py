"""Time and memory of a generated frame against its number of tokens, and against the number of videos made together.

    OMP_NUM_THREADS=1 python benchmarks/sizes.py --out sizes.json
    OMP_NUM_THREADS=1 python benchmarks/sizes.py --tokens 16 64 --speeds realtime --frames 2

The shape of `doom` (width 256, five blocks, head 256 × 3) with random weights in float32, by PyTorch. Tokens grow with
the picture: 16 tokens are 64×64 pixels. `exact` is 8 × 20 steps at every size, so that only the size differs; larger
frames need more mask steps. Seconds are processor time, of frames 2 to N + 1 after one given frame. The past's bytes
are those of its cache with a full window of 16 frames; memory is the most that the process held while the frames were
made, beyond what it held before (a process for each row).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from magi_video.bench.counting import count_executed
from magi_video.bench.generation import Generator
from magi_video.bench.subject import make_subject
from magi_video.files.atomic import write_json
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.presets import load_preset
from magi_video.sampling.sampling import Sampling

SIDES = {16: 64, 64: 128, 256: 256, 1024: 512}
"""Tokens of a frame → side of the picture in pixels."""


def measure(tokens: int, batch: int, speed: str, frames: int) -> dict[str, Any]:
    """Figures of one row."""
    preset = load_preset("doom")
    preset = replace(preset, data=replace(preset.data, height=SIDES[tokens], width=SIDES[tokens]))
    subject = make_subject(f"{tokens} tokens", preset)
    model = subject.load(torch.float32)
    assert model.num_tokens == tokens, model.num_tokens
    sampling = Sampling(speed=cast(Any, speed)).resolve(model.diffusion_head, preset.own_sampling, model.num_tokens)
    generator = Generator(subject, model, sampling, batch, torch.device("cpu"))
    before = held()
    rollout = generator.begin(frames + 2)
    seconds = []
    for _ in range(frames + 1):
        began = time.process_time()
        rollout.predict_frames([generator.conditions])
        seconds.append(time.process_time() - began)
    most = peak()
    return {
        "tokens": tokens,
        "batch": batch,
        "speed": speed,
        "steps": f"{sampling.mask_steps} × {sampling.denoise_steps}",
        "ms_per_frame_and_video": round(1000 * statistics.median(seconds[1:]) / batch, 2),
        "gflop_per_frame_and_video": round((count_executed(generator.frame(frames, frames + 1)) or 0) / batch / 1e9, 3),
        "past_mb_per_video": round(past_bytes(model) / 1e6, 2),
        "memory_mb": round(most - before),
    }


def past_bytes(model: MagiVideoTransformer) -> int:
    """Of the cache of one video, a full window."""
    return model.make_cache(1, model.config.num_frames).nbytes


def held() -> float:
    """Resident memory now, MB (10⁶ bytes)."""
    return status("VmRSS")


def peak() -> float:
    """The most resident memory so far, MB."""
    return status("VmHWM")


def status(name: str) -> float:
    """A figure of this process in /proc, MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--speeds", nargs="+", default=["exact", "balanced", "realtime"])
    parser.add_argument("--frames", type=int, default=4, help="timed, after one that is not")
    parser.add_argument("--most", type=int, default=1024, help="tokens of all videos together, at most")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        tokens, batch, speed = given.row
        print(json.dumps(measure(int(tokens), int(batch), speed, given.frames)))
        return
    rows = []
    for tokens in given.tokens:
        for batch in given.batch:
            for speed in given.speeds if tokens * batch <= given.most else ():
                command = [sys.executable, __file__, "--frames", str(given.frames)]
                done = subprocess.run(
                    [*command, "--row", str(tokens), str(batch), speed], capture_output=True, text=True
                )
                if done.returncode:
                    sys.exit(done.stderr)
                rows.append(json.loads(done.stdout))
                print(rows[-1], flush=True)
                if given.out:
                    write_json(given.out, {"threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
