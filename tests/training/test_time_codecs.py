"""From a saved video VAE to a trained model that generates and streams."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.cli import main
from magi_video.codecs.base import CODECS
from magi_video.codecs.registry import load_codec
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import CodecConfig, Preset
from magi_video.training import preparation
from magi_video.training.preparation import clips_to_measure, prepare_codec
from magi_video.training.run import train
from tests.codecs.codec_examples import make_omnitokenizer, make_vae

STEPS: dict[str, Any] = {"mask_steps": 2, "denoise_steps": 3}


@pytest.fixture
def codecs(tmp_path: Path) -> Path:
    """A folder with a VAE of each kind."""
    for kind in ("cosmos", "wan", "cogvideox", "ltx"):
        make_vae(kind).save_pretrained(tmp_path / kind)
    make_omnitokenizer().save_pretrained(tmp_path / "omnitokenizer")
    return tmp_path


@pytest.fixture(autouse=True)
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "STATISTICS_CLIPS", 6)


def preset_on(recipe: Callable[..., Preset], folder: Path, **data: int) -> Preset:
    preset = recipe(steps=3, sample_every=3, checkpoint_every=3)
    name = "omnitokenizer" if folder.name == "omnitokenizer" else "video_vae"
    return dataclasses.replace(
        preset,
        data=dataclasses.replace(preset.data, **{"num_frames": 9, "max_interval": 2} | data),
        codec=CodecConfig(codec=name, vae=str(folder), vae_subfolder=""),  # type: ignore[arg-type]
        model=dataclasses.replace(preset.model, patch_size=2, actions=True),
    )


@pytest.mark.parametrize("kind", ["cosmos", "wan", "cogvideox", "ltx", "omnitokenizer"])
def test_train_generate_and_stream(
    kind: str, codecs: Path, videos: Path, recipe: Callable[..., Preset], tmp_path: Path
) -> None:
    run = train(preset_on(recipe, codecs / kind), videos, tmp_path / "run")
    assert (run / "samples" / "step_00000003.png").is_file()
    pipe = MagiVideoPipeline.from_pretrained(run)
    assert pipe.codec.temporal_factor == 4 and pipe.transformer.config.num_frames == 3
    assert pipe.codec.fingerprint() == load_codec(run / "codec").fingerprint()
    given = VideoFolder(videos).read(0, range(5)).numpy()
    settings = {"video": given, "num_frames": 11, "actions": np.ones((11, 1), np.float32), **STEPS}
    made = pipe(generator=torch.Generator().manual_seed(0), **settings).frames
    assert made.shape == (1, 11, 16, 16, 3) and np.isfinite(made).all() and made.std() > 0
    streamed = list(pipe.stream(generator=torch.Generator().manual_seed(0), **settings))
    assert np.allclose(np.stack(streamed, axis=1), made, atol=1e-5)


def test_the_command_takes_whole_latent_frames(
    codecs: Path, videos: Path, recipe: Callable[..., Preset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = preset_on(recipe, codecs / "wan")
    run = train(dataclasses.replace(preset, train=dataclasses.replace(preset.train, steps=1)), videos, tmp_path / "run")
    wanted = ["generate", str(run), "--out", str(tmp_path / "made"), "--context", str(videos / "video_0.mp4")]
    wanted += ["--frames", "7", "--mask-steps", "2", "--denoise-steps", "3", "--interval", "2", "--save-arrays"]
    assert main([*wanted, "--context-frames", "4"]) == 1
    complaint = capsys.readouterr().err
    assert "compresses time by 4 and takes 1, 5, 9" in complaint.splitlines()[-1]
    assert complaint.count("\n") == 2, "the precision that was chosen, and what is wrong"
    assert main([*wanted, "--context-frames", "5"]) == 0
    assert np.load(tmp_path / "made" / "sample_000.npy").shape == (7, 16, 16, 3)


def test_statistics_are_measured_on_clips_at_the_intervals_of_training(
    codecs: Path, videos: Path, recipe: Callable[..., Preset], tmp_path: Path
) -> None:
    preset = preset_on(recipe, codecs / "wan")
    folder = VideoFolder(videos)
    measured = list(clips_to_measure(preset, folder, seed=0))
    assert len(measured) == 6 and measured[0].shape == (1, 9, 3, 16, 16)
    codec = prepare_codec(preset, folder, tmp_path / "run", 0, None)
    assert codec.config["latents_mean"] != [0.1, 0.2, 0.3, 0.4], "not those that the VAE claims"
    assert load_codec(tmp_path / "run" / "codec").fingerprint() == codec.fingerprint()
    latents_C = torch.cat([codec.encode(clip).movedim(2, 0).flatten(1) for clip in measured], dim=1)
    torch.testing.assert_close(latents_C.mean(1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents_C.std(1, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    slow = dataclasses.replace(preset, data=dataclasses.replace(preset.data, min_interval=2))
    assert not torch.equal(torch.cat(list(clips_to_measure(slow, folder, seed=0))), torch.cat(measured))


def test_what_does_not_fit_is_told_before_anything_is_trained(
    codecs: Path, videos: Path, recipe: Callable[..., Preset], tmp_path: Path
) -> None:
    with pytest.raises(MagiError, match=r"cannot encode 8 frames; expected 1 \+ a multiple of 4"):
        train(preset_on(recipe, codecs / "wan", num_frames=8), videos, tmp_path / "run")
    with pytest.raises(MagiError, match="18x16"):
        train(preset_on(recipe, codecs / "wan", height=18), videos, tmp_path / "run1")
    with pytest.raises(MagiError, match="convert-omnitokenizer"):
        CODECS["omnitokenizer"].pretrained(
            CodecConfig(codec="omnitokenizer", vae=str(tmp_path / "nowhere"), vae_subfolder="")
        )
    load_codec(codecs / "omnitokenizer")
    with pytest.raises(MagiError, match="one of AutoencoderKLCosmos"):
        CODECS["video_vae"].pretrained(
            CodecConfig(codec="video_vae", vae=str(codecs / "omnitokenizer"), vae_subfolder="")
        )
