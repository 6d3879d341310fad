"""What is measured: subjects, memory, straight lines, profiles."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magi_video.bench import machine, report
from magi_video.bench.generation import Generator, count_frame, fit_line
from magi_video.bench.options import BenchOptions
from magi_video.bench.profiling import marked_parts, profile_call, purpose
from magi_video.bench.report import benchmark
from magi_video.bench.subject import blank_conditions, open_subject
from magi_video.bench.training import Stepper, mean_share, sequence_frames
from magi_video.errors import MagiError
from magi_video.fast.linear import pack_linears
from magi_video.files.shapes import parameters_by_part
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.presets import load_preset
from magi_video.sampling.sampling import Sampling
from magi_video.training.build import build_paradigm

CPU = torch.device("cpu")


def test_a_preset_has_the_latents_of_its_codec(tmp_path: Path) -> None:
    shapes = {name: open_subject(name).outline.config for name in ("tiny", "doom-mtf", "ucf101")}
    latents = {name: (one.latent_channels, one.latent_height, one.latent_width) for name, one in shapes.items()}
    assert latents == {"tiny": (3, 16, 16), "doom-mtf": (8, 8, 8), "ucf101": (4, 32, 32)}
    assert open_subject("doom").kind == "model" and open_subject("doom-mtf").kind == "preset"
    (tmp_path / "mine.json").write_text('{"codec": {"codec": "pixels"}, "data": {"height": 8, "width": 8}}')
    assert open_subject(str(tmp_path / "mine.json")).outline.config.latent_height == 8
    assert blank_conditions(open_subject("doom-mtf").outline, 2, 3, CPU)["action"].shape == (2, 3, 6)


def test_a_preset_loads_the_same_weights_every_time_and_leaves_the_generator_alone() -> None:
    subject, before = open_subject("tiny"), torch.get_rng_state()
    first, second = subject.load(torch.float32), subject.load(torch.bfloat16)
    assert torch.equal(before, torch.get_rng_state()) and second.dtype == torch.bfloat16
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one.to(torch.bfloat16), other)
    counts = parameters_by_part(subject.outline.architecture)
    assert sum(counts.values()) == machine.count_parameters(first) and min(counts.values()) > 0


def test_a_speed_setting_is_relative_to_the_subjects_own_steps() -> None:
    subject = open_subject("ucf101")
    own, head = subject.preset.sample, subject.outline.diffusion_head
    exact, balanced = (Sampling(speed).resolve(head, own) for speed in ("exact", "balanced"))
    assert (exact.mask_steps, exact.denoise_steps, exact.sampler) == (64, 100, "ancestral")
    assert balanced.mask_steps < 64 and balanced.denoise_steps < 100
    assert Sampling("balanced", 7).resolve(head, own) == replace(balanced, mask_steps=7)


def test_a_batch_is_halved_until_memory_and_time_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = open_subject("doom")  # 16 clips a step, 0.55 TFLOP
    monkeypatch.setattr(report, "available_memory_bytes", lambda device: None)
    assert report.pick_batch(subject, torch.bfloat16, CPU, peak_gflops=1000) == 16
    assert report.pick_batch(subject, torch.bfloat16, CPU, peak_gflops=20) == 4
    assert report.pick_batch(subject, torch.bfloat16, CPU, peak_gflops=1e-3) == 1
    needed = machine.training_bytes(subject.outline, 8, 32, torch.bfloat16)
    monkeypatch.setattr(report, "available_memory_bytes", lambda device: 2 * needed)
    assert report.pick_batch(subject, torch.bfloat16, CPU, peak_gflops=1000) == 8


def test_training_follows_the_paradigm() -> None:
    assert sequence_frames(open_subject("tiny")) == 8 and sequence_frames(open_subject("tiny-mtf")) == 4
    assert mean_share(build_paradigm(load_preset("ucf101")), 256, 16) == pytest.approx(0.87, abs=0.01)


def test_a_step_trains() -> None:
    subject = open_subject("tiny-mtf")
    stepper = Stepper(subject, subject.load(torch.float32), 2, "float32", CPU)
    before = [parameter.detach().clone() for parameter in stepper.model.parameters()]
    stepper.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, stepper.model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in stepper.model.parameters())


def test_a_straight_line_is_known_from_a_curve() -> None:
    flat, growing = fit_line([0.5] * 20), fit_line([0.1 * frame for frame in range(20)])
    assert flat.r2 == pytest.approx(1) and flat.seconds_per_frame == pytest.approx(0.5)
    assert growing.r2 < 0.96 and fit_line([0.25]).seconds_per_frame == 0.25


def test_what_cannot_fit_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda device: 2**30)
    with pytest.raises(MagiError, match=r"a training step of 2 clips needs at least .* GiB, and 1.0 GiB are"):
        benchmark("ucf101", BenchOptions(parts=("train",), train_batch=2))
    with pytest.raises(MagiError, match=r"generating 1 video needs at least 5\.\d GiB"):
        benchmark("ucf101", BenchOptions(parts=("generate",), precision="bf16"))
    outline = open_subject("ucf101").outline
    assert machine.training_bytes(outline, 2, 32, torch.bfloat16) > 16 * machine.count_parameters(outline)
    machine.require_memory(2**29, CPU, "it", "")


def test_packed_weights_are_counted_on_plain_ones() -> None:
    subject = open_subject("tiny")
    sampling = Sampling(None, 2, 2).resolve(subject.outline.diffusion_head)
    counts = []
    for packed in (False, True):
        model = subject.load(torch.bfloat16)
        if packed and not pack_linears(model):
            pytest.skip("lacks a CPU with bfloat16 products, for which this PyTorch packs weights")
        counts.append(count_frame(Generator(subject, model, sampling, 1, CPU), frames=2))
    assert counts[0] is not None and counts[0] == counts[1]


@pytest.mark.parametrize(("operator", "what"), [
    ("aten::addmm", "matrix products"),
    ("aten::mm", "matrix products"),
    ("mkldnn::_linear_pointwise", "matrix products"),
    ("aten::bmm", "attention products"),
    ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention products"),
    ("aten::_softmax", "softmax, norms, activations"),
    ("aten::native_layer_norm_backward", "softmax, norms, activations"),
    ("aten::gelu", "softmax, norms, activations"),
    ("aten::index_add_", "copies"),
    ("aten::copy_", "copies"),
    ("aten::cat", "copies"),
    ("aten::add_", "element-wise"),
    ("aten::addcmul", "element-wise"),
    ("aten::normal_", "element-wise"),
    ("aten::exp", "element-wise"),
    ("aten::expand", "the rest"),
    ("aten::view", "the rest"),
    ("AddmmBackward0", "the rest"),
    ("autograd::engine::evaluate_function: MulBackward0", "the rest"),
])  # fmt: skip
def test_operators_have_a_purpose(operator: str, what: str) -> None:
    assert purpose(operator) == what


def test_a_profile_tells_the_parts_of_forward_and_backward() -> None:
    subject = open_subject("tiny")
    stepper = Stepper(subject, subject.load(torch.float32), 2, "float32", CPU)
    model = stepper.model
    found = profile_call(model, stepper.step, CPU)
    for shares in (found.by_part, found.by_purpose):
        assert sum(shares.values()) == pytest.approx(1) and list(shares.values()) == sorted(shares.values())[::-1]
    assert {"spatial", "temporal", "head", "optimiser"} <= set(found.by_part)
    assert {"matrix products", "attention products", "optimiser", "copies", "element-wise"} <= set(found.by_purpose)
    assert found.by_part.get("the rest", 0) < 0.3, "the backward belongs to the parts"
    assert found.seconds > 0 and "sample" not in vars(model.diffusion_head), "the model is as it was"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_marking_the_parts_changes_nothing(make_model: Callable[..., MagiVideoTransformer]) -> None:
    head = make_model().diffusion_head
    target, z = torch.randn(3, 12), torch.randn(3, 32)
    uniform, eps = torch.rand(2, 3), torch.randn(2, 3, 12)

    def loss() -> torch.Tensor:
        return head.loss(target, z, uniform, eps)

    model = make_model()
    model.diffusion_head = head
    plain = loss()
    with marked_parts(model):
        marked = loss()
    assert torch.equal(plain, marked)


@pytest.mark.parametrize("field", ["frames", "batch", "train_batch", "train_steps", "uncached_frames", "threads"])
def test_numbers_must_be_positive(field: str) -> None:
    with pytest.raises(MagiError, match=f"{field} must be at least 1, got 0"):
        BenchOptions(**{field: 0})
