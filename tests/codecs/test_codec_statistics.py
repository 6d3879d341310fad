import pytest
import torch

from magi_video.codecs.pixels import PixelCodec
from magi_video.codecs.statistics import ChannelStatistics, measure_statistics
from magi_video.errors import MagiError


def test_streaming_equals_all_at_once_even_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((7, 3, 4, 5, 6), generator=generator, dtype=torch.float64)
    latents = (
        latents * torch.tensor([0.01, 1.0, 5.0, 11.0])[:, None, None]
        + torch.tensor([1e4, -2.5, 0.0, 3.0])[:, None, None]
    )
    statistics = ChannelStatistics(4)
    for part in latents.split([1, 2, 4]):
        statistics.update(part)
    mean_C, std_C = statistics.result()
    values_CN = latents.movedim(2, 0).flatten(1)
    torch.testing.assert_close(mean_C, values_CN.mean(1), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(std_C, values_CN.std(1, correction=0), rtol=1e-9, atol=0)
    assert mean_C.dtype == std_C.dtype == torch.float64


def test_present_statistics_play_no_part():
    video = torch.rand((2, 2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    codec = PixelCodec()
    first = measure_statistics(codec, [video])
    codec.set_statistics(*first)
    second = measure_statistics(codec, [video])
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_useless_data_is_refused():
    codec = PixelCodec()
    with pytest.raises(MagiError, match="no frames"):
        measure_statistics(codec, [])
    video = torch.rand((1, 2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    video[:, :, 1] = 0.3
    with pytest.raises(MagiError, match=r"1 latent channel \(1\) without any variance"):
        measure_statistics(codec, [video])
    video[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(MagiError, match="not finite"):
        measure_statistics(codec, [video])
