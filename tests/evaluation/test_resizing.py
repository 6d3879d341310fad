"""Every step of the resize chains against a reference written from its definition."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from magi_video.evaluation.features import detector_input
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.evaluation.realset import prepare
from magi_video.evaluation.resizing import (
    CROP_SQUARE,
    apply_chain,
    bilinear,
    bilinear_short,
    crop,
    lanczos,
    lanczos_short,
    target_size,
    tf1_bilinear,
)


def frames(height: int, width: int, count: int = 2) -> torch.Tensor:
    """Random whole grey levels, float32 [T, 3, H, W]."""
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(1)).float()


def by_hand(row: np.ndarray, wanted: int, *, half_pixel: bool) -> np.ndarray:
    """Bilinear in one dimension, no antialias."""
    result = []
    for i in range(wanted):
        scale = len(row) / wanted
        place = (i + 0.5) * scale - 0.5 if half_pixel else i * scale
        place = min(max(place, 0.0), len(row) - 1)
        before = math.floor(place)
        after = min(before + 1, len(row) - 1)
        result.append(row[before] + (row[after] - row[before]) * (place - before))
    return np.array(result)


@pytest.mark.parametrize(("given", "wanted"), [((5, 7), (12, 12)), ((20, 30), (9, 9)), ((16, 16), (224, 224))])
@pytest.mark.parametrize("half_pixel", [True, False])
def test_bilinear_of_torch_and_of_tensorflow_1(
    given: tuple[int, int], wanted: tuple[int, int], half_pixel: bool
) -> None:
    source = frames(*given)
    step = bilinear(wanted[0], antialias=False) if half_pixel else tf1_bilinear(wanted[0])
    result = apply_chain(source, [step])
    across = np.apply_along_axis(by_hand, 3, source.double().numpy(), wanted[1], half_pixel=half_pixel)
    expected = np.apply_along_axis(by_hand, 2, across, wanted[0], half_pixel=half_pixel)
    assert np.abs(result.numpy() - expected).max() < 1e-3
    if half_pixel:
        plain = F.interpolate(source, wanted, mode="bilinear", align_corners=False)
        aligned = F.interpolate(source, wanted, mode="bilinear", align_corners=True)
        assert torch.equal(result, plain) and not torch.allclose(result, aligned, atol=1)


def test_tensorflow_1_begins_at_the_corner_and_repeats_the_last_pixel() -> None:
    row = torch.arange(4.0).expand(1, 3, 4, 4)
    assert apply_chain(row, [tf1_bilinear(8)])[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert apply_chain(row, [bilinear(8, antialias=False)])[0, 0, 0].tolist() == [
        0,
        0.25,
        0.75,
        1.25,
        1.75,
        2.25,
        2.75,
        3,
    ]


def test_antialias_blurs_before_it_shrinks() -> None:
    source = frames(40, 40, 1)
    blurred = apply_chain(source, [bilinear(10, antialias=True)])
    pillow = Image.fromarray(source[0, 0].numpy(), mode="F").resize((10, 10), Image.Resampling.BILINEAR)
    assert np.abs(blurred[0, 0].numpy() - np.asarray(pillow)).max() < 1e-2
    plain = apply_chain(source, [bilinear(10, antialias=False)])
    assert plain.std() > 1.8 * blurred.std(), "noise survives without antialias"


def test_lanczos_is_pillows() -> None:
    source = frames(30, 44, 1)
    result = apply_chain(source, [lanczos_short(12)])
    image = Image.fromarray(source[0].permute(1, 2, 0).numpy().astype(np.uint8))
    expected = np.asarray(image.resize((17, 12), Image.Resampling.LANCZOS))
    assert result.shape == (1, 3, 12, 17), "17.6 is rounded down"
    assert np.array_equal(result[0].permute(1, 2, 0).numpy(), expected)


def test_sides_and_offsets_are_made_whole_as_in_the_sources() -> None:
    assert target_size(bilinear_short(224, antialias=False), 240, 320) == (224, 299), "VideoGPT rounds up"
    assert target_size(lanczos_short(256), 240, 320) == (256, 341), "torchvision rounds down"
    assert target_size(lanczos_short(256), 320, 240) == (341, 256)
    assert target_size(CROP_SQUARE, 240, 320) == (240, 240)
    columns = torch.arange(7.0).expand(1, 3, 4, 7)
    assert apply_chain(columns, [crop(4, "floor")])[0, 0, 0, 0] == 1, "1.5 is 1"
    assert apply_chain(columns, [crop(4, "round")])[0, 0, 0, 0] == 2, "1.5 is 2, as Python rounds"


def test_videogpts_chain_as_its_code_has_it() -> None:
    clip = frames(30, 41).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    video = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
    scale = 224 / 30
    video = F.interpolate(video, size=(224, math.ceil(41 * scale)), mode="bilinear", align_corners=False)
    left = (video.shape[-1] - 224) // 2
    expected = video[..., left : left + 224].permute(1, 0, 2, 3) - 0.5
    result = detector_input(clip, PROTOCOLS["videogpt"])[0]
    assert result.shape == (3, 2, 224, 224) and torch.allclose(result, expected, atol=1e-5)


def test_magvit_goes_through_64_pixels() -> None:
    clip = frames(128, 128).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    through = apply_chain(torch.from_numpy(clip).permute(0, 3, 1, 2).float(), [tf1_bilinear(64), tf1_bilinear(224)])
    assert torch.allclose(detector_input(clip, PROTOCOLS["magvit"])[0], through.transpose(0, 1) / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_brings_a_video_to_its_size_and_range(name: str) -> None:
    protocol = PROTOCOLS[name]
    video = np.zeros((2, 90, 120, 3), np.uint8)
    video[1] = 255
    clip = prepare(video, protocol, (32, 32))
    side = protocol.side or 32
    assert clip.shape == (2, side, side, 3) and clip.dtype == np.uint8
    assert prepare(clip, protocol, (32, 32)) is clip, "a finished clip is left as it is"
    seen = detector_input(clip, protocol)
    assert seen.shape == (1, 3, 2, 224, 224) and seen.dtype == torch.float32
    assert (seen[0, :, 0] - protocol.pixel_range[0]).abs().max() < 1e-6
    assert (seen[0, :, 1] - protocol.pixel_range[1]).abs().max() < 1e-6


def test_lanczos_and_bilinear_differ_visibly() -> None:
    source = frames(90, 90, 1)
    difference = apply_chain(source, [lanczos(64)]) - apply_chain(source, [bilinear(64, antialias=True)])
    assert difference.abs().mean() > 5
