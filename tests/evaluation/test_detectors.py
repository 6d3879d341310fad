"""The pretrained networks against what the published implementations say of the same input (golden.json), on real
clips, and their parts without any weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from magi_video.errors import MagiError
from magi_video.evaluation.detectors import I3D, LPIPS, Inception
from magi_video.evaluation.detectors.folding import fold_normalisation
from magi_video.evaluation.detectors.i3d import MaxPool, same_padding
from magi_video.evaluation.features import detector_input
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.evaluation.weights import available
from magi_video.video.video import read_frames

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
PLAYING_VIOLIN, RIDING_HORSE = 250, 273  # places in the list of Kinetics-400's classes


def moving_board(frames: int, size: int = 224) -> np.ndarray:
    """uint8 [frames, size, size, 3]: a coloured checkerboard and ramps, moving; exact on any machine."""
    t, h, w = np.meshgrid(np.arange(frames), np.arange(size), np.arange(size), indexing="ij")
    levels = [
        (((h + speed * t) // 16 + (w + 2 * speed * t) // 28) % 2) * 200 + (h * (channel + 1) + w + 5 * t) % 56
        for channel, speed in enumerate((3, 5, -4))
    ]
    return np.stack(levels, -1).astype(np.uint8)


def as_video(frames_THWC: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None] / 127.5 - 1).contiguous()


def as_images(frames_THWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture(scope="module")
def fetched() -> Callable[[str], None]:
    """Skips a test whose weights are not in the user's own cache: tests download nothing."""
    names = {name for name in ("i3d", "inception", "lpips-alex", "lpips-vgg") if available(name)}

    def need(name: str) -> None:
        if name not in names:
            pytest.skip(f"the weights of {name} are not there: magi weights fetch {name}")

    return need


@pytest.fixture(scope="module")
def i3d(fetched: Callable[[str], None]) -> I3D:
    fetched("i3d")
    return I3D.pretrained()


@pytest.fixture(scope="module")
def inception(fetched: Callable[[str], None]) -> Inception:
    fetched("inception")
    return Inception.pretrained()


@pytest.fixture(scope="module", params=["alex", "vgg"])
def lpips(fetched: Callable[[str], None], request: pytest.FixtureRequest) -> LPIPS:
    fetched(f"lpips-{request.param}")
    return LPIPS.pretrained(request.param)


@pytest.mark.parametrize("frames", [16, 13])  # an even and an odd length are padded differently
def test_i3d_gives_the_logits_of_the_published_network(i3d: I3D, frames: int) -> None:
    logits = i3d(as_video(moving_board(frames)))
    assert logits.shape == (1, 400) and not logits.requires_grad
    torch.testing.assert_close(logits[0], torch.tensor(GOLDEN["i3d"][str(frames)]), atol=1e-3, rtol=0)


def test_i3d_does_not_depend_on_batch_or_memory_format(i3d: I3D) -> None:
    clips = torch.cat([as_video(moving_board(10)), as_video(moving_board(12)[2:])])
    together = i3d(clips.contiguous(memory_format=torch.channels_last_3d))
    for index in range(2):
        torch.testing.assert_close(i3d(clips[index : index + 1])[0], together[index], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("video", "frames", "label"),
    [
        ("PlayingViolin/v_PlayingViolin_g01_c01.avi", 16, PLAYING_VIOLIN),
        ("PlayingViolin/v_PlayingViolin_g02_c01.avi", 16, PLAYING_VIOLIN),
        ("HorseRace/v_HorseRace_g05_c01.avi", 32, RIDING_HORSE),
        ("HorseRace/v_HorseRace_g16_c01.avi", 32, RIDING_HORSE),
    ],
)
def test_i3d_knows_what_real_clips_show(i3d: I3D, ucf101: Path, video: str, frames: int, label: int) -> None:
    path = next(ucf101.rglob(Path(video).name), None)
    if path is None:
        pytest.skip(f"MAGI_UCF101 has no {video}")
    clip_THWC = read_frames(path, range(frames))
    assert int(i3d(detector_input(clip_THWC, PROTOCOLS["videogpt"]))[0].argmax()) == label


def test_inception_gives_the_features_of_the_published_network(inception: Inception) -> None:
    frames = torch.from_numpy(moving_board(2, 96)[:, :, :64].copy())
    features = inception(frames)
    assert features.shape == (2, 2048)
    torch.testing.assert_close(features[:, ::16], torch.tensor(GOLDEN["inception_every_16th"]), atol=1e-3, rtol=0)
    torch.testing.assert_close(features.norm(dim=1), torch.tensor(GOLDEN["inception_norm"]), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (75, 53)])
def test_lpips_gives_the_distances_of_the_published_metric(lpips: LPIPS, height: int, width: int) -> None:
    images = as_images(moving_board(12))[:, :, :height, :width]
    distances = lpips(images[0:3], images[[1, 5, 11]])
    expected = GOLDEN["lpips"][lpips.net][f"{height}x{width}"]
    torch.testing.assert_close(distances, torch.tensor(expected), atol=1e-5, rtol=0)
    assert lpips(images[:2], images[:2]).tolist() == [0, 0]


def test_lpips_is_a_loss(lpips: LPIPS) -> None:
    a, b = torch.zeros(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32) * 2 - 1
    lpips(a, b).sum().backward()
    assert a.grad is not None and a.grad.isfinite().all() and a.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in lpips.parameters())


def test_lpips_gradient_is_finite_where_no_feature_fires() -> None:
    net = LPIPS("alex")  # untrained: with biases this low nothing passes a ReLU
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.bias, -1e3)
    a = torch.zeros(1, 3, 32, 32, requires_grad=True)
    net(a, torch.ones(1, 3, 32, 32)).sum().backward()
    assert a.grad is not None and a.grad.eq(0).all()


@pytest.mark.parametrize("size", [5, 8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2), (7, 2)])
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    video = torch.ones(1, 1, size, size, size)
    padded = same_padding(video, (kernel, 1, kernel), (stride, 1, stride))
    line = padded[0, 0, :, 0, padded.shape[-1] // 2]
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    assert line.tolist() == [0.0] * (total // 2) + [1.0] * size + [0.0] * (total - total // 2)
    assert padded.shape[3] == size and (len(line) - kernel) // stride + 1 == outputs


@pytest.mark.parametrize(("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))])
def test_pooling_by_dimension_is_pooling(kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    video = torch.rand(2, 3, 5, 8, 7)
    expected = F.max_pool3d(same_padding(video, kernel, stride), kernel, stride)
    assert torch.equal(MaxPool(kernel, stride)(video), expected)


def test_folded_normalisation_is_normalisation() -> None:
    weight, bias_free = torch.randn(4, 3, 3, 3), torch.randn(2, 3, 8, 8)
    mean, variance, beta = torch.randn(4), torch.rand(4), torch.randn(4)
    expected = F.batch_norm(F.conv2d(bias_free, weight), mean, variance, None, beta, eps=1e-3)
    folded = F.conv2d(bias_free, *fold_normalisation(weight, mean, variance, beta, 1e-3))
    torch.testing.assert_close(folded, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 8, 224, 224), (1, 3, 16, 112, 224), (1, 1, 16, 224, 224)])
def test_i3d_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(MagiError, match="224"):
        I3D()(torch.zeros(shape))


def test_the_others_refuse_other_shapes() -> None:
    with pytest.raises(MagiError, match="uint8"):
        Inception()(torch.zeros(1, 8, 8, 3))
    with pytest.raises(MagiError, match="at least 31"):
        LPIPS("alex")(torch.zeros(1, 3, 30, 64), torch.zeros(1, 3, 30, 64))
    with pytest.raises(MagiError, match="one shape"):
        LPIPS("vgg")(torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32))
    with pytest.raises(MagiError, match="expected one of alex, vgg"):
        LPIPS("squeeze")
    untrained = LPIPS("alex")(torch.zeros(2, 3, 31, 31), torch.ones(2, 3, 31, 31))
    assert untrained.shape == (2,) and untrained.isfinite().all()
