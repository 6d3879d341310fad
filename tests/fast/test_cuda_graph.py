"""CUDA graphs without a GPU: a recorder stands in for the capture (`graph_recorder.py`)."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from magi_video.codecs.autoencoder_tiny import AutoencoderTiny
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.errors import MagiError
from magi_video.fast import cuda_graph, engine_choice
from magi_video.fast.cuda_capture import Capture
from magi_video.fast.cuda_graph import CapturedPast, CudaGraphEngine
from magi_video.fast.engine import Engine
from magi_video.fast.engine_choice import choose_engine
from magi_video.fast.engine_name import check_engine
from magi_video.fast.graph_engine import step_forms
from magi_video.fast.head import FastHead
from magi_video.fast.job import Job
from magi_video.models.epsilon import EpsilonHead
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling
from tests.fast.graph_recorder import Recorder, aten, make_engine
from tests.fast.jobs import CASES, FRAMES, Make, begin, make_job, roll


def check(job: Job, engine: CudaGraphEngine, given: int = 2, tolerance: float = 1e-5) -> None:
    plain, by_graph = roll(job, Engine(), given), roll(job, engine, given)
    assert plain.std() > 0.1
    assert (by_graph - plain).abs().max() <= tolerance * plain.abs().max()
    assert not [one.problem for one in engine._steps.graphs.values() if one.problem]


@pytest.mark.parametrize("name", CASES)
def test_replays_give_pytorchs_frames(make_model: Make, name: str) -> None:
    job = make_job(make_model, **CASES[name])
    engine, recorder = make_engine()
    assert engine.prepare(job, build=True) is None
    made = recorder.made
    assert made == len(step_forms(job)) > 0
    before = recorder.replays
    check(job, engine)
    assert recorder.made == made  # whatever frame, nothing is captured again
    steps = job.sampling.mask_steps * (FRAMES - 2)
    assert recorder.replays - before == steps
    check(job, engine, given=0)  # the first frame of a video from nothing is PyTorch's


def predict_meanwhile(one: Rollout, other: Rollout) -> Tensor:
    """A frame of each: the other's is made after the first mask step of the one's."""
    sample, of_other = one.past.sample, []

    def first_sample(*args: Any, **options: Any) -> Tensor:
        made = sample(*args, **options)
        if not of_other:
            of_other.append(other.predict({"action": torch.ones(1, 3)}))
        return made

    one.past.sample = first_sample  # type: ignore[method-assign]
    return torch.stack([one.predict({"action": torch.zeros(1, 3)}), *of_other])


def test_mask_steps_in_turn_keep_their_own_past(make_model: Make) -> None:
    """Of rollouts that begin from given frames: the first step of a frame is a graph's, which later ones reuse."""
    job = make_job(make_model, sampling=Sampling(mask_steps=3, denoise_steps=2, refresh=4))
    engine, _ = make_engine()
    assert engine.prepare(job, build=True) is None
    frames = []
    for one in (Engine(), engine):
        rollouts = [begin(job, one) for _ in range(2)]
        generator = torch.Generator().manual_seed(0)
        for number, rollout in enumerate(rollouts):
            shape = (1, job.model.num_tokens, job.model.token_dim)
            rollout.observe(torch.randn(shape, generator=generator), {"action": torch.full((1, 3), float(number))})
        frames.append(predict_meanwhile(*rollouts))
    assert torch.allclose(frames[1], frames[0], rtol=0, atol=1e-5 * frames[0].abs().max().item())


def test_rollouts_in_turn_keep_their_own_past(make_model: Make) -> None:
    """Of one kind, over the same memory: two games at once, frame by frame, one of them given up in the middle."""
    job = make_job(make_model, sampling=Sampling(mask_steps=3, denoise_steps=2, refresh=4))
    engine, _ = make_engine()
    videos = []
    for one in (Engine(), engine):
        rollouts = [begin(job, one) for _ in range(3)]
        frames: list[Tensor] = []
        for t in range(FRAMES):
            for number, rollout in enumerate(rollouts):
                if number < 2 or t < 4:
                    frames.append(rollout.predict({"action": torch.full((1, 3), 0.3 * number + 0.1 * t)}))
        videos.append(torch.stack(frames))
    assert torch.allclose(videos[1], videos[0], rtol=0, atol=1e-5 * videos[0].abs().max().item())


def test_kinds_in_turn_do_not_disturb_each_other(make_model: Make) -> None:
    model = make_model(depth=1, head_depth=1, temporal_position="interpolate")
    engine, recorder = make_engine()
    jobs = [
        make_job(lambda **_: model, batch, Sampling(mask_steps=2, denoise_steps=2), temporal_position="interpolate")
        for batch in (1, 2)
    ]
    for job in (*jobs, *jobs):
        check(job, engine)
    assert recorder.made == 4
    long = Job(jobs[0].paradigm, model, None, jobs[0].sampling, 1, 40)  # more slots
    check(long, engine)
    assert recorder.made == 6


@pytest.mark.parametrize("precision", ["weights", "autocast"])
def test_bfloat16(make_model: Make, precision: str) -> None:
    """As a GPU's default has it: a half-precision cache, or autocast's casts, which must not outlive their block."""
    job = make_job(make_model, sampling=Sampling(mask_steps=3, denoise_steps=2, refresh=2))
    engine, recorder = make_engine()
    if precision == "weights":
        job.model.to(torch.bfloat16)
        check(job, engine, tolerance=3e-2)
        return
    check(job, engine)
    in_float32 = recorder.made
    with torch.autocast("cpu", torch.bfloat16):
        check(job, engine, tolerance=3e-2)
    assert recorder.made == 2 * in_float32  # graphs of its own
    with torch.no_grad():
        for weight in job.model.parameters():
            weight.mul_(1.05)
    with torch.autocast("cpu", torch.bfloat16):
        check(job, engine, tolerance=3e-2)
    assert recorder.made == 2 * in_float32


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_any_mode_of_gradients(make_model: Make, mode: Callable[[], Any]) -> None:
    """Fixed memory is written in the next mode, whatever the one before was."""
    job = make_job(make_model, sampling=Sampling(mask_steps=3, denoise_steps=2, refresh=4))
    engine, recorder = make_engine()
    with mode():
        first = roll(job, engine)
    for other in (torch.no_grad, torch.inference_mode):
        with other():
            assert torch.allclose(roll(job, engine), first, atol=1e-5 * first.abs().max().item())
    assert recorder.made == 2


def test_weights_are_seen_where_they_are(make_model: Make) -> None:
    job = make_job(make_model)
    engine, recorder = make_engine()
    check(job, engine)
    with torch.no_grad():
        for weight in job.model.parameters():
            weight.mul_(1.01)
    check(job, engine)
    assert recorder.made == 1
    job.model.load_state_dict({name: 1.01 * one for name, one in job.model.state_dict().items()}, assign=True)
    check(job, engine)  # elsewhere: captured anew, and the old graphs do not keep the old weights
    assert recorder.made == 2 and len(engine._steps.graphs) == 1


def test_weights_that_are_moved_within_a_rollout(make_model: Make) -> None:
    job = make_job(make_model)
    engine, recorder = make_engine()
    rollouts = [begin(job, one) for one in (engine, Engine())]
    for scale in (1.0, 1.0, 1.3):
        weights = {name: scale * one for name, one in job.model.state_dict().items()}
        job.model.load_state_dict(weights, assign=True)
        by_graph, plain = [one.predict({"action": torch.zeros(1, 3)}) for one in rollouts]
        assert torch.allclose(by_graph, plain, rtol=0, atol=1e-5 * plain.abs().max().item())
    assert recorder.made == 2


def test_the_oldest_kinds_make_room(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "MOST_KINDS", 2)
    model = make_model(depth=1, head_depth=1, temporal_position="rope")
    engine, recorder = make_engine()
    jobs = [make_job(lambda **_: model, batch) for batch in (1, 2, 3)]
    first = begin(jobs[0], engine)
    first.predict()
    for job in jobs:
        check(job, engine)
    assert len(engine._steps.graphs) == 2 and recorder.made == 3
    first.predict()  # captured anew, over what it holds
    assert recorder.made == 4


def test_what_a_capture_forbids_is_found(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form whose work brings numbers from the host has no graph; PyTorch goes on, and says so once."""
    job = make_job(make_model)
    said: list[str] = []
    engine, recorder = make_engine(say=said.append)
    engine.prepare(job, build=False)
    monkeypatch.setattr(FastHead, "times", lambda self, *about: EpsilonHead.times(self, *about))  # made in every step
    for _ in range(2):
        assert torch.allclose(roll(job, engine), roll(job, Engine()), atol=1e-3)
    line = "engine torch: a mask step has no CUDA graph: RuntimeError: operation not permitted when stream is capturing"
    assert len(said) == 1 and said[0].startswith(line)
    assert recorder.made == recorder.replays == 0
    problem = engine.prepare(job, build=True)
    assert problem is not None and problem.startswith("a mask step has no CUDA graph")


def test_a_capture_that_fails_at_its_end_leaves_all_as_it_was(make_model: Make) -> None:
    job = make_job(make_model, sampling=Sampling(mask_steps=3, denoise_steps=2, refresh=4))
    said: list[str] = []
    engine, recorder = make_engine(say=said.append)
    recorder.failing_ends = 1
    assert torch.allclose(roll(job, engine), roll(job, Engine()), atol=1e-5)
    failed = (
        "engine torch: a mask step has no CUDA graph: RuntimeError: operation failed due to a previous error during"
    )
    assert said == [f"{failed} capture"]
    assert recorder.made == len(step_forms(job)) - 1


def test_a_graph_with_another_result_is_not_used(make_model: Make) -> None:
    job = make_job(make_model)

    class Idle(Recorder):
        """Leaves what was there before."""

        def __call__(self, work: Callable[[], object], device: torch.device) -> Callable[[], object]:
            super().__call__(work, device)
            return lambda: None

    class Elsewhere(Recorder):
        """Looks for the past in other slots."""

        def __call__(self, work: Callable[[], object], device: torch.device) -> Callable[[], object]:
            replay = super().__call__(work, device)
            (kind,) = engine._steps.graphs.values()
            cache = kind.cache
            assert cache is not None
            return lambda: (cache.length_on_device.add_(1), replay())

    reusing = make_job(make_model, sampling=Sampling(mask_steps=3, denoise_steps=2, refresh=4))

    def writes_spatial(func: Any, written: Tensor) -> bool:
        memory = [one for kind in engine._steps.graphs.values() if kind.cache for one in kind.cache.layers]
        return func in (aten.copy_, aten.index_put_) and any(
            written.data_ptr() == one.data_ptr() for layer in memory for one in layer.spatial or ()
        )

    def writes_slots(func: Any, written: Tensor) -> bool:
        return func is aten.index_copy_

    captures: list[tuple[Job, Capture]] = [
        (job, Idle()), (job, Elsewhere()), (job, Recorder(drops=writes_slots)),
        (reusing, Recorder(drops=writes_slots)), (reusing, Recorder(drops=writes_spatial)),
    ]  # fmt: skip
    for job, capture in captures:
        said: list[str] = []
        engine = CudaGraphEngine(capture=capture, say=said.append)
        assert torch.allclose(roll(job, engine), roll(job, Engine()), atol=1e-5)  # the past is PyTorch's again
        problem = engine.prepare(job, build=True)
        assert problem == "the CUDA graph of a mask step does not give PyTorch's result"
        assert said == [f"engine torch: {problem}"]


def test_what_cannot_be_captured_is_refused_if_asked_for_and_else_left_to_pytorch(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(make_model)
    with pytest.raises(MagiError, match="CUDA graphs need a GPU, and PyTorch finds none here"):
        check_engine("cudagraphs")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(MagiError, match="CUDA graphs run on a GPU, and the model is on cpu"):
        choose_engine("cudagraphs", job, None, 100)
    monkeypatch.setattr(engine_choice, "CudaGraphEngine", lambda **options: make_engine(**options)[0])
    engine, line = choose_engine("cudagraphs", job, None, 100)
    assert engine.name == "cudagraphs" and line == "engine cudagraphs, as asked"
    check(job, engine)  # type: ignore[arg-type]
    falling = Sampling(mask_steps=2, denoise_steps=4, last_denoise_steps=2).resolve(job.model.diffusion_head)
    other = Job(job.paradigm, job.model, None, falling, 1, None)
    with pytest.raises(MagiError, match="graphs have the same number of denoise steps"):
        choose_engine("cudagraphs", other, None, 100)
    said: list[str] = []
    engine, _ = make_engine(say=said.append)
    for _ in range(2):
        assert torch.equal(roll(other, engine), roll(other, Engine()))
    assert said == ["engine torch: graphs have the same number of denoise steps in every mask step"]


def test_auto_on_a_gpu_is_pytorch(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(make_model)
    monkeypatch.setattr(MagiVideoTransformer, "device", torch.device("cuda"))
    engine, line = choose_engine("auto", job, None, 1000)
    assert type(engine) is Engine
    assert line == "engine torch: on a GPU cudagraphs is used by name alone, until it has been measured there"


def test_the_decoder_is_captured_too(make_model: Make) -> None:
    vae = AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), latent_channels=3,
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    job, codec = make_job(make_model, 2), ImageVAECodec.from_module(vae)
    latents = [(1 + number) * job.latents() for number in range(4)]
    engine, recorder = make_engine()
    plain = torch.cat(list(Engine().decode_stream(codec, iter(latents))), dim=1)
    with torch.no_grad():
        by_graph = torch.cat(list(engine.decode_stream(codec, iter(latents))), dim=1)
    assert plain.shape == (2, 4, 3, 16, 16)
    assert torch.allclose(by_graph, plain, atol=1e-5)
    assert (recorder.made, recorder.replays) == (1, 1 + 4)  # the first one is the comparison
    one = torch.cat(list(engine.decode_stream(codec, iter([latents[0][:1]]))), dim=1)  # another number of videos
    assert torch.allclose(one, plain[:1, :1], atol=1e-5) and recorder.made == 2


def test_captured_pasts_are_what_a_rollout_gets(make_model: Make) -> None:
    job = make_job(make_model)
    engine, _ = make_engine()
    assert isinstance(begin(job, engine).past, CapturedPast)
    reference = engine.begin_past(job.paradigm, job.model, 1, FRAMES, job.sampling, use_cache=False)
    assert not isinstance(reference, CapturedPast)


def test_statistics_of_a_codec_are_seen(make_model: Make) -> None:
    vae = AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), latent_channels=3,
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    codec, (engine, recorder) = ImageVAECodec.from_module(vae), make_engine()
    latents = make_job(make_model).latents()
    for std in (1.0, 3.0):
        codec.set_statistics([std - 1] * 3, [std] * 3)
        by_graph, plain = [next(one.decode_stream(codec, iter([latents]))) for one in (engine, Engine())]
        assert torch.allclose(by_graph, plain, atol=1e-5)
    assert recorder.made == 2


def test_no_pass_over_the_graphs_memory_without_the_lock(make_model: Make) -> None:
    """Another thread's graphs would run over the same memory: PyTorch's own passes wait for them too."""
    job = make_job(make_model)
    engine, _ = make_engine()
    rollout = begin(job, engine)
    rollout.predict({"action": torch.zeros(1, 3)})
    tokens = torch.zeros(1, job.model.num_tokens, job.model.token_dim)
    passes: list[Callable[[], object]] = [
        lambda: rollout.observe(tokens, {"action": torch.zeros(1, 3)}),
        lambda: rollout.predict({"action": torch.zeros(1, 3)}),
    ]
    for one in passes:
        with engine._lock:
            thread = Thread(target=one)
            thread.start()
            thread.join(0.2)
            assert thread.is_alive()
        thread.join(60)
        assert not thread.is_alive()
