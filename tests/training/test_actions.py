"""The columns of a model's actions are those that its data names, whether or not anyone took them."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import Preset
from magi_video.serving.keys import Controls
from magi_video.training.display import Silent
from magi_video.training.run import train


class Notes(Silent):
    """What training says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def run(
    folder: Path, names: list[str], recipe: Callable[..., Preset], out: Path, **changes: Any
) -> tuple[MagiVideoPipeline, list[str]]:
    """Train on a recording that names these actions, of which FAST alone is taken."""
    (folder / "recording.json").write_text(json.dumps({"action_names": names}))
    preset, notes = recipe(steps=3, **changes), Notes()
    train(dataclasses.replace(preset, model=dataclasses.replace(preset.model, actions=True)), folder, out, 0, notes)
    return MagiVideoPipeline.from_pretrained(out), [line for line in notes.lines if "never shows" in line]


def test_an_action_that_nobody_took_is_a_key_that_does_nothing(
    videos: Path, recipe: Callable[..., Preset], tmp_path: Path
) -> None:
    folder = shutil.copytree(videos, tmp_path / "recording")
    pipe, said = run(folder, ["BACK", "FAST", "JUMP"], recipe, tmp_path / "all")
    assert pipe.config.action_names == ["BACK", "FAST", "JUMP"]
    assert len(said) == 1 and said[0].endswith(": BACK, JUMP")
    assert {control.name for control in Controls(pipe.config.action_names).controls} == {"BACK", "FAST", "JUMP"}
    weight = pipe.transformer.condition_tokens.embed["action"].project.weight  # type: ignore[union-attr]
    assert not weight[:, [0, 2]].any() and weight[:, 1].all()  # type: ignore[index]
    pipe.set_progress_bar_config(disable=True)
    still, pressed, fast = (
        pipe(
            num_frames=3, actions=[pipe.action(*names)] * 3, mask_steps=2, denoise_steps=2, output_type="pt",
            generator=torch.Generator().manual_seed(0),
        ).frames
        for names in ((), ("BACK", "JUMP"), ("FAST",))
    )  # fmt: skip
    assert torch.equal(still, pressed) and not torch.equal(still, fast)


def test_nothing_is_said_where_all_were_taken_and_little_where_many_were_not(
    videos: Path, recipe: Callable[..., Preset], tmp_path: Path
) -> None:
    folder = shutil.copytree(videos, tmp_path / "recording")
    (folder / "recording.json").write_text("{}")
    _, said = run(folder, ["FAST"], recipe, tmp_path / "one")
    assert said == []
    _, said = run(folder, ["FAST", *(f"A{i}" for i in range(20))], recipe, tmp_path / "many")
    assert said[0].endswith("A6, A7 and 12 more")
