"""A few-step head for a small model: what it learns, and the folder that it becomes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.cli import main
from magi_video.codecs.pixels import PixelCodec
from magi_video.errors import MagiError
from magi_video.exposure import CURES
from magi_video.models.distributional import DistributionalHead
from magi_video.models.head import DiffusionHead
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import Clip, make_paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling
from magi_video.training import distillation_time
from magi_video.training.display import Silent
from magi_video.training.distillation import (
    MOST_COMPARED,
    collect_inputs,
    distance_to_samples,
    distill,
    distill_model,
    open_data,
    teaching_paradigm,
    train_head,
)
from magi_video.training.distillation_options import DistillOptions
from magi_video.training.head_inputs import listening, roll_out
from tests.codecs.codec_examples import coded_architecture, make_vq

Make = Callable[..., MagiVideoTransformer]
QUICK = DistillOptions(tokens=600, draws=2, steps=40, batch_size=128, clips=2, denoise_steps=1)


@pytest.fixture
def make_pipe(make_model: Make) -> Callable[..., MagiVideoPipeline]:
    def make(training: dict[str, Any] | None = None, **changes: Any) -> MagiVideoPipeline:
        codec = PixelCodec()
        codec.set_statistics([0.0] * 3, [0.5] * 3)
        conditions = {"noise_level": {"size": 6}, "action": {"size": 1, "kind": "vector", "drop": 0.1}}
        settings = {"depth": 1, "conditions": conditions, "max_interval": 2} | changes
        return MagiVideoPipeline(
            make_model(**settings), codec, changes.get("forcing", "complete"), 8, 8, action_names=["FAST"],
            sampling=Sampling(mask_steps=4, denoise_steps=5, temperature=0.9), training=training or {"seed": 3},
        )  # fmt: skip

    return make


def test_the_folder_is_a_model_that_generates_in_few_steps(
    make_pipe: Callable[..., MagiVideoPipeline], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pipe().save_pretrained(tmp_path / "teacher")
    flags = ["--tokens", "600", "--draws", "2", "--steps", "30", "--batch-size", "64", "--clips", "2"]
    command = ["distill", str(tmp_path / "teacher"), "--data", str(videos), "--out", str(tmp_path / "few"), *flags]
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["denoise_steps"] == 5 and record["head"] == "epsilon" and record["data"]["videos"] == 6
    teacher, few = (MagiVideoPipeline.from_pretrained(tmp_path / name) for name in ("teacher", "few"))
    assert few.config.training == {"seed": 3, "distilled": record}
    assert few.own_sampling == Sampling(mask_steps=4, denoise_steps=2), "what was meant for the old head is gone"
    assert few.config.action_names == ["FAST"]
    for name, weight in few.transformer.named_parameters():
        if not name.startswith("diffusion_head."):
            assert torch.equal(weight, teacher.transformer.get_parameter(name)), "the transformer is frozen"
    few.set_progress_bar_config(disable=True)
    frames = few(num_frames=4, generator=[torch.Generator().manual_seed(0)]).frames
    assert frames.shape == (1, 4, 8, 8, 3) and np.isfinite(frames).all()
    assert main(command) == 1 and "there is a model already" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "few")]) == 0
    said = capsys.readouterr().out
    assert "distributional, 2 blocks of 32" in said and "model teacher, head epsilon, sampler ancestral" in said


def test_how_long_it_takes_is_said_after_the_first_batch(
    make_pipe: Callable[..., MagiVideoPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, text: str) -> None:
            self.lines.append(text)

        def stage(self, name: str, total: int | None = None) -> None:
            self.lines.append(name)

        def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
            self.lines.append("advance")

    monkeypatch.setattr(distillation_time, "seconds_of", lambda work: float(work().isfinite().all()))
    heard = Heard()
    distill(make_pipe(), None, QUICK, heard)
    found = [index for index, line in enumerate(heard.lines) if line.startswith("about ")]
    assert len(found) == 1 and heard.lines[: found[0]] == ["head inputs"], "before the first batch is shown as done"
    # 600 tokens, two samples of each, 512 of them timed; 40 steps
    assert re.search(r"in all: \S+ \w+ for the conditions, 2 s for samples, 40 s for training$", heard.lines[found[0]])
    assert distillation_time.inputs_seconds(10, [8, 2, 1, 8]) == pytest.approx(10 * 19 / 8)
    pipe = make_pipe()
    pipe.register_to_config(sampling={"mask_steps": 8, "denoise_steps": 3})
    assert distillation_time.batch_costs(pipe, 2, False, False) == [1, 1]
    assert distillation_time.batch_costs(pipe, 4, False, True) == [9, 3, 2, 9], "exact, balanced and realtime in turn"
    assert distillation_time.batch_costs(pipe, 4, True, True) == [17, 11, 10, 17], "clips are made by all mask steps"


def test_the_head_learns_the_distribution_of_the_samples(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    """Of eight conditions, each with two modes: the mean of both is far from any sample."""
    teacher = make_pipe().transformer.diffusion_head
    assert isinstance(teacher, DiffusionHead)
    kind_M = torch.randint(8, (500,))
    z_MW, centre_MD = torch.randn(8, 32)[kind_M], torch.randn(8, 12)[kind_M]
    side_JM1 = torch.randint(0, 2, (4, 500, 1)) * 2 - 1
    samples_JMD = side_JM1 * centre_MD + 0.2 * torch.randn(4, 500, 12)
    options = DistillOptions(steps=250, batch_size=256, denoise_steps=2)
    untrained = DistributionalHead(12, 32, 32, 2)
    untrained.reset_parameters()
    student, losses = train_head(teacher, z_MW[64:], samples_JMD[:, 64:], options, Silent())
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:5])
    before, after = (distance_to_samples(one, z_MW[:64], samples_JMD[:, :64], options) for one in (untrained, student))
    same = distance_to_samples(student, z_MW[:64], samples_of(student, z_MW[:64]), options)
    assert before > 0.1 and after < before / 3
    assert abs(same) < 0.02, "of one distribution"


def samples_of(head: DistributionalHead, z_MW: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return head.sample(z_MW[None], SampleNoise.from_seeds(list(range(50, 58))), 2)


@pytest.mark.parametrize("changes", [{"head": "flow"}, {"forcing": "videomar"}, {"forcing": "joint"}])
def test_without_data_the_model_makes_its_own_clips(
    make_pipe: Callable[..., MagiVideoPipeline], changes: dict[str, Any]
) -> None:
    forcing = changes.get("forcing", "complete")
    pipe = make_pipe(**changes)
    pipe.register_to_config(sampling={"mask_steps": 2, "denoise_steps": 3})
    made = distill(pipe, None, QUICK)
    assert made.config.forcing == forcing and isinstance(made.transformer.diffusion_head, DistributionalHead)
    distilled = made.config.training["distilled"]
    assert distilled["tokens"] == 600 and distilled["kernels"] == {"fast_float32": False}
    assert isinstance(pipe.transformer.diffusion_head, DiffusionHead), "the model that was given keeps its head"


def test_listening_changes_no_token_and_puts_the_head_back(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    pipe, paradigm = make_pipe(), make_paradigm("complete")
    head, noise = pipe.transformer.diffusion_head, SampleNoise.from_seeds([7])
    clip = Clip(torch.randn(1, 5, 16, 12), torch.tensor([2]), {"action": torch.ones(1, 5, 1)})
    with listening(pipe) as listener:
        tokens_BTND = roll_out(pipe, paradigm, clip, 1, pipe.resolve(), [7])
    assert pipe.transformer.diffusion_head is head
    assert sum(map(len, listener.kept)) == 4 * 16, "each token was asked for once"
    rollout = Rollout(pipe.transformer, paradigm, noise, pipe.resolve(), clip.interval_B, 5)
    rollout.observe(clip.tokens_BTND[:, 0], {"action": torch.ones(1, 1)})
    expected = torch.stack([rollout.predict({"action": torch.ones(1, 1)}) for _ in range(4)], dim=1)
    assert torch.allclose(tokens_BTND[:, 1:], expected, atol=1e-4 * float(expected.abs().max()))


def test_what_has_no_head_to_distil_is_refused(
    make_pipe: Callable[..., MagiVideoPipeline], make_model: Make, tmp_path: Path
) -> None:
    codec = make_vq("vq")
    model = make_model(**coded_architecture(codec))
    codes = MagiVideoPipeline(model, codec, height=16, width=16, action_names=["A", "B", "C"])
    with pytest.raises(MagiError, match=r"takes the place of a diffusion head .*this model's is cat"):
        distill(codes, None, QUICK)
    with pytest.raises(MagiError, match="no such folder"):
        open_data(tmp_path / "nowhere")
    few = distill(make_pipe(), None, QUICK)
    with pytest.raises(MagiError, match="has a few-step head already"):
        distill(few, None, QUICK)
    few.save_pretrained(tmp_path / "few")
    with pytest.raises(MagiError, match="there is a model already"):
        distill_model(tmp_path / "few", tmp_path / "few", None, QUICK)


def test_a_linear_head_of_a_paradigm_is_refused(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    pipe = make_pipe(forcing="diffusion-v")
    with pytest.raises(MagiError, match="this model's is velocity"):
        distill(pipe, None, QUICK)


def levels_shown(pipe: MagiVideoPipeline) -> set[int]:
    """The noise levels under which the model is asked, by its training's own cure and without data."""
    model, paradigm = pipe.transformer, teaching_paradigm(pipe)
    clip = Clip(torch.randn(20, 5, 16, 12), torch.ones(20, dtype=torch.long), {"action": torch.zeros(20, 5, 1)})
    paradigm.total_loss(model, clip, torch.Generator().manual_seed(0))
    past_BTND, level_BT = paradigm.exposure.show(model, clip, torch.Generator().manual_seed(0))
    assert torch.equal(past_BTND, clip.tokens_BTND) == (not level_BT.any()), "noise where a level says so"
    return set(level_BT.flatten().tolist())


@pytest.mark.parametrize("cure", CURES)
def test_a_model_of_any_cure_is_asked_as_in_its_training(
    cure: str, make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    """A model has as many noise levels as its cure injects, and no others can be looked up."""
    options = {"resampling": {"plain_steps": "0"}}.get(cure, {})
    exposure = {"exposure": cure, "exposure_options": options, "noise_levels": 5}
    injects = CURES[cure].injects
    conditions = {"noise_level": {"size": 6 if injects else 1}, "action": {"size": 1, "kind": "vector", "drop": 0.1}}
    pipe = make_pipe({"preset": {"exposure": exposure}}, conditions=conditions, canvas=CURES[cure].canvas)
    assert levels_shown(pipe) == (set(range(6)) if injects else {0})
    if CURES[cure].canvas:
        with pytest.raises(MagiError, match="paints a canvas"):
            distill(pipe, None, QUICK)
        return
    quick = DistillOptions(tokens=100, draws=2, steps=2, clips=1, denoise_steps=1)
    assert np.isfinite(distill(pipe, None, quick).config.training["distilled"]["energy_distance"])


@pytest.mark.parametrize("size", [1, 3])
def test_without_a_record_the_model_says_how_many_noise_levels_it_has(
    size: int, make_pipe: Callable[..., MagiVideoPipeline]
) -> None:
    pipe = make_pipe(conditions={"noise_level": {"size": size}, "action": {"size": 1, "kind": "vector", "drop": 0.1}})
    assert levels_shown(pipe) == set(range(size))


def test_the_seed_says_what_the_rollouts_are(make_pipe: Callable[..., MagiVideoPipeline], videos: Path) -> None:
    """The same clips are continued: what differs is what the rollouts draw."""
    pipe = make_pipe()
    seen: list[list[int]] = []
    from_seeds = SampleNoise.from_seeds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SampleNoise, "from_seeds", lambda seeds, *rest: (seen.append(seeds), from_seeds(seeds, *rest))[1])
        for seed in (0, 1, 0):
            options = DistillOptions(tokens=100, clips=2, rollouts=1.0, seed=seed)
            collect_inputs(pipe, teaching_paradigm(pipe), open_data(videos), options, Silent())
    assert seen[0] == seen[2] and len({*seen[0], *seen[1]}) == 4


def test_the_losses_are_read_now_and_then_and_a_divergence_is_found(
    make_pipe: Callable[..., MagiVideoPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, reads = make_pipe().transformer.diffusion_head, []
    assert isinstance(teacher, DiffusionHead)
    for name in ("__float__", "__bool__", "tolist"):  # what would wait for a device
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda one, read=read, name=name: (reads.append(name), read(one))[1])
    z_MW, samples_JMD = torch.randn(40, 32), torch.randn(2, 40, 12)
    _, losses = train_head(teacher, z_MW, samples_JMD, DistillOptions(steps=130, batch_size=8), Silent())
    assert len(losses) == 130 and reads == ["tolist"] * 2, "after 100 steps, and at the end"
    samples_JMD[:] = torch.inf
    with pytest.raises(MagiError, match="diverged at step 1; give a lower --learning-rate"):
        train_head(teacher, z_MW, samples_JMD, DistillOptions(steps=3, batch_size=8), Silent())


def test_many_draws_are_compared_in_little_memory(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    student, read = DistributionalHead(12, 32, 32, 2), []
    student.reset_parameters()
    sample = student.sample
    student.sample = lambda z, noise, *rest: (read.append(len(noise.generators)), sample(z, noise, *rest))[1]  # type: ignore[method-assign, assignment]
    z_MW, samples_JMD = torch.randn(4, 32), torch.randn(1024, 4, 12)
    options = DistillOptions(draws=1024)
    distance = distance_to_samples(student, z_MW, samples_JMD, options)
    assert read == [MOST_COMPARED] and distance == distance_to_samples(student, z_MW, samples_JMD[:16], options)


def test_the_model_is_saved_before_it_is_compared(
    make_pipe: Callable[..., MagiVideoPipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a model in the folder where the command is run has that folder's name."""
    make_pipe().save_pretrained(tmp_path / "teacher")
    monkeypatch.chdir(tmp_path / "teacher")
    monkeypatch.setattr(
        "magi_video.training.distillation.distance_to_samples", lambda *_: (_ for _ in ()).throw(MemoryError)
    )
    with pytest.raises(MemoryError):
        distill_model(".", tmp_path / "few", None, DistillOptions(tokens=100, draws=2, steps=2, clips=1))
    few = MagiVideoPipeline.from_pretrained(tmp_path / "few")
    assert isinstance(few.transformer.diffusion_head, DistributionalHead)
    assert few.config.training["distilled"]["model"] == "teacher"
    assert main(["info", str(tmp_path / "few")]) == 0, "also without a distance"


def test_too_few_tokens_to_keep_some_for_the_comparison_are_refused() -> None:
    with pytest.raises(MagiError, match="tokens"):
        DistillOptions(tokens=15)
