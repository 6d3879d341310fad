"""Training that is killed again and again must end in the very bits of training that never was.

    python benchmarks/soak.py --kills 20 [--seed 0] [--json FILE]

Trains the `tiny` preset, with a small VAE of its own, on videos made here: first without interruption, then once more
while `magi train` is killed with SIGKILL at random moments: at start, in the codec's training, while a checkpoint of
the codec or of the model is being written, while latents are encoded, in ordinary steps, and while the model is being
published. The same command is started again until it ends by itself. Then weights, their averages and the optimiser's
state must be equal to the last bit, and the run must load as a model.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from magi_video import MagiPipeline
from magi_video.checkpoints import latest_checkpoint
from magi_video.data import write_video

OPTIONS = """
    --height 32 --width 32 --patch-size 2 --codec small_vae --small-vae.width 8 --small-vae.steps 1500
    --small-vae.batch-size 4 --small-vae.checkpoint-every 20 --small-vae.warmup-steps 10 --steps 120
    --checkpoint-every 10 --sample-every 60 --warmup-steps 10 --log-every 1 --workers 1 --tracker none
"""
PATIENCE = 300  # seconds for a moment to come
Moment = Callable[[Path, float], bool]


def make_videos(folder: Path, count: int = 40) -> None:
    """Drifting colours, 40 frames each."""
    folder.mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        frames = np.stack([np.roll(coarse, shift, axis=1) for shift in range(40)])
        write_video(folder / f"{number:02d}.mp4", frames, 25)


def fresh(*patterns: str) -> Moment:
    """When this start has made or changed something that matches a pattern below the run's folder."""

    def moment(run: Path, began: float) -> bool:
        return any(changed(path) > began for pattern in patterns for path in run.glob(pattern))

    return moment


def changed(path: Path) -> float:
    """When; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def lines(path: Path) -> int:
    """Of a file that may not be there yet."""
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


MOMENTS: dict[str, Moment] = {
    "at start": lambda run, began: True,
    "training the codec": fresh("codec/checkpoints/step_*"),
    "writing a checkpoint of the codec": fresh("codec/checkpoints/.part-*"),
    "saving the codec": fresh("codec/unfinished"),
    "encoding latents": fresh("latents/shards/.*"),
    "in a step": fresh("log.jsonl"),
    "writing a checkpoint": fresh("checkpoints/.part-*"),
    "publishing the model": fresh(".part-model-*"),
}
DELAYS = {"at start": 12.0, "training the codec": 3.0, "in a step": 1.0}
"""Seconds after the moment, at most, if not 0.01."""
FORGONE = 8
"""Steps of the model after which a moment is taken not to come any more."""


def start(data: Path, run: Path, errors: Path) -> subprocess.Popen[bytes]:
    """The command, as anyone gives it."""
    command = [
        sys.executable,
        "-m",
        "magi_video",
        "train",
        "tiny",
        "--data",
        str(data),
        "--out",
        str(run),
        *OPTIONS.split(),
    ]
    with errors.open("wb") as file:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )


def kill_at(process: subprocess.Popen[bytes], run: Path, name: str, delay: float) -> str | None:
    """Kill it at a moment, and a little later, or where that is forgone, in a step; None if it ended before."""
    began, steps, deadline = time.time(), lines(run / "log.jsonl"), time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if MOMENTS[name](run, began):
            time.sleep(delay * DELAYS.get(name, 0.01))
            break
        if lines(run / "log.jsonl") > steps + FORGONE:
            name = "in a step"
            break
        time.sleep(0.0005)
    killed = process.poll() is None
    process.kill()
    process.wait()
    return name if killed else None


def plan(kills: int, random: np.random.Generator) -> list[str]:
    """Moments in the order of a run, each about as often, so that none is over before its turn."""
    names = list(MOMENTS)
    moments = sorted((names * kills)[:kills], key=names.index)
    late = [name for name in moments if names.index(name) >= names.index("in a step")]
    return moments[: kills - len(late)] + [late[i] for i in random.permutation(len(late))]


def differences(whole: Path, killed: Path) -> list[str]:
    """Files of two runs that do not hold the same bits."""
    found = []
    first, second = (latest_checkpoint(run / "checkpoints") for run in (whole, killed))
    if first is None or second is None or first.step != second.step:
        return ["the last checkpoint"]
    pairs = [(first.file(name), second.file(name)) for name in ("model", "ema", "optimizer")]
    name = "diffusion_pytorch_model.safetensors"
    pairs += [(whole / part / name, killed / part / name) for part in ("transformer", "codec")]
    for one, other in pairs:
        a, b = load_file(one), load_file(other)
        if a.keys() != b.keys() or any(a[key].tobytes() != b[key].tobytes() for key in a):
            found.append(str(other.relative_to(killed)))
    states = [{key: value for key, value in point.state.items() if key != "seconds"} for point in (first, second)]
    return found + (["state.json"] if states[0] != states[1] else [])


def soak(root: Path, kills: int, seed: int, tell: Callable[[str], None]) -> dict[str, object]:
    """The two trainings in `root`; returns the figures."""
    random = np.random.default_rng(seed)
    data, errors = root / "data", root / "stderr.txt"
    make_videos(data)
    if start(data, root / "whole", errors).wait():
        raise SystemExit(f"uninterrupted training failed: {errors.read_text()}")
    tell(f"uninterrupted: {lines(root / 'whole' / 'log.jsonl')} steps")
    killed: Counter[str] = Counter()
    run = root / "killed"
    for name in plan(kills, random):
        process = start(data, run, errors)
        if at := kill_at(process, run, name, random.uniform()):
            killed[at] += 1
            tell(f"killed {at}, {lines(run / 'log.jsonl')} steps logged")
        elif process.returncode:
            raise SystemExit(f"it does not go on: {errors.read_text()}")
        else:
            tell(f"over before a kill {name}")
    if start(data, run, errors).wait():  # what is left of it
        raise SystemExit(f"it does not go on: {errors.read_text()}")
    MagiPipeline.from_pretrained(run)
    left = [str(path.relative_to(run)) for path in run.rglob("*") if ".part" in path.name]
    different = differences(root / "whole", run)
    return {"kills": killed.total(), "moments": dict(killed), "different": different, "left": left}


def main() -> None:
    """Parse, soak, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        result = soak(Path(root), arguments.kills, arguments.seed, lambda text: print(text, flush=True))
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result["different"] or result["left"]))


if __name__ == "__main__":
    main()
