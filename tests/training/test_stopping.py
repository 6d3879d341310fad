import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from magi_video.codecs.config import SmallVAEConfig
from magi_video.files.checkpoints import latest_checkpoint
from magi_video.recipe import CodecConfig
from magi_video.training import stopping
from magi_video.training.display import Silent
from magi_video.training.encode import encode
from magi_video.training.run import train
from magi_video.training.stopping import StoppedError, StopSignals
from tests.training.test_trainer import Recipe

SMALL_VAE = SmallVAEConfig(width=8, encoder_blocks=(0, 0), decoder_blocks=(0, 0), steps=4, checkpoint_every=100)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_is_noted_and_afterwards_handled_as_before(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals, signals.held():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a launcher passes on what all have got
        assert signals.received == number
        with pytest.raises(StoppedError, match=f"stopped by {signal.Signals(number).name} while resting"):
            signals.check("resting")
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ECHO", -1.0)
    with StopSignals() as signals, signals.held(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_the_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StoppedError(signal.SIGUSR1, "at rest")))
    assert error.exit_code == 128 + signal.SIGUSR1 and "SIGUSR1 at rest; the same command continues" in str(error)


def test_training_finishes_its_step_saves_and_says_so(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    class Killer(Silent):
        def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
            if figures and done == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    with StopSignals() as signals, pytest.raises(StoppedError, match="after step 2, which is saved") as stopped:
        train(recipe(checkpoint_every=100), videos, tmp_path / "run", display=Killer(), signals=signals)
    assert stopped.value.exit_code == 143
    checkpoint = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None and checkpoint.step == 2


def test_the_codecs_training_saves_the_step_that_a_signal_meets(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    class Killer(Silent):
        def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
            if figures and done == 2:
                os.kill(os.getpid(), signal.SIGINT)

    preset = replace(recipe(), codec=CodecConfig(codec="small_vae"), small_vae=SMALL_VAE)
    for name, call in (("run", train), ("cache", encode)):
        out = tmp_path / name
        with StopSignals() as signals, pytest.raises(StoppedError, match="while training the codec") as stopped:
            call(preset, videos, out, display=Killer(), signals=signals)
        assert stopped.value.exit_code == 130
        checkpoint = latest_checkpoint(out / "codec" / "checkpoints")
        assert checkpoint is not None and checkpoint.step == 2
