"""Sample sheets: their videos are continued with what is known of them, and the sheet says so."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import Preset
from magi_video.training import preview
from magi_video.training.run import train
from magi_video.video.video import write_video
from tests.training.conftest import LengthEncoder, moving_square

Recipe = Callable[..., Preset]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each sheet's continuations were asked with, and the titles of its rows."""
    asked: list[dict[str, Any]] = []
    call, sheet = MagiVideoPipeline.__call__, preview.contact_sheet

    def note_call(self: MagiVideoPipeline, **arguments: Any) -> Any:
        asked.append(arguments)
        return call(self, **arguments)

    def note_titles(rows: Any, labels: list[str], **options: Any) -> np.ndarray:
        for arguments, title in zip(asked, labels[1::2], strict=True):
            arguments["title"] = title
        return sheet(rows, labels=labels, **options)

    monkeypatch.setattr(MagiVideoPipeline, "__call__", note_call)
    monkeypatch.setattr(preview, "contact_sheet", note_titles)
    return asked


def with_model(preset: Preset, **model: Any) -> Preset:
    return dataclasses.replace(preset, model=dataclasses.replace(preset.model, **model))


def test_classes_and_captions_are_told(
    recipe: Recipe, tmp_path: Path, shown: list[dict[str, Any]], length_encoder: None
) -> None:
    for number, (name, caption) in enumerate({"left/1": "a red ball", "right/2": None, "3": "b" * 300}.items()):
        write_video(tmp_path / "data" / f"{name}.mp4", moving_square(12, number, 1), 10.0)
        if caption:
            (tmp_path / "data" / f"{name}.txt").write_text(caption)
    preset = with_model(recipe(steps=1, sample_every=1), labels=True, text=True, text_tokens=2)
    train(preset, tmp_path / "data", tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "step_00000001.png").is_file()
    assert [(one["label"], one["text"]) for one in shown] == [(None, "b" * 300), (0, "a red ball"), (1, None)]
    assert [one["title"].removeprefix("continued from frame 0") for one in shown] == [
        "; text: " + "b" * 99 + "…",
        "; class left; text: a red ball",
        "; class right",
    ]


def test_sheets_take_the_captions_vectors_from_the_training(
    recipe: Recipe, tmp_path: Path, length_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.Tensor] = []
    encode_text = MagiVideoPipeline.encode_text
    monkeypatch.setattr(
        MagiVideoPipeline, "encode_text", lambda *given: (made.append(encode_text(*given)), made[-1])[1]
    )
    monkeypatch.setattr("magi_video.codecs.text_encoder.load_encoder", None)  # which nobody asks for
    captions = ["a blue ball", "a red ball, still"]
    for number, caption in enumerate(captions):
        write_video(tmp_path / "data" / f"{number}.mp4", moving_square(12, number, 1), 10.0)
        (tmp_path / "data" / f"{number}.txt").write_text(caption)
    train(with_model(recipe(steps=2, sample_every=1), text=True, text_tokens=2), tmp_path / "data", tmp_path / "run")
    expected = LengthEncoder(tmp_path).encode(captions, 2).half().float()
    assert torch.equal(torch.cat(made), torch.cat([expected, expected])), "of two sheets"


def test_a_model_is_told_no_more_than_it_takes(recipe: Recipe, tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    write_video(tmp_path / "data" / "class" / "1.mp4", moving_square(12, 0, 1), 10.0)
    (tmp_path / "data" / "class" / "1.txt").write_text("a caption")
    train(recipe(steps=1, sample_every=1), tmp_path / "data", tmp_path / "run")
    assert [(one["label"], one["text"], one["title"]) for one in shown] == [(None, None, "continued from frame 0")]


def test_the_actions_are_those_between_the_frames_shown(
    recipe: Recipe, tmp_path: Path, shown: list[dict[str, Any]]
) -> None:
    preset = with_model(recipe(steps=1, sample_every=1), actions=True)
    length = preset.data.num_frames
    for name, frames in (("just", length), ("longer", length + 4)):
        write_video(tmp_path / "data" / f"{name}.mp4", moving_square(frames, 0, 1), 10.0)
        rows = [{"frame": t, "action": {"TIME": t}} for t in range(frames)]
        (tmp_path / "data" / f"{name}.actions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train(preset, tmp_path / "data", tmp_path / "run")
    just, longer = (one["actions"][1:, 0].tolist() for one in shown)
    assert just == list(range(length - 1)) and longer == list(range(2, length + 1))
