"""A world that trains in seconds, and detectors without weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magi_video.evaluation.features import Detectors
from magi_video.experiments.measure import Measures
from magi_video.experiments.runs import Workplace
from magi_video.experiments.worlds import CPU_WORLDS, World
from magi_video.presets import load_preset
from magi_video.training.display import Silent

pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")


def toy_detectors() -> Detectors:
    """Random projections of the pixels and of their changes: enough to tell still from moving."""
    generator = torch.Generator().manual_seed(0)
    spatial = torch.randn(3 * 8 * 8, 6, generator=generator)

    def project(frames_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(frames_NCHW, 8).flatten(1) @ spatial

    def video(clip_1CTHW: torch.Tensor) -> torch.Tensor:
        frames = project(clip_1CTHW[0].transpose(0, 1))
        return torch.cat([frames.mean(0), frames.diff(dim=0).abs().mean(0)])[None]

    def image(frames_NHWC: torch.Tensor) -> torch.Tensor:
        return project(frames_NHWC.movedim(-1, 1).float() / 255)

    return Detectors(video, image, lambda a, b: (a - b).square().mean((1, 2, 3)))


@pytest.fixture(scope="session")
def world() -> World:
    tiny = load_preset("tiny")
    preset = replace(
        tiny,
        data=replace(tiny.data, num_frames=10, max_interval=2),
        model=replace(tiny.model, hidden=32, mlp=64, head_width=32, temporal_position="rope"),
        train=replace(tiny.train, steps=3, sample_every=0, checkpoint_every=2),
        sample=replace(tiny.sample, mask_steps=2, denoise_steps=2),
    )
    return replace(
        CPU_WORLDS[0], preset=preset, given=2, num_clips=8, episodes=16, train_frames=24, test_frames=24, frames=10
    )


@pytest.fixture(scope="session")
def measures(world: World, tmp_path_factory: pytest.TempPathFactory) -> Measures:
    folder: Path = tmp_path_factory.mktemp("reproduce") / world.name
    return Measures(Workplace(world, folder, None, Silent()), fid_frames=2, detectors=toy_detectors())
