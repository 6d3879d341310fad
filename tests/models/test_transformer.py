"""Shapes, sizes, conditions, precision, saving."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.attention import attention
from magi_video.models.architecture import Architecture
from magi_video.models.embeddings import rotary_angles, rotate, sinusoidal_1d
from magi_video.models.sequence import FrameSequence, causal_mask
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, CompleteTeacherForcing
from magi_video.paradigms.complete import complete_mask


def sequence(batch: int = 2, frames: int = 5, hidden: bool = False) -> FrameSequence:
    generator = torch.Generator().manual_seed(0)
    return FrameSequence(
        tokens_BSND=torch.randn(batch, frames, 16, 12, generator=generator),
        masked_BSN=torch.full((batch, frames, 16), hidden),
        kind_S=torch.ones(frames, dtype=torch.long),
        position_S=torch.arange(frames),
        interval_B=torch.ones(batch, dtype=torch.long),
        mask_SS=causal_mask(frames),
    )


def test_paper_size() -> None:
    """20 blocks of width 1280 and the 3 × 1024 head: 0.81 G parameters (the paper: "approximately 850 million")."""
    with torch.device("meta"):
        model = MagiVideoTransformer(Architecture())
    total = sum(p.numel() for p in model.parameters())
    assert total == 808_671_264
    assert total > 40 * 12 * 1280**2
    assert sum(p.numel() for p in model.diffusion_head.parameters()) == 20_524_064


def test_patches_round_trip_and_keep_places(model: MagiVideoTransformer) -> None:
    latents = torch.randn(2, 3, 3, 8, 8)
    tokens = model.patchify(latents)
    assert tokens.shape == (2, 3, 16, 12)
    assert torch.equal(model.unpatchify(tokens), latents)
    assert torch.equal(tokens[0, 0, 5].view(3, 2, 2), latents[0, 0, :, 2:4, 2:4]), (
        "token 5 of a 4-wide grid: row 1, column 1"
    )


def test_noise_level_interval_and_action_are_felt(model: MagiVideoTransformer) -> None:
    base = sequence()
    before = model(base)
    for name, value in (("noise_level", torch.full((2, 5), 3)), ("action", torch.ones(2, 5, 3))):
        changed = sequence()
        changed.conditions = {name: value}
        assert not torch.allclose(model(changed), before, atol=1e-3), name
    changed = sequence()
    changed.interval_B = torch.tensor([1, 9])
    after = model(changed)
    assert torch.equal(after[0], before[0]) and not torch.allclose(after[1], before[1], atol=1e-3)


def test_conditions_of_one_frame_reach_that_frame_and_later_ones_only(model: MagiVideoTransformer) -> None:
    changed = sequence()
    action = torch.full((2, 5, 3), torch.nan)
    action[:, 2] = 1.0
    changed.conditions = {"action": action}
    difference = (model(changed) - model(sequence())).abs().amax((0, 2, 3))
    assert (difference > 1e-4).tolist() == [False, False, True, True, True]


def test_everything_hidden_is_finite(model: MagiVideoTransformer) -> None:
    assert model(sequence(hidden=True)).isfinite().all()


def test_rotary_attention_depends_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 8).unbind(0)

    def score(at: float, other: float) -> float:
        turned_q = rotate(q, *rotary_angles(torch.tensor([at], dtype=torch.float64), 8))
        turned_k = rotate(k, *rotary_angles(torch.tensor([other], dtype=torch.float64), 8))
        return (turned_q * turned_k).sum().item()

    assert score(3, 1) == pytest.approx(score(1_000_003, 1_000_001), abs=1e-4), "an endless stream keeps its phase"
    assert score(3, 1) != pytest.approx(score(4, 1), abs=1e-3)


def test_interpolated_positions_lie_between_their_neighbours() -> None:
    embedding = sinusoidal_1d(torch.tensor([1.0, 1.5, 2.0]), 32)
    # The slow sinusoids are nearly linear between integers.
    assert torch.allclose(embedding[1, 20:], (embedding[0, 20:] + embedding[2, 20:]) / 2, atol=1e-2)


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_equals_the_fused_kernel(masked: bool) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 8).unbind(0)
    mask = causal_mask(6) if masked else None
    fused = attention(q, k, v, mask)
    plain = attention(q.clone().requires_grad_(), k, v, mask)
    assert torch.allclose(fused, plain, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2**-6)]
)
def test_plain_attention_and_its_gradient_equal_the_definition(
    masked: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """Relative to the largest number, which in bfloat16 has a last bit of 2⁻⁷."""
    inputs = torch.randn(3, 2, 3, 4, 8, 16, dtype=torch.float64).to(dtype)
    mask = complete_mask(4) if masked else None
    asked = torch.randn(2, 3, 4, 8, 16, dtype=torch.float64).to(dtype)

    def definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        return torch.softmax(scores, dim=-1) @ v

    def of(function: Callable[..., Tensor]) -> list[Tensor]:
        q, k, v = (part.clone().requires_grad_() for part in inputs)
        result = function(q, k, v)
        result.backward(asked)
        return [result, *(part.grad for part in (q, k, v) if part.grad is not None)]

    for ours, theirs in zip(of(lambda *qkv: attention(*qkv, mask)), of(definition), strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_bf16_autocast_keeps_the_head_in_float32(model: MagiVideoTransformer, clip: Clip) -> None:
    kinds = []
    for layer in (model.diffusion_head.net.condition_embed, model.diffusion_head.net.token_out):
        layer.register_forward_hook(lambda _m, inputs, out: kinds.extend([inputs[0].dtype, out.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        loss = CompleteTeacherForcing().loss(model, clip, torch.Generator().manual_seed(0))
    assert kinds == [torch.float32] * 4 and loss.dtype == torch.float32
    exact = CompleteTeacherForcing().loss(model, clip, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(exact.item(), rel=0.03)  # four last bits of bfloat16


@pytest.mark.parametrize("head", ["epsilon", "flow"])
def test_saved_and_loaded_gives_the_same(
    make_model: Callable[..., MagiVideoTransformer], tmp_path: Path, head: str
) -> None:
    model = make_model(head=head)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = MagiVideoTransformer.from_pretrained(tmp_path).eval()
    assert torch.equal(model(sequence()), loaded(sequence()))
    assert list(loaded.condition_tokens.specs) == list(model.condition_tokens.specs)


@pytest.mark.parametrize("change", [
    {"patch_size": 3}, {"heads": 3}, {"head": "gan"}, {"temporal_position": "alibi"}, {"max_interval": 26},
])  # fmt: skip
def test_impossible_settings_are_refused(
    make_model: Callable[..., MagiVideoTransformer], change: dict[str, object]
) -> None:
    with pytest.raises(MagiError):
        make_model(**change)
