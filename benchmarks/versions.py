"""Seconds per generated frame, this version against an older one of the project, in one run.

    python benchmarks/versions.py [--old REVISION] [--size base|doom] [--precision bf16|float32] [--json FILE]

The older revision is checked out beside this one (git worktree) and the two generate in turns, each in a process of its
own: the same network with random weights, the same steps, exact, without decoding. Versions before speed settings kept
the head in float32 under bf16 weights; they are measured as they were.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIRST_WORKING = "2c2b293"
SIZES: dict[str, dict[str, Any]] = {
    "base": {"latent_channels": 4, "latent_height": 32, "latent_width": 32, "width": 768, "depth": 12, "heads": 12,
             "mlp_width": 3072, "head_width": 1024, "temporal_position": "rope"},
    "doom": {"latent_channels": 8, "latent_height": 8, "latent_width": 8, "width": 256, "depth": 5, "heads": 4,
             "mlp_width": 1024, "head_width": 256, "temporal_position": "rope"},
}  # fmt: skip
STEPS = {"base": (8, 10), "doom": (8, 20)}


def measure(size: str, precision: str, frames: int) -> dict[str, Any]:
    """Seconds of each of `frames` frames after one that is not counted, with whatever version is on the path."""
    import torch

    from magi_video.models.sequence import OBSERVATION
    from magi_video.models.transformer import MagiTransformer
    from magi_video.sampling import Rollout, SampleNoise, SamplingSettings

    torch.manual_seed(0)
    model = MagiTransformer(**SIZES[size]).eval()
    if precision == "bf16":
        model.to(torch.bfloat16)
        if not hasattr(model.diffusion_head, "predict"):
            model.diffusion_head.float()
    rollout = Rollout(
        model, OBSERVATION, SampleNoise.from_seeds([0]), SamplingSettings(*STEPS[size]), torch.tensor([1]), None
    )
    seconds = []
    for _ in range(frames + 1):
        began = time.perf_counter()
        rollout.predict()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[1:], "threads": torch.get_num_threads(), "torch": torch.__version__}


def in_turns(old: str, size: str, precision: str, rounds: int, frames: int) -> dict[str, Any]:
    """Median seconds a frame of both versions, measured alternately."""
    seconds: dict[str, list[float]] = {"old": [], "new": []}
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "old"
        subprocess.run(
            ["git", "worktree", "add", "--detach", str(checkout), old], cwd=ROOT, check=True, capture_output=True
        )
        try:
            for _ in range(rounds):
                for name, root in (("old", checkout), ("new", ROOT)):
                    command = [sys.executable, __file__, "--measure", "--size", size, "--precision", precision]
                    environment = os.environ | {"PYTHONPATH": str(root / "src")}
                    done = subprocess.run(
                        [*command, "--frames", str(frames)], env=environment, check=True, capture_output=True, text=True
                    )
                    told = json.loads(done.stdout.splitlines()[-1])
                    seconds[name] += told.pop("seconds")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(checkout)], cwd=ROOT, check=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "size": size, "precision": precision, "old_revision": old, "mask_steps": STEPS[size][0],
        "denoise_steps": STEPS[size][1], **told, "old_seconds_per_frame": round(median["old"], 5),
        "new_seconds_per_frame": round(median["new"], 5), "ratio": round(median["old"] / median["new"], 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", default=FIRST_WORKING, help="revision to compare with: the first that generated video")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=6, help="timed in each round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.size, arguments.precision, arguments.frames)))
        return
    figures = in_turns(arguments.old, arguments.size, arguments.precision, arguments.rounds, arguments.frames)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
