"""The categorical head: its loss against F.cross_entropy, its draws against the distribution, its sets of codes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.head import FastCategoricalHead
from magi_video.models.categorical import CategoricalHead, draw_index, keep_likely
from magi_video.models.random import SampleNoise

V, D, W = 9, 4, 6


@pytest.fixture
def head() -> CategoricalHead:
    made = CategoricalHead(D, W, V)
    made.set_codebook(torch.randn(V, D))
    torch.nn.init.normal_(made.logits.weight)
    return made


def test_the_loss_is_cross_entropy_with_the_nearest_code(head: CategoricalHead) -> None:
    codes, z = torch.randint(V, (50,)), torch.randn(50, W)
    rounded = head.codebook[codes].half().float()  # as a latent cache keeps them
    assert torch.equal(head.find_codes(rounded), codes)
    logits = z @ head.logits.weight.T + head.logits.bias
    assert torch.allclose(head.loss(rounded, z), F.cross_entropy(logits, codes, reduction="none"))
    head.label_smoothing = 0.1
    log_p = logits.log_softmax(-1)
    by_hand = -(0.9 * log_p.gather(1, codes[:, None])[:, 0] + 0.1 * log_p.mean(1))
    assert torch.allclose(head.loss(rounded, z), by_hand, atol=1e-6)


def test_only_the_tokens_that_count_have_a_loss(head: CategoricalHead) -> None:
    codes, z = torch.randint(V, (2, 5)), torch.randn(2, 5, W, requires_grad=True)
    counted = torch.rand(2, 5) < 0.5
    total, number = head.total_loss(head.look_up(codes).detach(), z, counted, repeats=4, generator=None)
    each = F.cross_entropy(head.logits(z).flatten(0, 1), codes.flatten(), reduction="none").view(2, 5)
    assert number == counted.sum() and torch.allclose(total, each[counted].sum())
    total.backward()
    assert torch.equal(z.grad.abs().sum(-1) > 0, counted)
    assert head.codebook.grad is None


def test_padding_moves_no_loss(head: CategoricalHead) -> None:
    target, z = torch.randn(67, D), torch.randn(67, W)
    plain = head.loss(target, z)
    head.__class__ = FastCategoricalHead
    assert torch.allclose(head.loss(target, z), plain, atol=1e-6)


def test_an_untrained_head_takes_every_code_alike(head: CategoricalHead) -> None:
    head.reset_parameters()
    assert torch.allclose(head.loss(torch.randn(5, D), torch.randn(5, W)), torch.full((5,), math.log(V)))


def chi_square(codes: Tensor, probability: Tensor) -> float:
    """χ² of counts against expected counts, over the codes that are possible."""
    possible = probability > 0
    expected = probability[possible] * codes.numel()
    counts = torch.bincount(codes.flatten(), minlength=len(probability))
    assert counts[~possible].sum() == 0
    return float(((counts[possible] - expected).square() / expected).sum())


@pytest.mark.parametrize("options", [
    {}, {"temperature": 2.0}, {"temperature": 0.5, "top_k": 4}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.8},
])  # fmt: skip
def test_draws_follow_the_distribution(head: CategoricalHead, options: dict[str, float]) -> None:
    z, n = torch.randn(1, 1, W) * 0.5, 40_000
    logits = head.logits(z)[0, 0] / options.get("temperature", 1)
    order = logits.argsort(descending=True)
    kept = order[: options.get("top_k", V)]
    p = torch.zeros(V)
    p[kept] = logits[kept].softmax(0)
    before = p[order].cumsum(0) - p[order]
    p[order[before >= options.get("top_p", 1.1)]] = 0
    p /= p.sum()
    codes, confidence = head.sample_codes(z.expand(1, n, W), SampleNoise.from_seeds([0]), **options)
    # 99.99 % of χ² with 8 degrees of freedom lie below 31.8; wrong by 3 % of one code it would be far above.
    assert chi_square(codes, p.detach()) < 31.8
    assert torch.allclose(confidence, head.logits(z)[0, 0].log_softmax(0)[codes], atol=1e-5)
    assert torch.equal(head.sample(z.expand(1, n, W), SampleNoise.from_seeds([0]), **options), head.codebook[codes])


def test_temperature_0_takes_the_most_likely_code(head: CategoricalHead) -> None:
    z = torch.randn(2, 30, W)
    codes, _ = head.sample_codes(z, SampleNoise.from_seeds([0, 1]), temperature=0)
    assert torch.equal(codes, head.logits(z).argmax(-1))


def test_a_samples_codes_do_not_depend_on_its_batch(head: CategoricalHead) -> None:
    z = torch.randn(2, 30, W)
    both = head.sample(z, SampleNoise.from_seeds([3, 4]))
    assert torch.equal(head.sample(z[1:], SampleNoise.from_seeds([4])), both[1:])


@pytest.mark.parametrize(("top_k", "top_p", "expected"), [
    (None, 1.0, {0, 1, 2, 3, 4}), (2, 1.0, {3, 1}), (1, 1.0, {3}), (9, 1.0, {0, 1, 2, 3, 4}), (None, 0.39, {3}),
    (None, 0.41, {3, 1}), (None, 0.71, {3, 1, 4}), (None, 1e-9, {3}), (2, 0.6, {3, 1}), (2, 0.5, {3}),
])  # fmt: skip
def test_top_k_and_top_p_keep_exactly_these_codes(top_k: int | None, top_p: float, expected: set[int]) -> None:
    """Of probabilities 0.05, 0.3, 0.05, 0.4, 0.2: after top-k 2 the two likeliest have 4/7 and 3/7."""
    logits = torch.tensor([[0.05, 0.3, 0.05, 0.4, 0.2]]).log().repeat(3, 1)
    kept = keep_likely(logits, top_k, top_p)
    for row in kept:
        assert set(row.isfinite().nonzero()[:, 0].tolist()) == expected
    assert torch.equal(kept[kept.isfinite()], logits[kept.isfinite()])


def test_impossible_codes_are_never_drawn() -> None:
    probability = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-24])
    assert draw_index(probability.expand(5, 5), uniform).tolist() == [1, 1, 3, 3, 3]


def test_guidance_acts_on_the_logits(head: CategoricalHead) -> None:
    z = torch.randn(2, 7, W)  # one sample: with and without its conditions
    cond, uncond = head.logits(z)
    assert torch.allclose(head.predict(z, 1.5)[0], uncond + 1.5 * (cond - uncond), atol=1e-5)
    assert torch.allclose(head.predict(z, 1.0)[0], cond, atol=1e-5)
    assert head.sample(z, SampleNoise.from_seeds([0]), guidance=1.5).shape == (1, 7, D)


def test_a_bfloat16_head_draws_from_nearly_the_same(head: CategoricalHead) -> None:
    z = torch.randn(1, 50, W)
    exact = head.predict(z).softmax(-1)
    low = head.bfloat16()
    assert low.sample(z, SampleNoise.from_seeds([0])).dtype == torch.float32
    assert (low.predict(z).softmax(-1) - exact).abs().max() < 0.03


def test_what_there_is_not_is_refused(head: CategoricalHead) -> None:
    with pytest.raises(MagiError, match="draws a token at once, in 1 denoise step; got 10"):
        head.find_denoise_steps(10, 100)
    assert head.find_denoise_steps(None, 100) == head.find_denoise_steps(1, 100) == 1
    with pytest.raises(MagiError, match="a categorical head has no first denoise step to choose, got 990"):
        head.find_first_step("categorical", 1, 990)
    with pytest.raises(MagiError, match="unknown sampler 'ddim': this head has categorical"):
        head.find_sampler("ddim")
    with pytest.raises(MagiError, match=r"a codebook of \[3, 4\]; expected \[codes, numbers\] \[9, 4\]"):
        head.set_codebook(torch.zeros(3, 4))
