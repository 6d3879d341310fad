import dataclasses
import json
import signal
import subprocess
import sys

import pytest
import torch

from magi_video.codecs.config import SmallVAEConfig
from magi_video.codecs.quality import reconstruction_psnr
from magi_video.codecs.registry import load_codec
from magi_video.codecs.small_vae_training import SmallVAETraining, build_small_vae
from magi_video.codecs.training import CHECKPOINTS, RECORD, learning_rate, train_codec
from magi_video.errors import MagiError
from magi_video.training.stopping import StoppedError

SMALL = SmallVAEConfig(
    width=16,
    encoder_blocks=(0, 1, 1),
    decoder_blocks=(1, 1, 0),
    steps=6,
    batch_size=4,
    warmup_steps=2,
    checkpoint_every=2,
    latent_channels=4,
)


def pictures(step: int, count: int = 4, size: int = 16) -> torch.Tensor:
    """Smooth pictures: a colour gradient with a disc on it, drawn anew for every step."""
    generator = torch.Generator().manual_seed(step)
    low, high, disc = (torch.rand((count, 3, 1, 1), generator=generator) * 2 - 1 for _ in range(3))
    centre = torch.rand((count, 2, 1, 1, 1), generator=generator)
    axis = torch.linspace(0, 1, size)
    background = low + (high - low) * axis[None, None, :, None]
    inside = (axis[:, None] - centre[:, 0]) ** 2 + (axis[None, :] - centre[:, 1]) ** 2 < 0.06
    return torch.where(inside, disc, background.expand(-1, -1, -1, size))


HELD_OUT = [pictures(10_000 + step) for step in range(2)]


class KilledError(Exception):
    """Raised from the callback: the training is killed."""


def stop_after(last: int):
    def on_step(step, metrics):
        if step == last:
            raise KilledError

    return on_step


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("killed_at", [1, 2, 5])
def test_resuming_changes_no_bit(tmp_path, precision, killed_at):
    config = dataclasses.replace(SMALL, precision=precision)
    whole = train_codec(SmallVAETraining(config), pictures, HELD_OUT, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_codec(SmallVAETraining(config), pictures, HELD_OUT, tmp_path / "parts", on_step=stop_after(killed_at))
    assert (tmp_path / "parts" / CHECKPOINTS).exists() == (killed_at >= config.checkpoint_every)
    seen = []
    parts = train_codec(
        SmallVAETraining(config), pictures, HELD_OUT, tmp_path / "parts", on_step=lambda step, _: seen.append(step)
    )
    assert seen == list(range(killed_at // 2 * 2 + 1, 7))
    assert parts.fingerprint() == whole.fingerprint()


def test_it_learns_and_is_saved(tmp_path):
    config = dataclasses.replace(SMALL, steps=200, learning_rate=3e-3, warmup_steps=20)
    few = [pictures(0), pictures(1)]
    losses = []

    def train(on_step):
        return train_codec(SmallVAETraining(config), lambda step: few[step % 2], few, tmp_path, on_step=on_step)

    codec = train(lambda _, metrics: losses.append(metrics["loss"]))
    videos = [batch[:, None] for batch in few]
    psnr = reconstruction_psnr(codec, videos)
    # Plain grey pictures give 13.2 dB; 200 steps gave 21.4 dB when this was written.
    assert psnr > 19
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    latents_C = torch.cat([codec.encode(video).movedim(2, 0).flatten(1) for video in videos], dim=1)
    torch.testing.assert_close(latents_C.std(1, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    # What lies in the folder is the codec and the record of its training, nothing half-done.
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors", RECORD}
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["psnr_db"] == pytest.approx(psnr) and record["parameters"] > 0
    assert load_codec(tmp_path).fingerprint() == codec.fingerprint()
    # The same call again trains nothing, and removes what a process killed after the record was written has left.
    (tmp_path / CHECKPOINTS / "step_00000200").mkdir(parents=True)
    (tmp_path / "unfinished").mkdir()
    again = train(stop_after(1))
    assert again.fingerprint() == codec.fingerprint()
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors", RECORD}


def test_other_settings_in_the_folder(tmp_path):
    with pytest.raises(KilledError):
        train_codec(SmallVAETraining(SMALL), pictures, HELD_OUT, tmp_path, on_step=stop_after(4))
    other = dataclasses.replace(SMALL, learning_rate=1.0)
    with pytest.raises(MagiError, match="learning_rate"):
        train_codec(SmallVAETraining(other), pictures, HELD_OUT, tmp_path)
    train_codec(SmallVAETraining(SMALL), pictures, HELD_OUT, tmp_path)
    with pytest.raises(MagiError, match="learning_rate"):
        train_codec(SmallVAETraining(other), pictures, HELD_OUT, tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 300, -10])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, keep):
    whole = train_codec(SmallVAETraining(SMALL), pictures, HELD_OUT, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_codec(SmallVAETraining(SMALL), pictures, HELD_OUT, tmp_path / "parts", on_step=stop_after(4))
    newest = tmp_path / "parts" / CHECKPOINTS / "step_00000004" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:keep])
    seen = []
    parts = train_codec(
        SmallVAETraining(SMALL), pictures, HELD_OUT, tmp_path / "parts", on_step=lambda step, _: seen.append(step)
    )
    assert seen == [3, 4, 5, 6]
    assert parts.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(3, 16, 16),
        torch.zeros(2, 1, 16, 16),
        torch.zeros(2, 3, 16, 18),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
    ],
)
def test_wrong_batches(tmp_path, batch):
    with pytest.raises(MagiError, match="trains on float pictures"):
        train_codec(SmallVAETraining(SMALL), lambda step: batch, HELD_OUT, tmp_path)


def test_divergence_is_told(tmp_path):
    with pytest.raises(MagiError, match="diverged at step 1"):
        train_codec(SmallVAETraining(SMALL), lambda step: pictures(step) * float("nan"), HELD_OUT, tmp_path)


def test_levels_must_agree():
    with pytest.raises(MagiError, match="as many levels"):
        build_small_vae(dataclasses.replace(SMALL, decoder_blocks=(1, 1)))


def test_weights_depend_on_the_seed_alone():
    def weights(seed):
        return torch.cat([p.flatten() for p in build_small_vae(dataclasses.replace(SMALL, seed=seed)).parameters()])

    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(weights(0), first) and not torch.equal(weights(1), first)


def test_learning_rate():
    config = SmallVAEConfig(steps=1000, warmup_steps=100, learning_rate=1.0)
    assert learning_rate(config, 0) == pytest.approx(0.01)
    assert learning_rate(config, 99) == pytest.approx(0.976, abs=0.01)
    assert learning_rate(config, 999) == pytest.approx(0.01, abs=1e-3)


def test_default_size():
    config = SmallVAEConfig()
    vae = build_small_vae(config)
    assert 0.6e6 < sum(parameter.numel() for parameter in vae.parameters()) < 0.9e6
    assert vae.encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 8, 8, 8)


def test_settings_are_read_without_torch():
    code = "import sys, magi_video.codecs.config; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_whoever_asks_it_to_stop_loses_no_step(tmp_path):
    def stop(step, metrics):
        if step == 3:
            raise StoppedError(signal.SIGINT, "while training the codec")

    with pytest.raises(StoppedError):
        train_codec(SmallVAETraining(SMALL), pictures, HELD_OUT, tmp_path / "parts", on_step=stop)
    seen = []
    parts = train_codec(
        SmallVAETraining(SMALL), pictures, HELD_OUT, tmp_path / "parts", on_step=lambda step, _: seen.append(step)
    )
    assert seen == [4, 5, 6]
    assert (
        parts.fingerprint()
        == train_codec(SmallVAETraining(SMALL), pictures, HELD_OUT, tmp_path / "whole").fingerprint()
    )
