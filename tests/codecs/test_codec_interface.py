"""What every codec must do, on the smallest of each kind."""

import copy
import itertools
import json

import pytest
import torch
from codec_examples import Causal4x, make_codec, make_video
from tests.arithmetic import assert_near, emulate

from magi_video.codecs.base import Codec
from magi_video.codecs.pixels import PixelCodec
from magi_video.codecs.quality import reconstruction_psnr
from magi_video.codecs.registry import codec_classes, load_codec
from magi_video.codecs.statistics import measure_statistics
from magi_video.errors import MagiError

KINDS = ["pixels", "kl", "tiny", "cosmos", "wan", "cogvideox", "ltx", "omnitokenizer", "vq", "fsq", "vq_model"]


@pytest.fixture(params=KINDS)
def codec(request):
    return make_codec(request.param)


def test_shapes_and_types(codec):
    video_BTCHW = make_video()
    latents_BTCHW = codec.encode(video_BTCHW)
    assert latents_BTCHW.shape == (2, codec.num_latent_frames(5), codec.latent_channels, *codec.latent_size(16, 24))
    assert latents_BTCHW.dtype == torch.float32 and not latents_BTCHW.requires_grad
    decoded_BTCHW = codec.decode(3 * latents_BTCHW)
    assert decoded_BTCHW.shape == (2, 5, 3, 16, 24)
    assert decoded_BTCHW.dtype == torch.float32 and decoded_BTCHW.abs().max() <= 1


def test_known_factors():
    assert [(c.latent_channels, c.spatial_factor) for c in map(make_codec, ("pixels", "kl", "tiny"))] == [
        (3, 1),
        (4, 4),
        (5, 4),
    ]


def test_encoding_is_deterministic(codec):
    assert torch.equal(codec.encode(make_video()), codec.encode(make_video()))


def test_measured_statistics_normalise(codec):
    videos = [0.3 * make_video(seed=seed, batch=1 + seed) + 0.2 for seed in range(3)]
    codec.set_statistics(*measure_statistics(codec, videos))
    latents_C = torch.cat([codec.encode(video).movedim(2, 0).flatten(1) for video in videos], dim=1)
    torch.testing.assert_close(latents_C.mean(1), torch.zeros(codec.latent_channels), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents_C.std(1, correction=0), torch.ones(codec.latent_channels), atol=1e-4, rtol=0)


def test_statistics_do_not_change_what_is_decoded(codec):
    video = make_video()
    before = codec.decode(codec.encode(video))
    codec.set_statistics([0.5] * codec.latent_channels, [0.1] * codec.latent_channels)
    torch.testing.assert_close(codec.decode(codec.encode(video)), before, atol=1e-4, rtol=0)


def test_saves_and_loads(codec, tmp_path):
    codec.set_statistics(*measure_statistics(codec, [make_video(seed=1)]))
    codec.save_pretrained(tmp_path / "codec")
    config = json.loads((tmp_path / "codec" / "config.json").read_text())
    assert config["_class_name"] in codec_classes() and len(config["latents_std"]) == codec.latent_channels
    loaded = load_codec(tmp_path / "codec")
    assert type(loaded) is type(codec) and not loaded.training
    assert loaded.fingerprint() == codec.fingerprint()
    latents = codec.encode(make_video())
    assert torch.equal(loaded.encode(make_video()), latents)
    assert torch.equal(loaded.decode(latents), codec.decode(latents))
    # A second round trip carries nothing of where the first one lay.
    loaded.save_pretrained(tmp_path / "again")
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text()
    assert load_codec(tmp_path / "again").fingerprint() == codec.fingerprint()


def test_fingerprint_sees_class_statistics_and_weights(codec):
    seen = {codec.fingerprint(), *(make_codec(kind).fingerprint() for kind in KINDS)}
    assert len(seen) == len(KINDS)
    codec.set_statistics([0.0] * codec.latent_channels, [0.9] * codec.latent_channels)
    assert codec.fingerprint() not in seen
    parameter = next(codec.parameters(), None)
    if parameter is not None:
        before = codec.fingerprint()
        with torch.no_grad():
            parameter[(0,) * parameter.ndim] += 1e-3
        assert codec.fingerprint() != before


def test_streaming_equals_decoding_at_once(codec):
    latents_BTCHW = codec.encode(make_video(frames=17))
    streamed = torch.cat(list(codec.decode_stream(iter(latents_BTCHW.unbind(1)))), dim=1)
    torch.testing.assert_close(streamed, codec.decode(latents_BTCHW), atol=1e-5, rtol=0)


def test_streaming_waits_for_nothing(codec):
    if not codec.streams:
        pytest.skip("this codec does not stream: its decoder looks ahead")
    stream = codec.decode_stream(codec.encode(make_video(frames=1))[:, 0] for _ in itertools.count())
    assert next(stream).shape[2:] == (3, 16, 24) and next(stream).shape[2:] == (3, 16, 24)


def test_precision_and_autocast(codec):
    video = make_video()
    latents = codec.encode(video)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(video), latents)
    codec.set_statistics([0.1] * codec.latent_channels, [0.7] * codec.latent_channels)
    latents = codec.encode(video)
    pixels = codec.decode(latents)
    codec.to(torch.bfloat16)
    emulated = copy.deepcopy(codec).to(torch.float32)
    latents_halved, pixels_halved = codec.encode(video), codec.decode(latents)
    assert latents_halved.dtype == pixels_halved.dtype == torch.float32
    assert_near(latents_halved, emulate(emulated.encode)(video), latents)
    assert_near(pixels_halved, emulate(emulated.decode)(latents), pixels)
    torch.testing.assert_close(
        codec._latents_std.flatten(), torch.full((codec.latent_channels,), 0.7), atol=1e-7, rtol=0
    )


def test_moves_with_its_statistics(codec):
    codec.to("meta")
    assert codec._latents_mean.device.type == "meta"


@pytest.mark.parametrize(
    "video",
    [
        torch.zeros(2, 3, 16, 16),
        torch.zeros(1, 2, 4, 16, 16),
        torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(1, 0, 3, 16, 16),
        torch.zeros(1, 1, 3, 16, 0),
    ],
)
def test_wrong_video_is_refused(codec, video):
    with pytest.raises(MagiError):
        codec.encode(video)


def test_wrong_sizes_are_refused(codec):
    with pytest.raises(MagiError, match="decodes latents"):
        codec.decode(torch.zeros(1, 2, codec.latent_channels + 1, 4, 4))
    with pytest.raises(MagiError):
        codec.latent_size(0, 16)
    if codec.spatial_factor > 1:
        with pytest.raises(MagiError, match="18x16"):
            codec.encode(torch.zeros(1, 1, 3, 18, 16))
    with pytest.raises(MagiError, match="one per channel"):
        codec.set_statistics([0.0], [1.0])
    for bad in (0.0, float("nan"), -1.0):
        with pytest.raises(MagiError, match="finite"):
            codec.set_statistics([0.0] * codec.latent_channels, [bad] * codec.latent_channels)


def test_time_compression_is_part_of_the_interface():
    codec = Causal4x()
    assert [codec.num_latent_frames(frames) for frames in (1, 5, 17)] == [1, 2, 5]
    assert [codec.num_pixel_frames(frames) for frames in (1, 2, 5)] == [1, 5, 17]
    assert codec.decode(codec.encode(make_video(frames=17))).shape[1] == 17
    with pytest.raises(MagiError, match="16 frames; expected 1 \\+ a multiple of 4"):
        codec.encode(make_video(frames=16))
    assert [codec.covering_latent_frames(frames) for frames in (1, 2, 5, 6, 17, 18)] == [1, 2, 2, 3, 5, 6]
    with pytest.raises(NotImplementedError):
        next(Codec.decode_stream(codec, iter([torch.zeros(1, 3, 4, 4)])))


def test_reconstruction_psnr():
    codec = PixelCodec()
    assert reconstruction_psnr(codec, [make_video()]) == 100.0
    # Noise of deviation 0.1 on a range of 2: 10·log10(4 / 0.01) = 26.02 dB (pictures kept from the clamp).
    assert reconstruction_psnr(codec, [0.5 * make_video()], noise=0.1) == pytest.approx(26.02, abs=0.1)
    with pytest.raises(MagiError, match="no frames"):
        reconstruction_psnr(codec, [])
