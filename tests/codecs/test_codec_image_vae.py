"""Loading VAEs made by others: scaling, precision, and everything that can be wrong with a folder."""

import copy
import json

import pytest
import torch
from codec_examples import KL_CONFIG, TINY_CONFIG, make_codec, make_video
from diffusers.models import modeling_utils
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel
from safetensors.torch import load_file, save_file
from tests.arithmetic import assert_near, emulate

from magi_video.codecs import image_vae
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.registry import load_codec
from magi_video.errors import MagiError
from magi_video.files.weights import SHIPPED

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def kl_folder(tmp_path):
    AutoencoderKL(**KL_CONFIG).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def statistics(codec):
    return codec.config["latents_mean"], codec.config["latents_std"]


def test_default_statistics_come_from_the_vae(kl_folder):
    codec = ImageVAECodec.from_vae(str(kl_folder))
    assert statistics(codec) == ([0.0] * 4, pytest.approx([1 / 0.18215] * 4))
    video = make_video()
    with torch.no_grad():
        raw = AutoencoderKL.from_pretrained(kl_folder).encode(video.flatten(0, 1)).latent_dist.mode()
    torch.testing.assert_close(codec.encode(video).flatten(0, 1), raw * 0.18215, atol=1e-5, rtol=1e-5)

    shifted = AutoencoderKL(**KL_CONFIG, scaling_factor=0.5, shift_factor=0.25)
    assert statistics(ImageVAECodec.from_module(shifted)) == ([0.25] * 4, [2.0] * 4)
    own = AutoencoderKL(**KL_CONFIG, scaling_factor=0.5, latents_mean=[1, 2, 3, 4], latents_std=[5, 6, 7, 8])
    assert statistics(ImageVAECodec.from_module(own)) == ([1, 2, 3, 4], [10, 12, 14, 16])
    assert statistics(ImageVAECodec.from_module(AutoencoderTiny(**TINY_CONFIG))) == ([0.0] * 5, [1.0] * 5)


def test_tiny_codes_with_raw_latents():
    codec = make_codec("tiny")
    video = make_video()
    with torch.no_grad():
        latents = codec.vae.encode(video.flatten(0, 1))
        decoded = codec.vae.decode(latents)
    torch.testing.assert_close(codec.encode(video).flatten(0, 1), latents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(codec.decode(latents[None])[0], decoded.clamp(-1, 1), atol=1e-5, rtol=1e-4)


def test_part_of_a_pipeline(tmp_path):
    AutoencoderTiny(**TINY_CONFIG).save_pretrained(tmp_path / "vae")
    assert ImageVAECodec.from_vae(str(tmp_path), subfolder="vae").latent_channels == 5
    with pytest.raises(MagiError, match=r"config\.json"):
        ImageVAECodec.from_vae(str(tmp_path))


def test_half_precision_weights_load_in_float32(tmp_path):
    vae = AutoencoderKL(**KL_CONFIG).half()
    vae.save_pretrained(tmp_path / "plain")
    vae.save_pretrained(tmp_path / "variant", variant="fp16")
    plain = ImageVAECodec.from_vae(str(tmp_path / "plain"))
    variant = ImageVAECodec.from_vae(str(tmp_path / "variant"), variant="fp16")
    assert plain.dtype == torch.float32
    assert torch.equal(plain.encode(make_video()), variant.encode(make_video()))


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_sub_batches_change_nothing(kind):
    codec = make_codec(kind)
    video = make_video(frames=5)
    latents = codec.encode(video)
    decoded = codec.decode(latents)
    codec.max_pixels_at_once = 3 * 16 * 24
    torch.testing.assert_close(codec.encode(video), latents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(codec.decode(latents), decoded, atol=1e-5, rtol=0)
    codec.max_pixels_at_once = 1
    assert codec.encode(video).shape == latents.shape


def test_a_cpu_pass_is_small(monkeypatch):
    codec = make_codec("tiny")
    passes = []
    monkeypatch.setattr(codec.vae, "decode", lambda part, real=codec.vae.decode: passes.append(len(part)) or real(part))
    latents = torch.randn((1, 40, 5, 16, 16), generator=torch.Generator().manual_seed(0))
    codec.decode(latents)
    assert passes == [16, 16, 8], "16 frames of 64 by 64"
    monkeypatch.setattr(image_vae, "PIXELS_ON_CPU", 64 * 64)
    codec.decode(latents[:, :2])
    assert passes[3:] == [1, 1]


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_the_fast_layout_changes_no_pixel(kind, tmp_path):
    make_codec(kind).save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    weights = [parameter for parameter in codec.vae.parameters() if parameter.ndim == 4]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    plain = {"kl": AutoencoderKL, "tiny": AutoencoderTiny}[kind](**codec.config["vae_config"])
    plain.load_state_dict({name: tensor.contiguous() for name, tensor in codec.vae.state_dict().items()})
    frames = make_video(batch=1, frames=3)
    with torch.no_grad():
        encoded = plain.encode(frames[0])
        raw = encoded.latents if kind == "tiny" else encoded.latent_dist.mode()
        decoded = plain.decode(raw).sample.clamp(-1, 1)
    torch.testing.assert_close(codec.encode_raw(frames)[0], raw, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codec.decode(codec.encode(frames))[0], decoded, atol=1e-5, rtol=0)


def test_the_shipped_codec_in_half_precision(monkeypatch):
    exact, half = (load_codec(SHIPPED / "doom" / "codec") for _ in range(2))
    warnings = []
    monkeypatch.setattr(modeling_utils.logger, "warning", warnings.append)
    half.to(torch.bfloat16)
    assert not warnings and {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    latents = torch.randn((1, 4, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    pixels = exact.decode(latents)
    emulated = copy.deepcopy(half).to(torch.float32)
    assert_near(half.decode(latents), emulate(emulated.decode)(latents), pixels)
    assert_near(half.encode(pixels), emulate(emulated.encode)(pixels), exact.encode(pixels))
    assert next(half.decode_stream(iter(latents.unbind(1)))).dtype == torch.float32


def test_building_leaves_the_global_generator_alone():
    vae = AutoencoderTiny(**TINY_CONFIG)
    state = torch.get_rng_state()
    ImageVAECodec.from_module(vae)
    assert torch.equal(torch.get_rng_state(), state)


def test_missing_and_wrong_folders(tmp_path, kl_folder):
    for name in (str(tmp_path / "nowhere"), "./nowhere", "nowhere", "a/b/c"):
        with pytest.raises(MagiError, match="no folder"):
            ImageVAECodec.from_vae(name)
    VQModel(block_out_channels=(8,), norm_num_groups=4, num_vq_embeddings=4).save_pretrained(tmp_path / "vq")
    with pytest.raises(MagiError, match="VQModel; expected one of AutoencoderKL"):
        ImageVAECodec.from_vae(str(tmp_path / "vq"))
    with pytest.raises(MagiError, match="AutoencoderKL; expected a codec"):
        load_codec(kl_folder)
    with pytest.raises(MagiError, match=r"config\.json: no such file"):
        load_codec(tmp_path)
    (kl_folder / WEIGHTS).unlink()
    with pytest.raises(MagiError, match="cannot load AutoencoderKL"):
        ImageVAECodec.from_vae(str(kl_folder))


def test_pickled_weights_are_not_read(kl_folder):
    AutoencoderKL(**KL_CONFIG).save_pretrained(kl_folder, safe_serialization=False)
    (kl_folder / WEIGHTS).unlink()
    with pytest.raises(MagiError):
        ImageVAECodec.from_vae(str(kl_folder))


@pytest.mark.parametrize("keep", [0, 4, 100, -50])
def test_truncated_weights(kl_folder, keep, tmp_path):
    codec = make_codec("tiny")
    codec.save_pretrained(tmp_path / "codec")
    for folder, load in ((kl_folder, ImageVAECodec.from_vae), (tmp_path / "codec", load_codec)):
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[:keep])
        with pytest.raises(MagiError) as caught:
            load(str(folder))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"vae_class": "Evil"},
        {"vae_class": "AutoencoderKL"},
        {"vae_config": {}},
        {"vae_config": {"nonsense": 1}},
        {"vae_config": None},
        {"vae_config": {**TINY_CONFIG, "latent_channels": 6}},
        {"vae_config": {**TINY_CONFIG, "in_channels": 1}},
        {"vae_config": {**TINY_CONFIG, "num_decoder_blocks": (1, 1)}},
        {"latents_mean": [0.0]},
        {"latents_std": ["a"] * 5},
        {"latents_std": [0.0] * 5},
    ],
)
def test_wrong_configs(tmp_path, changes):
    make_codec("tiny").save_pretrained(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(MagiError):
        load_codec(tmp_path)


def test_missing_weights_are_refused_not_invented(tmp_path):
    make_codec("tiny").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(MagiError, match="missing"):
        load_codec(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"_class_name": 3}', '{"_class_name": "os.system"}', "\xff"])
def test_damaged_config_files(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(MagiError):
        load_codec(tmp_path)
    with pytest.raises(MagiError):
        ImageVAECodec.from_vae(str(tmp_path))


def test_a_decoder_that_does_not_undo_its_encoder():
    with pytest.raises(MagiError, match="levels differ"):
        ImageVAECodec(
            "AutoencoderTiny", {**TINY_CONFIG, "decoder_block_out_channels": (8, 8), "num_decoder_blocks": (1, 0)}
        )
