"""The VQ codec: its codes against plain references, its training, its codes there and back."""

import dataclasses
import json
import math

import pytest
import torch
from codec_examples import make_codec, make_video
from test_codec_training import HELD_OUT, KilledError, pictures, stop_after

from magi_video.codecs import fsq
from magi_video.codecs.config import VQConfig
from magi_video.codecs.discrete import measure_code_use, nearest, use_of
from magi_video.codecs.registry import load_codec
from magi_video.codecs.training import CHECKPOINTS, RECORD, train_codec
from magi_video.codecs.vq import VQCodec
from magi_video.codecs.vq_training import CodeAverages, VQTraining, straight_through
from magi_video.errors import MagiError

SMALL = VQConfig(
    width=16,
    encoder_blocks=(0, 1, 1),
    decoder_blocks=(1, 1, 0),
    steps=6,
    batch_size=4,
    warmup_steps=2,
    checkpoint_every=2,
    codebook_size=12,
    code_dim=4,
    restart_every=3,
)
RECIPES = {
    "ema": SMALL,
    "l2": dataclasses.replace(SMALL, l2_normalize=True),
    "fsq": dataclasses.replace(SMALL, quantizer="fsq", fsq_levels=(4, 3, 3)),
}


# --- codes ------------------------------------------------------------------------------------------------------------


def test_averages_follow_the_vectors_that_fall_to_them() -> None:
    """Against the recursion of van den Oord et al. (appendix A.1), code by code in plain Python."""
    generator = torch.Generator().manual_seed(0)
    averages = CodeAverages(3, 2, decay=0.9, restart_every=0)
    averages.begin(torch.randn(20, 2), generator)
    counts, sums = [float(one) for one in averages.counts], averages.sums.clone()
    assert torch.allclose(averages.vectors, sums / averages.counts[:, None])
    for step in range(5):
        vectors, codes = torch.randn(20, 2), torch.randint(3, (20,))
        averages.update(vectors, codes, step, generator)
        for code in range(3):
            own = vectors[codes == code]
            counts[code] = 0.9 * counts[code] + 0.1 * len(own)
            sums[code] = 0.9 * sums[code] + 0.1 * own.sum(0)
            assert averages.vectors[code].tolist() == pytest.approx((sums[code] / counts[code]).tolist(), rel=1e-4)
    assert averages.counts.tolist() == pytest.approx(counts, rel=1e-5)


def test_codes_that_a_window_did_not_use_begin_anew() -> None:
    averages, generator = CodeAverages(8, 2, 0.5, restart_every=4), torch.Generator().manual_seed(0)
    averages.begin(torch.randn(30, 2), generator)
    codes = torch.tensor([0, 1, 1, 2, 5, 5])
    before = averages.vectors.clone()
    for step in range(4):
        vectors = torch.randn(6, 2) + 100
        averages.update(vectors, codes, step, generator)
        if step == 2:
            assert averages.window.tolist() == [3, 6, 3, 0, 0, 6, 0, 0]
            assert torch.equal(averages.vectors[3], before[3]), "unused, but the window is not over"
    for code in (3, 4, 6, 7):  # at one of the last vectors, but for a little noise
        distance = (averages.vectors[code] - vectors).norm(dim=1).min()
        assert 0 < distance < 0.2
        assert averages.counts[code] == 6 / 8
        assert torch.allclose(averages.sums[code], averages.vectors[code] * 6 / 8)
    assert averages.window.sum() == 0
    p = torch.tensor([1, 2, 1, 2]) / 6
    assert averages.use.tolist() == pytest.approx([4 / 8, math.exp(-(p * p.log()).sum())])


def test_without_restarts_codes_stay_dead() -> None:
    averages, generator = CodeAverages(4, 2, 0.5, restart_every=0), torch.Generator().manual_seed(0)
    averages.begin(torch.randn(30, 2), generator)
    before = averages.vectors.clone()
    for step in range(100):
        averages.update(torch.randn(6, 2), torch.zeros(6, dtype=torch.long), step, generator)
    assert torch.allclose(averages.vectors[1:], before[1:], atol=1e-3) or averages.counts[1:].max() < 1e-6
    assert averages.use.tolist() == [0.25, 1.0]


def test_use_of_codes() -> None:
    assert use_of(torch.tensor([5, 5, 5, 5])) == pytest.approx((1, 4))
    assert use_of(torch.tensor([7, 0, 0, 0])) == pytest.approx((0.25, 1))


def test_the_nearest_code() -> None:
    codebook, vectors = torch.randn(50, 6), torch.randn(200, 6)
    assert torch.equal(nearest(codebook, vectors), torch.cdist(vectors, codebook).argmin(1))


def test_gradients_pass_straight_through() -> None:
    vectors, codes = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    through = straight_through(vectors, codes)
    assert torch.allclose(through, codes, atol=1e-6)
    weight = torch.randn(5, 3)
    (through * weight).sum().backward()
    assert torch.equal(vectors.grad, weight)


@pytest.mark.parametrize("kind", list(RECIPES))
def test_the_encoder_learns_through_the_codes(kind: str) -> None:
    """The gradient of the loss in the encoder's vectors: the decoder's at the codes, and the commitment's."""
    training = VQTraining(RECIPES[kind])
    config, codec = training.config, training.codec
    batch = pictures(0)
    vectors = codec.vectors_of(batch).detach().requires_grad_()
    codec.vectors_of = lambda _: vectors  # type: ignore[method-assign]
    losses = training.losses(batch, 0)
    losses["loss"].backward()
    if kind == "fsq":
        assert vectors.grad.abs().max() > 0 and losses["commitment"] == 0
        return
    code = training.averages.vectors[training._step[1]].view(*vectors.movedim(1, -1).shape).movedim(-1, 1)
    at_code = code.clone().requires_grad_()
    error = codec.vae.decode(at_code) - batch
    edges = error.diff(dim=-1).square().mean() + error.diff(dim=-2).square().mean()
    (error.square().mean() + config.edge_weight * edges).backward()
    commitment = config.commitment * 2 * (vectors.detach() - code) / vectors.numel()
    assert torch.allclose(vectors.grad, at_code.grad + commitment, atol=1e-6)
    norms = training.averages.vectors.norm(dim=1)
    assert torch.allclose(norms, torch.ones(12)) == (kind == "l2")


# --- finite scalar quantisation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2,), (3, 4), (8, 8, 8, 6, 5)])
def test_the_codes_of_fsq_are_the_grid_each_once(levels: tuple[int, ...]) -> None:
    book = fsq.codebook(levels)
    assert book.shape == (math.prod(levels), len(levels)) and len(book.unique(dim=0)) == len(book)
    for number, level in zip(book.unbind(1), levels, strict=True):
        assert len(number.unique()) == level and number.min() == -1 and number.max() <= 1
    some = torch.randperm(len(book))[:300]
    assert torch.equal(nearest(book, book[some]), some), "code → vector → code"


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2, 3)])
def test_fsq_rounds_to_every_point_of_the_grid_and_to_no_other(levels: tuple[int, ...]) -> None:
    z = 5 * torch.randn(100_000, len(levels), generator=torch.Generator().manual_seed(0))
    made, book = fsq.quantize(z, levels), fsq.codebook(levels)
    codes = nearest(book, made)
    assert torch.allclose(book[codes], made, atol=1e-6)
    assert len(codes.unique()) > 0.5 * len(book)
    assert fsq.quantize(torch.full((1, len(levels)), 20.0), levels).tolist()[0] == pytest.approx(
        [(level - 1 - level // 2) / (level // 2) for level in levels]
    )


def test_fsq_keeps_the_gradient_of_the_bound() -> None:
    z = torch.randn(7, 2, requires_grad=True)
    fsq.quantize(z, (5, 4)).sum().backward()
    again = z.detach().clone().requires_grad_()
    (fsq.bound(again, (5, 4)) / torch.tensor([2.0, 2.0])).sum().backward()
    assert torch.equal(z.grad, again.grad) and z.grad.abs().min() > 0


# --- the codec --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vq", "fsq", "vq_model"])
def test_pixels_to_codes_and_back(kind: str) -> None:
    codec, video = make_codec(kind), make_video()
    codec.set_statistics([0.1] * codec.latent_channels, [0.3] * codec.latent_channels)
    latents = codec.encode(video)
    codes = codec.encode_codes(video)
    assert codes.shape == (2, 5, 4, 6) and codes.dtype == torch.long and len(codes.unique()) > 2
    assert torch.allclose(codec.look_up(codes), latents, atol=1e-5), "a latent is its code's vector"
    assert torch.equal(codec.find_codes(latents.half().float()), codes), "however it was rounded"
    assert torch.allclose(codec.decode_codes(codes), codec.decode(latents), atol=1e-5)
    assert torch.allclose(codec.decode(latents + 1e-4), codec.decode(latents), atol=1e-5), "the nearest code counts"
    with pytest.raises(MagiError, match="codes must lie in 0…"):
        codec.decode_codes(codes + codec.codes)
    with pytest.raises(MagiError, match="codes are integers"):
        codec.decode_codes(latents)


def test_the_use_of_codes_is_measured_and_saved(tmp_path) -> None:
    codec = make_codec("vq")
    videos = [make_video(seed=0), make_video(seed=1)]
    share, perplexity = measure_code_use(codec, videos)
    counts = torch.bincount(torch.cat([codec.encode_codes(one).flatten() for one in videos]), minlength=codec.codes)
    assert share == (counts > 0).float().mean() and 1 < perplexity <= codec.codes * share
    codec.set_code_use(share, perplexity)
    codec.save_pretrained(tmp_path)
    config = load_codec(tmp_path).config
    assert (config["codes_used"], config["perplexity"]) == (share, perplexity)
    with pytest.raises(MagiError, match="no frames"):
        measure_code_use(codec, [])


@pytest.mark.parametrize(("changes", "message"), [
    ({"quantizer": "lfq"}, "quantizer must be one of ema, fsq"), ({"codebook_size": 1}, "codebook_size must lie in"),
    ({"codebook_size": 10**9}, "codebook_size must lie in"), ({"decoder_blocks": (1,)}, "as many levels"),
    ({"fsq_levels": (8, 1)}, "fsq_levels.1 must be at least 2"), ({"fsq_levels": (100,) * 3}, "at most 65536"),
    ({"width": "wide"}, "width must be a whole number"),
])  # fmt: skip
def test_codecs_that_cannot_be_are_refused(changes, message) -> None:
    with pytest.raises(MagiError, match=message):
        VQCodec(**changes)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(RECIPES))
@pytest.mark.parametrize("killed_at", [1, 4, 5])
def test_resuming_changes_no_bit(tmp_path, kind, killed_at) -> None:
    config = RECIPES[kind]
    figures: dict[str, list] = {"whole": [], "parts": []}

    def log(name):
        return lambda step, metrics: figures[name].append((step, metrics))

    whole = train_codec(VQTraining(config), pictures, HELD_OUT, tmp_path / "whole", on_step=log("whole"))
    with pytest.raises(KilledError):
        train_codec(VQTraining(config), pictures, HELD_OUT, tmp_path / "parts", on_step=stop_after(killed_at))
    parts = train_codec(VQTraining(config), pictures, HELD_OUT, tmp_path / "parts", on_step=log("parts"))
    assert parts.fingerprint() == whole.fingerprint()
    assert figures["parts"] == figures["whole"][killed_at // 2 * 2 :], "losses, codes used and perplexity too"
    assert not (tmp_path / "parts" / CHECKPOINTS).exists()


@pytest.mark.parametrize(("kind", "least"), [("ema", 15), ("l2", 15), ("fsq", 15)])
def test_it_learns_and_says_how_its_codes_are_used(tmp_path, kind, least) -> None:
    config = dataclasses.replace(RECIPES[kind], steps=120, learning_rate=3e-3, warmup_steps=20, restart_every=25)
    config = dataclasses.replace(config, codebook_size=32, fsq_levels=(4, 4, 2))
    few, seen = [pictures(0), pictures(1)], []
    codec = train_codec(
        VQTraining(config), lambda step: few[step % 2], few, tmp_path, on_step=lambda _, metrics: seen.append(metrics)
    )
    record = json.loads((tmp_path / RECORD).read_text())
    # Plain grey pictures give 13.2 dB.
    assert record["psnr_db"] > least
    assert sum(one["loss"] for one in seen[-20:]) < 0.5 * sum(one["loss"] for one in seen[:20])
    share, perplexity = measure_code_use(codec, [batch[:, None] for batch in few])
    assert (record["codes_used"], record["perplexity"]) == (share, perplexity)
    assert 0.3 < share <= 1 and 4 < perplexity <= 32
    assert 0.3 < seen[-1]["codes_used"] <= 1 and 4 < seen[-1]["perplexity"] <= 32
    loaded = load_codec(tmp_path)
    assert loaded.fingerprint() == codec.fingerprint() and loaded.config["perplexity"] == perplexity
    latents = loaded.encode(few[0][:, None])
    assert torch.equal(latents, codec.encode(few[0][:, None]))
    if kind == "l2":
        assert torch.allclose(loaded.vectors.norm(dim=1), torch.ones(32), atol=1e-5)


def test_the_weights_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first = VQTraining(SMALL).network.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    again, other = VQTraining(SMALL), VQTraining(dataclasses.replace(SMALL, seed=1))
    assert all(torch.equal(one, first[name]) for name, one in again.network.state_dict().items())
    assert not all(torch.equal(one, first[name]) for name, one in other.network.state_dict().items())
