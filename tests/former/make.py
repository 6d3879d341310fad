"""Folders as revision c606438 left them, whole and stopped on the way: run in a checkout of that revision.

git worktree add /tmp/former c606438 && cd /tmp/former
PYTHONPATH=src:. OMP_NUM_THREADS=1 python THIS/FILE OUT
tar -C OUT -cJf tests/former/folders.tar.xz .
"""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from magi_video.evaluation.generation import Sampling, evaluate
from magi_video.presets import load_preset
from magi_video.recordings.record import record
from magi_video.training.display import Silent
from magi_video.training.encode import encode
from magi_video.training.run import train
from tests.evaluation.networks import small_detectors

RECIPE: dict[str, Any] = {
    "data": {"height": 16, "width": 16, "num_frames": 4, "max_interval": 2},
    "codec": {"codec": "small_vae"},
    "small_vae": {"latent_channels": 2, "width": 8, "encoder_blocks": [0, 1], "decoder_blocks": [1, 0], "steps": 6,
                  "batch_size": 2, "checkpoint_every": 2},
    "model": {"patch_size": 4, "hidden": 8, "depth": 1, "heads": 1, "mlp": 8, "head_width": 8, "head_depth": 1},
    "train": {"batch_size": 2, "steps": 6, "workers": 0, "sample_every": 0, "checkpoint_every": 2,
              "keep_checkpoints": 1, "log_every": 1, "precision": "float32", "tracker": "none"},
    "sample": {"mask_steps": 2, "denoise_steps": 2},
}  # fmt: skip


class StopError(Exception):
    pass


class Stopping(Silent):
    """Stops a stage once it has come so far."""

    def __init__(self, stage: str, at: int) -> None:
        self.wanted, self.at, self.now = stage, at, ""

    def stage(self, name: str, total: int = 0) -> None:
        self.now = name

    def advance(self, done: int, figures: Any = None) -> None:
        if self.now == self.wanted and done >= self.at:
            raise KeyboardInterrupt


def stopped(work: Any) -> None:
    try:
        work()
    except KeyboardInterrupt:
        return
    raise SystemExit("it was not stopped")


def main(out: Path) -> None:
    """All folders, below `out`; names relative to it, so that records hold no path of this machine."""
    out.mkdir(parents=True)
    os.chdir(out)
    os.environ["MAGI_CACHE"] = str(out / ".cache")
    Path("recipe.json").write_text(json.dumps(RECIPE))
    preset = load_preset("recipe.json")
    game: dict[str, Any] = {"seed": 0, "max_frames": 24, "height": 16, "width": 16}
    record("magi/BouncingBalls-v0", "record", episodes=2, **game)
    record("magi/BouncingBalls-v0", "record_stopped", episodes=1, **game)
    train(preset, "record", "run")
    stopped(lambda: train(preset, "record", "codec_stopped", display=Stopping("codec", 3)))
    fewer = dataclasses.replace(preset, train=dataclasses.replace(preset.train, steps=4))
    train(fewer, "record", "run_stopped")
    encode(preset, "record", "cache", shard_bytes=1000)
    stopped(lambda: encode(preset, "record", "cache_stopped", shard_bytes=1000, display=Stopping("latents", 2)))
    options: dict[str, Any] = {"frames": 10, "num": 2, "detectors": small_detectors(), "over_length": False}
    options |= {"cache": False, "sampling": Sampling(batch_size=1, precision="float32")}
    evaluate("run", "record", out="evaluation", **options)
    shutil.copytree("evaluation", "evaluation_stopped")
    for name in ("metrics.json", "report.html", "samples/000001.npy"):
        (Path("evaluation_stopped") / name).unlink()
    shutil.rmtree(".cache", ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
