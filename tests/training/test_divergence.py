"""A run that skips one step after the other stops, and says what is left of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from magi_video.cli import main
from magi_video.errors import MagiError
from magi_video.recipe import Preset
from magi_video.training.optimization import SpikeGuard
from magi_video.training.run import train

Refuse = Callable[[range], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Lets the guard refuse these steps, which are otherwise good ones."""

    def refuse(steps: range) -> None:
        accepts = SpikeGuard.accepts

        def answer(self: SpikeGuard, loss: Tensor, norm: Tensor) -> Tensor:
            state = self.state()
            step = state["accepted"] + state["skipped"] + 1
            return accepts(self, loss, float("inf") if step in steps else norm)

        monkeypatch.setattr(SpikeGuard, "accepts", answer)

    return refuse


def steps_kept(run: Path) -> list[str]:
    return sorted(folder.name for folder in (run / "checkpoints").glob("step_*"))


def test_it_stops_after_so_many_and_names_the_last_good_checkpoint(
    videos: Path, recipe: Callable[..., Preset], tmp_path: Path, refuse: Refuse
) -> None:
    refuse(range(6, 100))
    preset = recipe(steps=30, checkpoint_every=1, stop_after_skips=4)
    with pytest.raises(MagiError, match=r"4 steps in a row skipped, the last of them 9, .* good .*step_00000004;"):
        train(preset, videos, tmp_path / "run")
    assert steps_kept(tmp_path / "run") == ["step_00000004", "step_00000005"], "none of skipped steps"


def test_a_run_whose_last_steps_were_skipped_is_not_trained(
    videos: Path, recipe: Callable[..., Preset], tmp_path: Path, refuse: Refuse
) -> None:
    refuse(range(5, 7))
    with pytest.raises(MagiError, match="2 steps in a row skipped, the last of them 6"):
        train(recipe(steps=6, checkpoint_every=3), videos, tmp_path / "run")
    assert steps_kept(tmp_path / "run") == ["step_00000003"]


def test_a_skipped_step_or_two_on_the_way_do_no_harm(
    videos: Path, recipe: Callable[..., Preset], tmp_path: Path, refuse: Refuse
) -> None:
    refuse(range(3, 5))
    train(recipe(steps=6, checkpoint_every=3), videos, tmp_path / "run")
    assert steps_kept(tmp_path / "run") == ["step_00000005", "step_00000006"], (
        "step 3 was skipped, so saved when one is taken"
    )


def test_the_command_ends_with_an_error(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "tiny", "--data", str(videos), "--out", str(tmp_path / "run"), "--sample-every", "0"]
    assert main([*arguments, "--learning-rate", "1e9", "--warmup-steps", "0", "--steps", "6", "--batch-size", "2"]) == 1
    told = capsys.readouterr().err
    assert "training diverged: " in told and "there is no checkpoint from before" in told
    assert "trained:" not in told and "Traceback" not in told
