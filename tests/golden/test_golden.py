"""Figures that a change of structure must not move: losses of short trainings, and frames of the shipped models.

`python -m tests.golden.test_golden` writes them anew, after a change that is meant to move them. They are compared with
room for what CPUs differ in: the order of float32 sums.
"""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.files.weights import SHIPPED
from magi_video.pipeline import MagiVideoPipeline
from magi_video.presets import load_preset
from magi_video.training.run import train
from magi_video.video.image import read_image
from magi_video.video.video import write_video
from tests.training.conftest import moving_square

FOLDER = Path(__file__).parent
STEPS, FRAMES = 20, 8
RUNS = [(forcing, head) for forcing in ("complete", "masked") for head in ("epsilon", "flow")]
VIDEOS = [(world, setting) for world in ("doom", "atari", "coinrun") for setting in ("exact", "balanced", "realtime")]


def losses(forcing: str, head: str, folder: Path) -> list[float]:
    """Loss of each of the first steps of the tiny preset."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    for number in range(4):
        write_video(videos / f"{number}.mp4", moving_square(16, 3 * number, 1 + number % 2), 10.0, crf=4)
    preset = load_preset("tiny")
    preset = dataclasses.replace(
        preset,
        forcing=forcing,
        model=dataclasses.replace(preset.model, head=head),
        train=dataclasses.replace(
            preset.train, steps=STEPS, log_every=1, sample_every=0, tracker="none", precision="float32"
        ),
    )
    train(preset, videos, folder / "run", seed=0)
    rows = map(json.loads, (folder / "run" / "log.jsonl").read_text().splitlines())
    return [round(row["loss"], 6) for row in rows if "loss" in row]


def pictures(world: str, setting: str) -> list[list[float]]:
    """Of each frame, its grey means over a grid of 4×4."""
    pipe = MagiVideoPipeline.from_pretrained(world)
    first = read_image(SHIPPED / world / "first_frame.png")
    actions = [pipe.action(pipe.config.action_names[t % 3]) for t in range(FRAMES)]
    generator = torch.Generator().manual_seed(0)
    frames = pipe(image=first, num_frames=FRAMES, actions=actions, sampling=setting, generator=generator).frames[0]
    grey = frames.mean(axis=-1)
    grid = grey.reshape(FRAMES, 4, grey.shape[1] // 4, 4, grey.shape[2] // 4).mean(axis=(2, 4))
    return [[round(float(value), 4) for value in frame.flatten()] for frame in grid]


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


@pytest.mark.parametrize(("forcing", "head"), RUNS)
def test_losses(forcing: str, head: str, tmp_path: Path) -> None:
    np.testing.assert_allclose(losses(forcing, head, tmp_path), read("losses.json")[f"{forcing} {head}"], rtol=1e-3)


@pytest.mark.parametrize(("world", "setting"), VIDEOS)
def test_frames(world: str, setting: str) -> None:
    np.testing.assert_allclose(pictures(world, setting), read("frames.json")[f"{world} {setting}"], atol=4e-3)


def write() -> None:
    """Write the figures anew."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        curves = {f"{forcing} {head}": losses(forcing, head, Path(folder) / forcing / head) for forcing, head in RUNS}
    rows = ",\n".join(f'"{name}": {json.dumps(curve)}' for name, curve in curves.items())
    (FOLDER / "losses.json").write_text(f"{{\n{rows}\n}}\n")
    grids = {f"{world} {setting}": pictures(world, setting) for world, setting in VIDEOS}
    rows = ",\n".join(f'"{name}": [\n' + ",\n".join(map(json.dumps, grid)) + "\n]" for name, grid in grids.items())
    (FOLDER / "frames.json").write_text(f"{{\n{rows}\n}}\n")


if __name__ == "__main__":
    write()
