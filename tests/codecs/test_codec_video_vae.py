"""Causal video VAEs: the class's own results, piece by piece, first frames alone, and what a folder may hold."""

import json

import pytest
import torch
from codec_examples import COSMOS_CONFIG, LTX_CONFIG, VIDEO_VAES, make_codec, make_vae, make_video
from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from magi_video.codecs.registry import load_codec
from magi_video.codecs.video_vae import VideoVAECodec
from magi_video.errors import MagiError

STREAMING = ["cosmos", "cosmos-8x", "wan", "wan-2.2", "cogvideox"]


@pytest.fixture(params=list(VIDEO_VAES))
def kind(request):
    return request.param


def clip(codec, latent_frames, seed=0, batch=1):
    return make_video(batch, codec.num_pixel_frames(latent_frames), 16, 16, seed)


@torch.no_grad()
def test_it_codes_as_the_class_itself_does(kind):
    vae, codec = make_vae(kind), make_codec(kind)
    video_BTCHW = clip(codec, 5, batch=2)
    raw_BTCHW = vae.encode(video_BTCHW.transpose(1, 2)).latent_dist.mode().transpose(1, 2)
    torch.testing.assert_close(codec.encode_raw(video_BTCHW), raw_BTCHW, atol=1e-5, rtol=1e-5)
    decoded_BTCHW = vae.decode(raw_BTCHW.transpose(1, 2)).sample.transpose(1, 2).clamp(-1, 1)
    assert decoded_BTCHW.std() > 0.05
    torch.testing.assert_close(codec.decode(codec.encode(video_BTCHW)), decoded_BTCHW, atol=2e-5, rtol=0)


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 4, 6])
def test_any_number_of_latent_frames(kind, latent_frames):
    codec = make_codec(kind)
    latents_BTCHW = codec.encode(clip(codec, latent_frames))
    assert latents_BTCHW.shape[1] == latent_frames
    whole_BTCHW = codec.decode(latents_BTCHW)
    parts = list(codec.decode_stream(iter(latents_BTCHW.unbind(1))))
    assert whole_BTCHW.shape[1] == codec.num_pixel_frames(latent_frames)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole_BTCHW, atol=1e-6, rtol=0)


def test_pieces_come_as_soon_as_their_latent_frames():
    pieces = {}
    for kind in VIDEO_VAES:
        codec, asked = make_codec(kind), []
        latents_BTCHW = codec.encode(clip(codec, 5))

        def arriving(latents_BTCHW=latents_BTCHW, asked=asked):
            for number, latents_BCHW in enumerate(latents_BTCHW.unbind(1)):
                asked.append(number)
                yield latents_BCHW

        pieces[kind] = [(len(asked), part.shape[1]) for part in codec.decode_stream(arriving())]
    each = [(1, 1), (2, 4), (3, 4), (4, 4), (5, 4)]
    assert pieces == {
        "cosmos": each,
        "cosmos-8x": [(1, 1), (2, 8), (3, 8), (4, 8), (5, 8)],
        "wan": each,
        "wan-2.2": each,
        "cogvideox": [(3, 9), (5, 8)],
        "ltx": [(5, 17)],
    }


def test_two_streams_do_not_meet(kind):
    codec = make_codec(kind)
    latents = [codec.encode(clip(codec, 3, seed)) for seed in (0, 1)]
    streams = [codec.decode_stream(iter(each.unbind(1))) for each in latents]
    mixed = list(zip(*streams, strict=True))
    for number, each in enumerate(latents):
        joined = torch.cat([pair[number] for pair in mixed], dim=1)
        torch.testing.assert_close(joined, codec.decode(each), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["cosmos", "cosmos-8x", "wan", "wan-2.2", "ltx"])
def test_latents_do_not_depend_on_later_frames(kind):
    codec = make_codec(kind)
    video_BTCHW = clip(codec, 4)
    latents_BTCHW = codec.encode(video_BTCHW)
    for known in (1, 2, 3):
        frames = codec.num_pixel_frames(known)
        alone = codec.encode(video_BTCHW[:, :frames])
        torch.testing.assert_close(alone, latents_BTCHW[:, :known], atol=1e-5, rtol=1e-4)
        changed = torch.cat([video_BTCHW[:, :frames], -video_BTCHW[:, frames:]], dim=1)
        assert (codec.encode(changed)[:, known] - latents_BTCHW[:, known]).abs().max() > 1e-4


@pytest.mark.parametrize(("kind", "expected"), [("cosmos", 5), ("cosmos-8x", 3), ("wan", 5)])
def test_seventeen_frames(kind, expected):
    codec = make_codec(kind)
    assert codec.encode(make_video(1, 17, 16, 16)).shape[1] == expected
    with pytest.raises(MagiError, match=f"16 frames; expected 1 \\+ a multiple of {codec.temporal_factor}"):
        codec.encode(make_video(1, 16, 16, 16))


def test_statistics_that_the_classes_claim():
    def claimed(codec):
        return codec.config["latents_mean"], codec.config["latents_std"]

    assert claimed(make_codec("wan")) == ([0.1, 0.2, 0.3, 0.4], [2.0] * 4)
    assert claimed(make_codec("cogvideox")) == ([0.0] * 4, pytest.approx([1 / 1.15258426] * 4))
    # Cosmos has a mean and a deviation for every channel and latent frame: two of each channel here.
    mean, std = [0.0, 2.0, 1.0, 1.0, 0.0, 0.0, 5.0, 5.0], [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1.0, 7.0]
    cosmos = AutoencoderKLCosmos(**COSMOS_CONFIG, latents_mean=mean, latents_std=std)
    assert claimed(VideoVAECodec.from_module(cosmos)) == ([1, 1, 0, 5], pytest.approx([2**0.5, 2, 3, 5]))
    ltx = AutoencoderKLLTXVideo(**LTX_CONFIG, scaling_factor=0.5)
    ltx.latents_mean.copy_(torch.arange(4.0))
    ltx.latents_std.fill_(3)
    assert claimed(VideoVAECodec.from_module(ltx)) == ([0, 1, 2, 3], [6] * 4)


def test_folders(tmp_path, kind):
    make_vae(kind).half().save_pretrained(tmp_path / "vae")
    codec = VideoVAECodec.from_vae(str(tmp_path), "vae")
    assert codec.dtype == torch.float32
    codec.save_pretrained(tmp_path / "codec")
    loaded = load_codec(tmp_path / "codec")
    video = clip(codec, 2)
    assert torch.equal(loaded.encode(video), codec.encode(video)) and loaded.streams == codec.streams
    with pytest.raises(MagiError, match="one of AutoencoderKLCosmos"):
        config = json.loads((tmp_path / "vae" / "config.json").read_text())
        (tmp_path / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "VQModel"}))
        VideoVAECodec.from_vae(str(tmp_path / "vae"))


@pytest.mark.parametrize(
    ("vae_class", "config", "message"),
    [
        ("AutoencoderKL", {}, "unknown VAE class"),
        ("AutoencoderKLWan", {"colour": 1}, "not a config"),
        (
            "AutoencoderKLWan",
            {"base_dim": 4, "dim_mult": [1, 1], "temperal_downsample": [True]},
            "four frames at a time",
        ),
        ("AutoencoderKLWan", {"base_dim": 4, "in_channels": 12}, r"12 and gives 3 channels; expected 3 \(RGB\)"),
        ("AutoencoderKLLTXVideo", LTX_CONFIG | {"decoder_inject_noise": (True,) * 4}, "draws noise"),
    ],
)
def test_configs_that_are_refused(vae_class, config, message):
    with pytest.raises(MagiError, match=message):
        VideoVAECodec(vae_class, config)


def test_a_config_that_promises_more_than_its_levels_do():
    three_levels = {"encoder_block_out_channels": (8, 8, 8), "decode_block_out_channels": (8, 8, 8)}
    codec = VideoVAECodec("AutoencoderKLCosmos", COSMOS_CONFIG | three_levels).eval()
    with pytest.raises(MagiError, match="its config promises"):
        codec.decode(codec.encode(make_video(1, 5, 16, 16)))


@pytest.mark.parametrize("kind", ["cosmos", "wan", "cogvideox", "ltx"])
def test_tiles(kind):
    codec = make_codec(kind)
    smooth = torch.nn.functional.interpolate(make_video(1, 5, 4, 6)[0], size=(32, 48), mode="bilinear")[None]
    latents, pixels = codec.encode(smooth), codec.decode(codec.encode(smooth))
    codec.tile = 48
    assert torch.equal(codec.encode(smooth), latents), "one tile holds it all"
    codec.tile = 32
    tiled = codec.decode(latents)
    assert tiled.shape == pixels.shape and not torch.equal(tiled, pixels)
    assert (tiled - pixels).abs().mean() < 0.5 * pixels.std(), "unrelated pictures: 1.1"
    assert (codec.encode(smooth) - latents).abs().mean() < 0.5 * latents.std()
    streamed = torch.cat(list(codec.decode_stream(iter(latents.unbind(1)))), dim=1)
    torch.testing.assert_close(streamed, tiled, atol=1e-6, rtol=0)


def test_a_wan_stream_holds_no_more_as_it_goes_on():
    codec, held, memory = make_codec("wan"), [], {}
    latents_BTCHW = codec.encode(clip(codec, 1))
    for _ in range(5):
        codec.decode_piece(latents_BTCHW, memory)
        held.append(sum(x.numel() for x in memory[0]["convolutions"] if isinstance(x, torch.Tensor)))
    assert held[2] == held[4] > 0


def test_the_class_is_not_left_with_a_memory():
    codec = make_codec("wan")
    assert isinstance(codec.vae, AutoencoderKLWan)
    latents_BTCHW = codec.encode(clip(codec, 3))
    first = codec.decode(latents_BTCHW)
    next(codec.decode_stream(iter(latents_BTCHW.unbind(1))))
    assert torch.equal(codec.decode(latents_BTCHW), first)
