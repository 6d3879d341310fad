"""The measures as torchmetrics: one result for any batch size, order and number of processes."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.evaluation.frechet import Moments, frechet_distance
from magi_video.evaluation.measures import clip_motion, compare_motion
from magi_video.evaluation.metrics import (
    ClipMetric,
    FrechetImageDistance,
    FrechetVideoDistance,
    MotionStatistic,
    PairedError,
)
from magi_video.evaluation.protocols import find_protocol

FRAMES, SIDE = 10, 16
AS_THEY_ARE = replace(find_protocol("small"), detector_resize=())
"""The detector here needs no 224 × 224 pixels."""


def squares(number: int, seed: int) -> Tensor:
    """Clips of a bright square that moves steadily over black, uint8 [N, 10, 16, 16, 3]."""
    generator = np.random.default_rng(seed)
    videos = np.zeros((number, FRAMES, SIDE, SIDE, 3), np.uint8)
    for video in videos:
        row, column, across, down = *generator.integers(0, 12, 2), *generator.choice([-2, -1, 1, 2], 2)
        for t, frame in enumerate(video):
            # It leaves at one side and comes back at the other.
            rows, columns = (np.arange(4) + row + down * t) % SIDE, (np.arange(4) + column + across * t) % SIDE
            frame[np.ix_(rows, columns)] = 220
    return torch.from_numpy(videos)


def video_features(video_BCTHW: Tensor) -> Tensor:
    """Deterministic and cheap: a random projection of coarse frames and of the changes from each to the next."""
    coarse_BTP = torch.nn.functional.adaptive_avg_pool3d(video_BCTHW[:, :1], (FRAMES, 8, 8)).flatten(3).flatten(1, 2)
    changes_BTP = coarse_BTP.diff(dim=1).abs()
    seen_BK = torch.cat([coarse_BTP.flatten(1), 2 * changes_BTP.flatten(1), 2 * changes_BTP.diff(dim=1).flatten(1)], 1)
    generator = torch.Generator().manual_seed(0)
    return seen_BK @ torch.randn(seen_BK.shape[1], 12, generator=generator) / 8


def image_features(frames_NHWC: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return frames_NHWC.float().flatten(1) @ torch.randn(SIDE * SIDE * 3, 6, generator=generator) / 255


def difference(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    return (a_NCHW - b_NCHW).abs().mean((1, 2, 3))


def all_metrics() -> dict[str, ClipMetric]:
    return {
        "fvd": FrechetVideoDistance(AS_THEY_ARE, video_features),
        "fid": FrechetImageDistance(image_features),
        "paired": PairedError(difference),
        "motion": MotionStatistic(),
    }


def feed(metrics: dict[str, ClipMetric], real: Tensor, fake: Tensor, chosen: list[int], batch: int) -> None:
    for start in range(0, len(chosen), batch):
        index = chosen[start : start + batch]
        for name, metric in metrics.items():
            if name == "paired":
                metric.update(fake[index], real[index], index)
            else:
                metric.update(real[index], real=True, index=torch.tensor(index))
                metric.update(fake[index], real=False, index=index)


def results(metrics: dict[str, ClipMetric]) -> dict[str, Any]:
    found = {name: metric.compute() for name, metric in metrics.items()}
    return {
        name: {key: tensor.tolist() for key, tensor in value.items()} if isinstance(value, dict) else value.item()
        for name, value in found.items()
    }


def sides() -> tuple[Tensor, Tensor]:
    real, fake = squares(9, 0), squares(9, 1)
    return real, fake


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """All clips in order, one at a time, in one process."""
    metrics = all_metrics()
    feed(metrics, *sides(), list(range(9)), batch=1)
    return results(metrics)


@pytest.mark.parametrize(
    "chosen, batch", [(list(range(9)), 4), ([5, 3, 8, 0, 1, 7, 6, 2, 4], 9), ([*range(9), 0, 1], 2)]
)
def test_batches_order_and_repeated_clips_do_not_matter(
    chosen: list[int], batch: int, expected: dict[str, Any]
) -> None:
    metrics = all_metrics()
    feed(metrics, *sides(), chosen, batch)
    assert results(metrics) == expected


def test_reset_and_merge(expected: dict[str, Any]) -> None:
    whole, part = all_metrics(), all_metrics()
    feed(whole, *reversed(sides()), [2, 5], batch=2)
    for metric in whole.values():
        metric.reset()
    feed(whole, *sides(), [8, 2, 0], batch=2)
    feed(part, *sides(), [1, 3, 4, 5, 6, 7], batch=3)
    for name, metric in whole.items():
        metric.merge_state(part[name])
    assert results(whole) == expected


def one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    shares = {"uneven": [[8, 1, 0], [2, 3, 4, 5, 6, 7, 8]], "one idle": [[], list(range(9))]}
    found = {}
    for name, share in shares.items():
        metrics = all_metrics()
        feed(metrics, *sides(), share[rank], batch=2)
        found[name] = results(metrics)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_exactly_the_same(tmp_path: Path, expected: dict[str, Any]) -> None:
    torch.multiprocessing.spawn(one_process, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == {"uneven": expected, "one idle": expected}


def test_figures_are_those_of_the_functions(expected: dict[str, Any]) -> None:
    real, fake = sides()
    frames = [side[:, 3].flatten(0, 0) for side in (real, fake)]
    third = frechet_distance(*(Moments.from_features(image_features(side)) for side in frames), ddof=1)
    assert expected["fid"]["per_frame"][3] == pytest.approx(third.value)
    every = frechet_distance(
        *(Moments.from_features(image_features(side.flatten(0, 1))) for side in (real, fake)), ddof=1
    )
    assert expected["fid"]["fid"] == pytest.approx(every.value)
    motions = ([clip_motion(clip) for clip in side.numpy()] for side in (real, fake))
    assert expected["motion"] == compare_motion(*motions)
    errors = (real.float() - fake.float())[:, 3].abs().mean() / 127.5
    assert expected["paired"]["lpips"][3] == pytest.approx(errors.item())
    assert len(expected["paired"]["psnr"]) == len(expected["paired"]["ssim"]) == FRAMES


def test_no_lpips_without_a_network() -> None:
    real, _ = sides()
    metric = PairedError()
    metric.update(real, real, range(9))
    found = metric.compute()
    assert set(found) == {"psnr", "ssim"}
    assert found["psnr"].tolist() == [100.0] * FRAMES
    assert found["ssim"].tolist() == pytest.approx([1.0] * FRAMES)


def test_worse_video_is_farther() -> None:
    """Real against real, frames shuffled, frozen, noise: in this order, well apart."""
    number = 150
    real, other = squares(number, 0), squares(number, 1)
    generator = torch.Generator().manual_seed(0)
    sets = {
        "real": other,
        "shuffled": torch.stack([clip[torch.randperm(FRAMES, generator=generator)] for clip in other]),
        "frozen": other[:, :1].expand_as(other).contiguous(),
        "noise": torch.randint(0, 256, other.shape, dtype=torch.uint8, generator=generator),
    }
    distances = []
    for fake in sets.values():
        metric = FrechetVideoDistance(AS_THEY_ARE, video_features)
        metric.update(real, real=True, index=range(number))
        metric.update(fake, real=False, index=range(number))
        distances.append(metric.compute().item())
    assert all(1.5 * better < worse for better, worse in pairwise(distances)), distances


def test_mistakes_are_told_in_one_line() -> None:
    real, fake = sides()
    metric = MotionStatistic()
    with pytest.warns(UserWarning), pytest.raises(MagiError, match=r"^no real clips were given to MotionStatistic$"):
        metric.compute()
    metric.reset()
    with pytest.raises(
        MagiError, match=r"^videos must be uint8 \[clips, frames, height, width, 3\], got float32 \[9, "
    ):
        metric.update(real.float(), real=True, index=range(9))
    with pytest.raises(MagiError, match=r"^9 clips came with 8 indices; each needs its own$"):
        metric.update(real, real=True, index=range(8))
    metric.update(real, real=True, index=range(9))
    metric.update(torch.stack([fake[0], torch.zeros_like(fake[0])]), real=False, index=[4, 4])
    with pytest.raises(
        MagiError, match=r"^two different fake clips have the index 4; every clip of a set needs its own$"
    ):
        metric.compute()
    frames = FrechetImageDistance(image_features)
    frames.update(real, real=True, index=range(9))
    frames.update(fake[:, 1:], real=False, index=range(9))
    with pytest.raises(MagiError, match=r"^real clips have 10 frames, fake ones 9$"):
        frames.compute()
