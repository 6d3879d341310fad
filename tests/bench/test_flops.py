"""The formulas against operations counted while the model runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from magi_video.bench.counting import count_executed, peak_share
from magi_video.bench.flops import (
    Flops,
    Sizes,
    exposure_flops,
    frame_flops,
    head_flops,
    pass_flops,
    training_flops,
)
from magi_video.exposure import Canvas, ErrorBank, Resampling
from magi_video.models.architecture import Architecture
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import MASKED, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import PARADIGMS, Clip, CompleteTeacherForcing, NoiseInjection
from magi_video.paradigms.masking import unmasking_schedule
from magi_video.registry import declared
from magi_video.sampling.sampling import Sampling
from tests.rollouts import start_rollout

Make = Callable[..., MagiVideoTransformer]


def masked_frame(model: MagiVideoTransformer, batch: int, position: int) -> FrameSequence:
    """A frame with half of its tokens hidden."""
    return FrameSequence(
        tokens_BSND=torch.randn(batch, 1, model.num_tokens, model.token_dim),
        masked_BSN=(torch.arange(model.num_tokens) % 2 == 0).expand(batch, 1, -1),
        kind_S=torch.tensor([MASKED]),
        position_S=torch.tensor([float(position)]),
        interval_B=torch.ones(batch, dtype=torch.long),
        conditions={"action": torch.zeros(batch, 1, 3)},
    )


@pytest.mark.parametrize("past", [0, 1, 3])
@pytest.mark.parametrize("changes", [{}, {"mlp_width": 96, "depth": 3, "temporal_position": "rope"}])
def test_a_pass_over_the_cache(make_model: Make, past: int, changes: dict[str, Any]) -> None:
    model, batch = make_model(**changes), 2
    with torch.no_grad():
        cache = model.make_cache(batch, 5)
        for position in range(past):
            model(masked_frame(model, batch, position), cache)
            cache.advance()
        counted = count_executed(lambda: model(masked_frame(model, batch, past), cache))
    assert counted == pass_flops(Sizes.of(model.architecture), frames=batch, keys=past + 1).total


@pytest.mark.parametrize("forcing", list(PARADIGMS))
def test_a_training_step_forward_and_backward(make_model: Make, clip: Clip, forcing: str) -> None:
    model, paradigm = make_model(forcing=forcing).train(), PARADIGMS[forcing]()
    batch, frames, tokens = clip.tokens_BTND.shape[:3]
    hidden = paradigm.mask_ratio.draw(batch, frames, tokens, None, "cpu")
    if paradigm.past == "noisy":
        built = paradigm.sequence(clip, clip.tokens_BTND, torch.zeros(batch, frames))
    else:
        built = paradigm.sequence(clip, hidden)
    # The whole sequence, asked for every frame: what the formula is about.
    names = ("tokens_BSND", "masked_BSN", "kind_S", "position_S", "interval_B", "conditions", "mask_SS")
    sequence = FrameSequence(**{name: getattr(built, name) for name in names})

    def forward() -> torch.Tensor:
        z = model(sequence)[:, -frames:]
        target = clip.tokens_BTND[hidden]
        uniform, eps = torch.rand(3, len(target)), torch.randn(3, *target.shape)
        return model.diffusion_head.loss(target, z[hidden], uniform, eps).mean()

    sizes, predicted = Sizes.of(model.architecture), int(hidden.sum())
    ahead, back = training_flops(sizes, batch, sequence.tokens_BSND.shape[1], predicted, repeats=3)
    assert count_executed(forward) == ahead.total
    assert count_executed(lambda: forward().backward()) == ahead.total + back.total
    assert sequence.tokens_BSND.shape[1] == paradigm.training_frames * frames


def test_what_training_runs_is_no_more_than_the_formula_but_for_padding(make_model: Make, clip: Clip) -> None:
    model, paradigm = make_model().train(), PARADIGMS["complete"]()
    sizes = Sizes.of(model.architecture)
    ahead, back = training_flops(sizes, 2, 10, predicted=2 * 5 * 16, repeats=4)  # every token hidden
    counted = count_executed(lambda: paradigm.loss(model, clip).backward())
    assert counted is not None and 0.5 * (ahead + back).total < counted <= (ahead + back).total


@pytest.mark.parametrize(("head", "sampler"), [
    ("epsilon", "ancestral"), ("epsilon", "ddim"), ("flow", "euler"), ("flow", "midpoint"),
])  # fmt: skip
def test_the_heads_sampling(make_model: Make, head: str, sampler: str) -> None:
    model, tokens, steps = make_model(head=head), 5, 6
    with torch.no_grad():
        counted = count_executed(
            lambda: model.diffusion_head.sample(
                torch.randn(2, tokens, 32), SampleNoise.from_seeds([0, 1]), steps, sampler=sampler
            )
        )
    assert counted == head_flops(Sizes.of(model.architecture), 2 * tokens, evaluations=steps, times=steps).total


def test_the_categorical_head_in_training_and_in_sampling(make_model: Make) -> None:
    model, tokens = make_model(head="categorical"), 6
    head, sizes = model.diffusion_head, Sizes.of(model.architecture)
    z = torch.randn(tokens, 32, requires_grad=True)
    read = pass_flops(sizes, 1, 1)
    ahead, back = (
        one + read * -times for one, times in zip(training_flops(sizes, 1, 1, tokens, 4), (1, 2), strict=True)
    )
    assert count_executed(lambda: head.loss(torch.randn(tokens, 3), z)) == ahead.head == 2 * tokens * 20 * (32 + 3)
    assert count_executed(lambda: head.loss(torch.randn(tokens, 3), z).sum().backward()) == ahead.head + back.head
    with torch.no_grad():
        counted = count_executed(lambda: head.sample(z.detach()[None], SampleNoise.from_seeds([0])))
    assert counted == head_flops(sizes, tokens, evaluations=1, times=1).total


@pytest.mark.parametrize("past", [1, 3])
def test_a_frame_is_its_passes_and_its_head_calls(make_model: Make, past: int) -> None:
    model = make_model(conditions=None)
    sizes, settings = Sizes.of(model.architecture), Sampling(None, 4, 5)
    rollout = start_rollout(model, [0], settings, 5)
    for _ in range(past):
        rollout.observe(torch.randn(1, 16, 12))
    whole = frame_flops(sizes, 1, unmasking_schedule(16, 4), 5, past, window=None)
    passes = pass_flops(sizes, 1, past + 1) * 4 + pass_flops(sizes, 1, past)
    assert whole == passes + head_flops(sizes, 16, evaluations=5, times=20)
    counted = count_executed(rollout.predict)
    assert counted is not None and 0.6 * whole.total < counted <= whole.total * 1.01


def test_the_window_bounds_temporal_attention(make_model: Make) -> None:
    sizes = Sizes.of(make_model().architecture)
    costs = [frame_flops(sizes, 1, [16], 2, past, window=5).temporal_attention for past in (3, 4, 5, 50)]
    assert costs[0] < costs[1] < costs[2] == costs[3]


def test_the_common_work_of_the_comparison() -> None:
    with torch.device("meta"):
        model = MagiVideoTransformer(Architecture(width=768, depth=12, heads=12, mlp_width=3072))
    sizes = Sizes.of(model.architecture)
    frame = frame_flops(sizes, 1, [32] * 8, 10, past=8, window=None)
    layers = 9 * 257 * 24 * 24 * 768**2
    assert frame.spatial_linear + frame.temporal_linear == layers and frame.total == pytest.approx(0.9e12, rel=0.01)
    assert sum(map(lambda part: part.total, training_flops(sizes, 1, 32, 3551, 4))) == pytest.approx(10e12, rel=0.05)


def test_a_product_without_a_formula_makes_the_count_unknown() -> None:
    @torch.library.custom_op("magi_test::linear", mutates_args=())
    def unknown_linear(x: torch.Tensor) -> torch.Tensor:
        return x @ x

    x = torch.randn(4, 4)
    assert count_executed(lambda: x @ x) == 2 * 4**3
    assert count_executed(lambda: unknown_linear(x)) is None


def test_the_share_takes_the_smaller_count() -> None:
    assert peak_share(8_000, 4_000, seconds=2.0, peak_gflops=1e-6) == 2.0
    assert peak_share(8_000, 16_000, seconds=2.0, peak_gflops=1e-6) == 4.0
    assert peak_share(8_000, None, seconds=2.0, peak_gflops=1e-6) == 4.0
    assert (Flops(1, 2, 3, 4, 5, 6) * 2 + Flops(head=1)).total == 43


@pytest.mark.parametrize("head", ["epsilon", "flow"])
def test_what_a_cure_for_exposure_bias_adds(make_model: Make, clip: Clip, head: str) -> None:
    (batch, frames), generator = clip.tokens_BTND.shape[:2], torch.Generator().manual_seed(0)
    model = make_model(head=head).train()
    sizes = Sizes.of(model.architecture)
    ahead, back = exposure_flops(declared("exposure")["resampling"], sizes, batch, 2 * frames, frames)
    assert back.total == 0
    assert count_executed(lambda: Resampling(plain_steps=0).resample(model, clip, generator)) == ahead.total
    bank, z = ErrorBank(), torch.randn(batch, frames, 16, 32)
    bank.begin_step(0)
    counted = torch.ones(batch, frames, 16, dtype=torch.bool)
    ahead, back = exposure_flops(declared("exposure")["error-bank"], sizes, batch, 2 * frames, frames)
    assert (
        count_executed(lambda: bank.learn(model.diffusion_head, clip.tokens_BTND, z, counted, generator)) == ahead.total
    )
    assert back.total == 0
    painter, cure = make_model(head=head, canvas=True).train(), Canvas()
    plain, painted = (CompleteTeacherForcing(exposure=one) for one in (NoiseInjection(), cure))
    ran = [
        count_executed(lambda f=forcing: f.loss(painter, clip, torch.Generator().manual_seed(0)).backward())
        for forcing in (plain, painted)
    ]
    ahead, back = exposure_flops(declared("exposure")["canvas"], sizes, batch, 2 * frames, frames)
    added = ran[1] - ran[0]  # type: ignore[operator]
    assert 0.8 * (ahead + back).total < added <= (ahead + back).total, "the last block reads the predicted half alone"
