"""Training: it learns, it resumes to the bit, it survives a full disk, it refuses what does not fit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.experiments.gap import last_frame_loss
from magi_video.files import checkpoints
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import Preset
from magi_video.training.run import train
from magi_video.video.video import write_video
from tests.training.conftest import moving_square

Recipe = Callable[..., Preset]


def final_state(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step_{step:08d}"
    return {
        f"{name}/{key}": value
        for name in ("model", "ema", "optimizer")
        for key, value in load_file(folder / f"{name}.safetensors").items()
    }


def test_resuming_equals_not_having_stopped_to_the_bit(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    with_actions = dataclasses.replace(recipe(), model=dataclasses.replace(recipe().model, actions=True))
    train(with_actions, videos, tmp_path / "whole", seed=3)
    half = dataclasses.replace(with_actions, train=dataclasses.replace(with_actions.train, steps=3))
    train(half, videos, tmp_path / "halves", seed=3)
    train(with_actions, videos, tmp_path / "halves", seed=3)
    whole, halves = final_state(tmp_path / "whole", 6), final_state(tmp_path / "halves", 6)
    assert whole.keys() == halves.keys() and len(whole) > 100
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    first = final_state(tmp_path / "whole", 3)
    assert not all(torch.equal(whole[key], first[key]) for key in whole), "the last steps did something"


def test_dropout_and_flips_are_the_same_after_a_stop_and_in_parts_of_a_batch(
    videos: Path, recipe: Recipe, tmp_path: Path
) -> None:
    def flipping(steps: int, out: str, **more: Any) -> dict[str, torch.Tensor]:
        preset = recipe(steps=steps, checkpoint_every=2, attention_dropout=0.1, projection_dropout=0.1, mlp_dropout=0.1)
        preset = dataclasses.replace(preset, data=dataclasses.replace(preset.data, flip=0.5))
        preset = dataclasses.replace(preset, train=dataclasses.replace(preset.train, **more))
        train(preset, videos, tmp_path / out, seed=3)
        return final_state(tmp_path / out, steps)

    whole = flipping(4, "whole")
    flipping(2, "halves")
    halves = flipping(4, "halves", gradient_checkpointing=True)
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    in_parts = flipping(4, "parts", accumulate=2)
    weights = [key for key in whole if key.startswith("model/")]
    assert all(torch.allclose(whole[key], in_parts[key], atol=1e-5) for key in weights)
    without = flipping(4, "without", mlp_dropout=0.0)
    assert not all(torch.allclose(whole[key], without[key], atol=1e-5) for key in weights)


def test_accumulation_runs_and_uses_every_part(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe(accumulate=2, steps=2, checkpoint_every=2), videos, tmp_path / "run")
    assert (tmp_path / "run" / "model_index.json").is_file()
    with pytest.raises(MagiError, match="does not divide"):
        train(recipe(accumulate=3), videos, tmp_path / "odd")


BY_HEART = 600
"""Steps in which complete teacher forcing learns four clips by heart, well above the bar."""


def learn_by_heart(preset: Preset, folder: Path) -> tuple[float, float, dict[str, float]]:
    """Train on four clips of four frames and go on from their first frames.

    Returns:
        PSNR to the clips, in dB; that of repeating the first frame; what `last_frame_loss` says of the model.
    """
    (folder / "clips").mkdir()
    for number in range(4):
        clip = moving_square(4, 3 * number, 1 + number % 2)
        write_video(folder / "clips" / f"{number}.mp4", clip, 10.0, crf=1)
    videos = VideoFolder(folder / "clips")
    truth = np.stack([videos.read(number, range(4)).numpy() for number in range(4)])
    preset = dataclasses.replace(
        preset,
        model=dataclasses.replace(preset.model, head_width=128),
        data=dataclasses.replace(preset.data, max_interval=1),
        exposure=dataclasses.replace(preset.exposure, noise_levels=0),
    )
    train(preset, folder / "clips", folder / "run")
    losses = [json.loads(line)["loss"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-10:]) < 0.1 * losses[0]
    made = MagiVideoPipeline.from_pretrained(folder / "run")(
        image=[clip[0] for clip in truth], num_frames=4, mask_steps=16, denoise_steps=100,
        generator=torch.Generator().manual_seed(0),
    ).frames  # fmt: skip
    real = truth / 255
    psnr, still = (-10 * np.log10(np.square(video - real[:, 1:]).mean()) for video in (made[:, 1:], real[:, :1]))
    return float(psnr), float(still), last_frame_loss(folder / "run", truth, 1)


def test_overfitting_a_few_clips_reproduces_them_from_their_first_frame(recipe: Recipe, tmp_path: Path) -> None:
    """Above 19 dB, where repeating the first frame has 14.7; 45 dB after 900 steps (docs/experiments.md)."""
    preset = recipe(steps=BY_HEART, checkpoint_every=900, batch_size=8, learning_rate=2e-3, ema_decay=0.98)
    psnr, still, loss = learn_by_heart(preset, tmp_path)
    assert psnr > 19 > still + 4, f"{psnr:.1f} dB, repeating the first frame {still:.1f} dB"
    assert loss["as_generated"] == loss["as_trained"], "the past of training is the past of generation"


def test_masked_teacher_forcing_learns_them_too_but_not_to_go_on_from_a_frame_in_the_same_steps(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Its loss is as low, behind a complete past too, which it never saw: it can read one. But the head still removes
    noise without asking z which frame it is of, so that what it makes is none of them (docs/experiments.md)."""
    preset = recipe(steps=BY_HEART, checkpoint_every=900, batch_size=8, learning_rate=2e-3, ema_decay=0.98)
    psnr, still, loss = learn_by_heart(dataclasses.replace(preset, forcing="masked"), tmp_path)
    assert loss["as_generated"] < 1.1 * loss["as_trained"] < 0.1
    assert abs(psnr - still) < 2.5, f"{psnr:.1f} dB, repeating the first frame {still:.1f} dB: say so in the lab book"


def test_a_full_disk_keeps_the_previous_checkpoint(
    videos: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    original = checkpoints.write_tensors

    def full(path: Path, *tensors: Any) -> list[int]:
        if (run / "checkpoints" / "step_00000003").exists() and path.name == "optimizer.safetensors":
            path.write_bytes(b"half a file")
            raise OSError(28, "No space left on device")
        return original(path, *tensors)

    monkeypatch.setattr(checkpoints, "write_tensors", full)
    with pytest.raises(MagiError, match="No space left"):
        train(recipe(), videos, run)
    latest = checkpoints.latest_checkpoint(run / "checkpoints")
    assert latest is not None and latest.step == 3
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_00000003"], "nothing half-written stays"
    MagiVideoPipeline.from_pretrained(run)
    monkeypatch.undo()
    train(recipe(), videos, run)
    assert checkpoints.latest_checkpoint(run / "checkpoints").step == 6  # type: ignore[union-attr]


def test_a_damaged_checkpoint_is_passed_over(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(recipe(), videos, run)
    newest = run / "checkpoints" / "step_00000006" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    assert checkpoints.latest_checkpoint(run / "checkpoints").step == 3  # type: ignore[union-attr]


def test_the_log_of_a_resumed_run_tells_every_step_once(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    train(recipe(steps=3, log_every=1), videos, run)
    (run / ".part-model-1").mkdir()
    with log.open("a") as file:  # as if it had been killed two steps after the checkpoint, writing
        file.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    train(recipe(log_every=1), videos, run)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in run.glob(".*")] == [".lock"]


def test_a_checkpoint_of_another_model_is_refused_in_a_line(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe(steps=3), videos, tmp_path / "run")
    checkpoint = checkpoints.latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    saved = dict(checkpoint.tensors("model"))
    with pytest.raises(MagiError, match="lacks"):
        checkpoints.restore_tensors(saved | {"more": torch.zeros(1)}, saved.items())
    with pytest.raises(MagiError, match=r"mask_token is .* expected \[3\]"):
        checkpoints.restore_tensors(saved | {"mask_token": torch.zeros(3)}, saved.items())


def test_rotation_never_drops_the_checkpoint_just_written(tmp_path: Path) -> None:
    def save(step: int) -> None:
        checkpoints.save_checkpoint(tmp_path, step, {"model": {"x": torch.full((2,), float(step))}}, {}, keep=1)

    (tmp_path / "step_00000009").mkdir(parents=True)  # damaged: training goes on from an earlier one
    save(3)
    assert [folder.name for folder in tmp_path.iterdir()] == ["step_00000003"]
    save(4)
    checkpoint = checkpoints.latest_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.step == 4 and dict(checkpoint.tensors("model"))["x"].tolist() == [4, 4]
    assert load_file(checkpoint.file("model"))["x"].tolist() == [4, 4], "the library reads what we write"


def test_another_recipe_or_seed_in_the_folder_is_refused(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe(steps=2, checkpoint_every=2), videos, tmp_path / "run")
    with pytest.raises(MagiError, match="forcing complete → masked"):
        train(dataclasses.replace(recipe(), forcing="masked"), videos, tmp_path / "run")
    with pytest.raises(MagiError, match="seed 0 → 1"):
        train(recipe(), videos, tmp_path / "run", seed=1)
    train(recipe(steps=3, checkpoint_every=9), videos, tmp_path / "run")  # longer is no other recipe


def test_masked_teacher_forcing_trains_by_the_same_loop(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(dataclasses.replace(recipe(steps=2), forcing="masked"), videos, tmp_path / "run")
    pipe = MagiVideoPipeline.from_pretrained(tmp_path / "run")
    assert pipe.config.forcing == "masked"
    assert pipe(num_frames=3, mask_steps=2, denoise_steps=3).frames.shape == (1, 3, 16, 16, 3)


def test_previews_show_truth_and_result(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe(steps=2, sample_every=2), videos, tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "step_00000002.png").is_file()
    assert list((tmp_path / "run" / "logs").rglob("events.out*"))


def test_unusable_data_is_told_in_one_line(recipe: Recipe, tmp_path: Path, videos: Path) -> None:
    with pytest.raises(MagiError, match="no such folder"):
        train(recipe(), tmp_path / "nowhere", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MagiError, match="no readable video"):
        train(recipe(), tmp_path / "empty", tmp_path / "run1")
    long = dataclasses.replace(recipe(), data=dataclasses.replace(recipe().data, num_frames=100))
    with pytest.raises(MagiError, match="at least 100 frames"):
        train(long, videos, tmp_path / "run2")
