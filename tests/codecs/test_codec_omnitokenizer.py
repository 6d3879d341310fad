"""OmniTokenizer: causality, streaming, and published checkpoints, against a second reading of the published network.

`Published` computes what the network's authors describe, straight from a state dict under their names, step by step and
without regard to speed.
"""

import argparse
import copy
import json
import math
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from codec_examples import OMNITOKENIZER_CONFIG, make_omnitokenizer, make_video
from tests.arithmetic import assert_near, emulate

from magi_video.cli import main
from magi_video.codecs.omnitokenizer import OmniTokenizerCodec
from magi_video.codecs.omnitokenizer_checkpoint import convert_omnitokenizer
from magi_video.codecs.registry import load_codec
from magi_video.errors import MagiError

WIDTH, HEADS, HEAD_DIM, WINDOW, PATCH, FRAMES, CHANNELS = (
    OMNITOKENIZER_CONFIG[name]
    for name in ("width", "heads", "head_dim", "window", "patch_size", "temporal_patch_size", "latent_channels")
)
INNER = 85  # of the MLPs: two thirds of four times the width


def published_state():
    """Random tensors under the published names, those of training and those without use included."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def add(name, *shape, scale=0.2, shift=0.0):
        state[name] = shift + scale * torch.randn(shape, generator=generator)

    def add_norm(name, learned_shift=False):
        add(f"{name}.{'weight' if learned_shift else 'gamma'}", WIDTH, shift=1.0)
        if learned_shift:
            add(f"{name}.bias", WIDTH)
        else:
            state[f"{name}.beta"] = torch.zeros(WIDTH)

    def add_transformer(name, blocks, over_time):
        for number, kind in enumerate(blocks):
            layer = f"{name}.layers.{number}"
            add_norm(f"{layer}.1.norm")
            if kind == "w":
                add(f"{layer}.1.relative_position_bias_table", (2 * WINDOW - 1) ** 2, HEADS)
                state[f"{layer}.1.relative_position_index"] = torch.zeros(WINDOW**2, WINDOW**2, dtype=torch.long)
                add(f"{layer}.1.qkv.weight", 3 * WIDTH, WIDTH)
                add(f"{layer}.1.proj.weight", WIDTH, WIDTH)
                add(f"{layer}.1.proj.bias", WIDTH)
            else:
                add(f"{layer}.0.dsconv.weight", WIDTH, 1, 3, 3, 3)
                add(f"{layer}.0.dsconv.bias", WIDTH)
                add_norm(f"{layer}.1.context_norm")
                add(f"{layer}.1.to_q.weight", HEADS * HEAD_DIM, WIDTH)
                add(f"{layer}.1.to_kv.weight", 2 * HEADS * HEAD_DIM, WIDTH)
                add(f"{layer}.1.to_out.weight", WIDTH, HEADS * HEAD_DIM)
                add(f"{layer}.1.q_scale", HEAD_DIM, shift=1.0)
                add(f"{layer}.1.k_scale", HEAD_DIM, shift=1.0)
                if over_time:
                    add(f"{layer}.1.spatial_rel_pos_bias.net.0.0.weight", WIDTH, 2)
            add_norm(f"{layer}.3.0", learned_shift=True)
            add(f"{layer}.3.1.weight", 2 * INNER, WIDTH)
            add(f"{layer}.3.4.weight", WIDTH, INNER)
        add_norm(f"{name}.norm_out")

    for part, frames in (("to_patch_emb_first_frame", 1), ("to_patch_emb", FRAMES)):
        numbers = 3 * PATCH**2 * frames
        add(f"encoder.{part}.1.weight", numbers, shift=1.0)
        add(f"encoder.{part}.1.bias", numbers)
        add(f"encoder.{part}.2.weight", WIDTH, numbers)
        add(f"encoder.{part}.2.bias", WIDTH)
        add_norm(f"encoder.{part}.3", learned_shift=True)
    add_transformer("encoder.enc_spatial_transformer", "tw", over_time=False)
    add_transformer("encoder.enc_temporal_transformer", "tt", over_time=True)
    add_transformer("decoder.dec_spatial_transformer", "tt", over_time=False)
    add_transformer("decoder.dec_temporal_transformer", "tt", over_time=True)
    for part, frames in (("to_pixels_first_frame", 1), ("to_pixels", FRAMES)):
        add(f"decoder.{part}.0.weight", 3 * PATCH**2 * frames, WIDTH)
        add(f"decoder.{part}.0.bias", 3 * PATCH**2 * frames)
    add("pre_vq_conv.1.weight", 2 * CHANNELS, WIDTH)
    add("pre_vq_conv.1.bias", 2 * CHANNELS)
    add("post_vq_conv.1.weight", WIDTH, CHANNELS)
    add("post_vq_conv.1.bias", WIDTH)
    add("codebook.embeddings", 5, CHANNELS)
    add("image_discriminator.model0.0.weight", 4, 3, 4, 4)
    add("video_discriminator.model0.0.weight", 4, 3, 4, 4, 4)
    add("perceptual_model.lin0.model.1.weight", 1, 8, 1, 1)
    return state


class Published:
    """The published network, one square video at a time: [3, T, H, W] in [-0.5, 0.5] to moments, latents to video."""

    def __init__(self, state):
        self.state = state

    def linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, x, name):
        weight = self.state.get(f"{name}.gamma", self.state.get(f"{name}.weight"))
        return F.layer_norm(x, x.shape[-1:], weight, self.state.get(f"{name}.bias"))

    def encode(self, video):
        side = video.shape[2] // PATCH
        tokens = [[[None] * side for _ in range(side)] for _ in range(1 + (video.shape[1] - 1) // FRAMES)]
        for t in range(len(tokens)):
            frames = slice(0, 1) if t == 0 else slice(1 + (t - 1) * FRAMES, 1 + t * FRAMES)
            name = f"encoder.to_patch_emb{'_first_frame' if t == 0 else ''}"
            for i in range(side):
                for j in range(side):
                    patch = video[:, frames, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH].flatten()
                    patch = self.linear(self.norm(patch, f"{name}.1"), f"{name}.2")
                    tokens[t][i][j] = self.norm(patch, f"{name}.3")
        x = torch.stack([torch.stack([torch.stack(row) for row in frame]) for frame in tokens])
        x = self.transform(x.flatten(1, 2), x.shape[:3], "encoder.enc_spatial_transformer", "tw", over_time=False)
        x = self.transform(x.transpose(0, 1), (len(tokens), side, side), "encoder.enc_temporal_transformer", "tt", True)
        return self.linear(x.transpose(0, 1).unflatten(1, (side, side)), "pre_vq_conv.1")

    def decode(self, latents):
        frames, side = latents.shape[:2]
        x = self.linear(latents, "post_vq_conv.1").flatten(1, 2).transpose(0, 1)
        x = self.transform(x, (frames, side, side), "decoder.dec_temporal_transformer", "tt", True)
        x = self.transform(x.transpose(0, 1), (frames, side, side), "decoder.dec_spatial_transformer", "tt", False)
        video = torch.zeros(3, 1 + (frames - 1) * FRAMES, side * PATCH, side * PATCH)
        for t in range(frames):
            count = 1 if t == 0 else FRAMES
            pixels = self.linear(x[t], f"decoder.to_pixels{'_first_frame' if t == 0 else ''}.0")
            first = 0 if t == 0 else 1 + (t - 1) * FRAMES
            for place, patch in enumerate(pixels):
                i, j = place // side * PATCH, place % side * PATCH
                video[:, first : first + count, i : i + PATCH, j : j + PATCH] = patch.view(3, count, PATCH, PATCH)
        return video

    def transform(self, x, shape, name, blocks, over_time):
        """Tokens [frame, place, D], or [place, frame, D] over time: there the convolution misreads their order."""
        for number, kind in enumerate(blocks):
            layer = f"{name}.layers.{number}"
            if kind == "t":
                grid = F.pad(x.reshape(*shape, WIDTH).movedim(-1, 0)[None], (1, 1, 1, 1, 2, 0))
                conv = F.conv3d(
                    grid, self.state[f"{layer}.0.dsconv.weight"], self.state[f"{layer}.0.dsconv.bias"], groups=WIDTH
                )
                x = x + conv[0].movedim(0, -1).reshape(x.shape)
                x = x + torch.stack([self.attend(one, f"{layer}.1", shape[2], over_time) for one in x])
            else:
                x = x + torch.stack([self.attend_in_windows(one, f"{layer}.1", shape[2]) for one in x])
            value, gate = self.linear(self.norm(x, f"{layer}.3.0"), f"{layer}.3.1").chunk(2, dim=-1)
            x = x + self.linear(F.gelu(gate) * value, f"{layer}.3.4")
        return self.norm(x, f"{name}.norm_out")

    def attend(self, x, name, side, over_time):
        queries = self.linear(self.norm(x, f"{name}.norm"), f"{name}.to_q")
        keys, values = self.linear(x, f"{name}.to_kv").chunk(2, dim=-1)
        heads = []
        for head in range(HEADS):
            q, k, v = (one[:, head * HEAD_DIM : (head + 1) * HEAD_DIM] for one in (queries, keys, values))
            if not over_time:
                q, k = self.rotate(q, side), self.rotate(k, side)
            q = F.normalize(q, dim=-1) * self.state[f"{name}.q_scale"]
            k = F.normalize(k, dim=-1) * self.state[f"{name}.k_scale"]
            scores = 8 * q @ k.T
            if over_time:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(dim=-1) @ v)
        return self.linear(torch.cat(heads, dim=-1), f"{name}.to_out")

    @staticmethod
    def rotate(x, side):
        turned = x.clone()
        for place in range(len(x)):
            for pair in range(HEAD_DIM // 2):
                position = place // side if pair % 2 else place % side
                angle = position / 10_000 ** (4 * (pair // 2) / HEAD_DIM)
                a, b = x[place, 2 * pair], x[place, 2 * pair + 1]
                turned[place, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                turned[place, 2 * pair + 1] = a * math.sin(angle) + b * math.cos(angle)
        return turned

    def attend_in_windows(self, x, name, side):
        table, out, dim = self.state[f"{name}.relative_position_bias_table"], torch.zeros_like(x), WIDTH // HEADS
        qkv = F.linear(self.norm(x, f"{name}.norm"), self.state[f"{name}.qkv.weight"])
        for top in range(0, side, WINDOW):
            for left in range(0, side, WINDOW):
                places = [(i, j) for i in range(top, top + WINDOW) for j in range(left, left + WINDOW)]
                rows = [i * side + j for i, j in places]
                for head in range(HEADS):
                    q, k, v = (qkv[rows, part * WIDTH + head * dim :][:, :dim] for part in range(3))
                    bias = [
                        [table[(i - m + WINDOW - 1) * (2 * WINDOW - 1) + j - n + WINDOW - 1, head] for m, n in places]
                        for i, j in places
                    ]
                    scores = q @ k.T / math.sqrt(dim) + torch.tensor(bias)
                    out[rows, head * dim : (head + 1) * dim] = scores.softmax(dim=-1) @ v
        return self.linear(out, f"{name}.proj")


SETTINGS = {
    "patch_embed": "linear", "spatial_pos": "rope", "casual_in_temporal_transformer": True, "casual_in_peg": True,
    "use_vae": True,
}  # fmt: skip


class SomeCallback:
    """Stands for a class that nobody has who converts."""


def write_checkpoint(folder: Path, state, settings=None) -> Path:
    path = folder / "imagenet_k600_vae.ckpt"
    content = {
        "epoch": 3,
        "state_dict": state,
        "hyper_parameters": {"args": argparse.Namespace(**SETTINGS | (settings or {}))},
        "callbacks": {SomeCallback: {"best": SomeCallback()}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
    }
    torch.save(content, path)
    return path


@pytest.fixture(params=["causal", "published"])
def codec(request):
    return make_omnitokenizer(time_layout=request.param)


def test_a_published_checkpoint_gives_what_the_published_network_does(tmp_path):
    state = published_state()
    codec = convert_omnitokenizer(write_checkpoint(tmp_path, state), tmp_path / "codec")
    assert codec.config["time_layout"] == "published" and not codec.streams
    assert dict(codec.config).items() >= (OMNITOKENIZER_CONFIG | {"mlp_ratio": 4.0}).items()
    video_BTCHW = make_video(2, 9, 16, 16)
    for video_TCHW, latents_TCHW in zip(video_BTCHW, codec.encode_raw(video_BTCHW), strict=True):
        moments = Published(state).encode(video_TCHW.transpose(0, 1) / 2)
        torch.testing.assert_close(latents_TCHW, moments[..., :CHANNELS].movedim(-1, 1), atol=1e-4, rtol=1e-3)
        decoded = Published(state).decode(latents_TCHW.movedim(1, -1)).transpose(0, 1) * 2
        torch.testing.assert_close(codec.decode_raw(latents_TCHW[None])[0], decoded, atol=1e-4, rtol=1e-3)
        assert decoded.std() > 0.2


def test_the_published_network_lets_a_frame_depend_on_later_ones():
    codec, video_BTCHW = make_omnitokenizer(time_layout="published"), make_video(1, 17, 16, 16)
    assert (codec.encode(video_BTCHW)[:, :2] - codec.encode(video_BTCHW[:, :5])).abs().max() > 0.1


def test_causal_latents_do_not_depend_on_later_frames():
    codec, video_BTCHW = make_omnitokenizer(), make_video(2, 17, 16, 24)
    latents_BTCHW = codec.encode(video_BTCHW)
    assert latents_BTCHW.shape == (2, 5, 3, 4, 6)
    for known in (1, 2, 4):
        alone = codec.encode(video_BTCHW[:, : codec.num_pixel_frames(known)])
        torch.testing.assert_close(alone, latents_BTCHW[:, :known], atol=1e-5, rtol=1e-4)
    changed = torch.cat([-video_BTCHW[:, :5], video_BTCHW[:, 5:]], dim=1)
    assert (codec.encode(changed)[:, 2:] - latents_BTCHW[:, 2:]).abs().max() > 0.1, "but on earlier ones"


def test_streaming_equals_decoding_at_once(codec):
    latents_BTCHW = codec.encode(make_video(2, 17, 16, 16))
    parts = list(codec.decode_stream(iter(latents_BTCHW.unbind(1))))
    assert [part.shape[1] for part in parts] == ([1, 4, 4, 4, 4] if codec.streams else [17])
    torch.testing.assert_close(torch.cat(parts, dim=1), codec.decode(latents_BTCHW), atol=1e-5, rtol=0)
    assert torch.cat(parts, dim=1).std() > 0.2
    if codec.streams:
        fewer = codec.decode(latents_BTCHW[:, :3])
        torch.testing.assert_close(torch.cat(parts[:3], dim=1), fewer, atol=1e-5, rtol=0)


def test_saves_loads_and_halves(codec, tmp_path):
    codec.set_statistics([0.1] * 3, [0.5] * 3)
    codec.save_pretrained(tmp_path)
    loaded, video = load_codec(tmp_path), make_video(1, 5, 16, 16)
    assert loaded.fingerprint() == codec.fingerprint() and loaded.streams == codec.streams
    latents = codec.encode(video)
    assert torch.equal(loaded.encode(video), latents)
    halved = loaded.to(torch.bfloat16).encode(video)
    emulated = copy.deepcopy(loaded).to(torch.float32)
    assert halved.dtype == torch.float32
    assert_near(halved, emulate(emulated.encode)(video), latents)
    assert_near(loaded.decode(latents), emulate(emulated.decode)(latents), codec.decode(latents))


def test_clips_at_once_make_no_difference(codec):
    video = make_video(3, 5, 16, 16)
    latents = codec.encode(video)
    codec.max_pixels_at_once = 2 * 5 * 16 * 16
    assert codec.clips_at_once(video) == 2
    torch.testing.assert_close(codec.encode(video), latents, atol=1e-5, rtol=1e-5)


def test_wrong_sizes():
    with pytest.raises(MagiError, match="sides that 8 divides"):
        make_omnitokenizer().encode(make_video(1, 5, 12, 16))
    assert make_omnitokenizer(encoder_blocks="t").encode(make_video(1, 5, 12, 16)).shape == (1, 2, 3, 3, 4)
    for wrong in ({"time_layout": "random"}, {"encoder_blocks": "tx"}, {"heads": 5}, {"patch_size": 0}):
        with pytest.raises(MagiError, match="OmniTokenizer"):
            OmniTokenizerCodec(**OMNITOKENIZER_CONFIG | wrong)


def test_the_published_size():
    with torch.device("meta"):
        modules = OmniTokenizerCodec().named_parameters()
        assert sum(parameter.numel() for _, parameter in modules) == 51_559_008


def test_the_command_converts(tmp_path, capsys):
    path = write_checkpoint(tmp_path, published_state())
    assert main(["weights", "convert-omnitokenizer", str(path), "--out", str(tmp_path / "codec"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["latent_channels"] == CHANNELS
    assert load_codec(tmp_path / "codec").temporal_factor == 4
    assert {file.suffix for file in (tmp_path / "codec").iterdir()} == {".json", ".safetensors"}
    assert main(["weights", "convert-omnitokenizer", str(path)]) == 1
    assert "--out FOLDER" in capsys.readouterr().err


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


MIXING, NORM = "encoder.enc_spatial_transformer.layers.0.0.dsconv.bias", "decoder.dec_spatial_transformer.norm_out"


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda s: without(s, MIXING), {}, r"lacks 1 tensors .* first encoder\.spatial\.layers\.0\.mixing"),
        (lambda s: s | {"encoder.extra.weight": torch.zeros(2)}, {}, r"also holds 1 .* first encoder\.extra\.weight"),
        (lambda s: s | {MIXING: torch.zeros(5)}, {}, "has another shape of 1"),
        (lambda s: s | {f"{NORM}.beta": torch.ones(WIDTH)}, {}, "a norm with a shift"),
        (lambda s: s | {"pre_vq_conv.1.weight": torch.zeros(CHANNELS, WIDTH)}, {}, "a VQ tokenizer"),
        (lambda s: without(s, "decoder.to_pixels.0.weight"), {}, "not an OmniTokenizer VAE"),
        (lambda s: s, {"casual_in_peg": False}, "casual_in_peg False; expected True"),
        (lambda s: s, {"spatial_pos": "rel"}, "spatial_pos 'rel'"),
        (lambda s: {"a": 1}, {}, "no state_dict of tensors"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(tmp_path, change, settings, message):
    path = write_checkpoint(tmp_path, change(published_state()), settings)
    with pytest.raises(MagiError, match=message) as error:
        convert_omnitokenizer(path, tmp_path / "codec")
    assert "\n" not in str(error.value) and not (tmp_path / "codec").exists()


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_of_a_checkpoint_is_run(tmp_path):
    """What a pickle asks to be called is not; the tensors are read all the same."""
    state = published_state()
    torch.save({"state_dict": state, "callbacks": Harmful(tmp_path / "touched")}, tmp_path / "harmful.ckpt")
    convert_omnitokenizer(tmp_path / "harmful.ckpt", tmp_path / "codec")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("keep", [0, 100, 5000, -100])
def test_damaged_files(tmp_path, keep):
    path = write_checkpoint(tmp_path, published_state())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MagiError, match="not a PyTorch checkpoint") as error:
        convert_omnitokenizer(path, tmp_path / "codec")
    assert "\n" not in str(error.value)


def test_tensors_larger_than_the_file(tmp_path):
    state = published_state()
    state["pre_vq_conv.1.bias"] = torch.zeros(1).expand(2 * CHANNELS)
    with pytest.raises(MagiError, match="beyond its storage"):
        convert_omnitokenizer(write_checkpoint(tmp_path, state), tmp_path / "codec")
    with zipfile.ZipFile(tmp_path / "empty.ckpt", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(MagiError, match=r"no data\.pkl"):
        convert_omnitokenizer(tmp_path / "empty.ckpt", tmp_path / "codec")
    with pytest.raises(MagiError, match="no such file"):
        convert_omnitokenizer(tmp_path / "nowhere.ckpt", tmp_path / "codec")
