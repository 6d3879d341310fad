"""The pipeline: modes of generation, seeds, output types, and everything that must be refused."""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from magi_video.errors import MagiError
from magi_video.fast.beside import work_beside
from magi_video.models.layers import Block
from magi_video.models.random import SampleNoise
from magi_video.paradigms.complete import CompleteTeacherForcing
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import SPEEDS, Sampling
from tests.codecs.codec_examples import Causal4x
from tests.pipeline.pipeline_examples import STEPS, picture, seeded


def test_first_frame_k_frames_and_none(pipe: MagiVideoPipeline) -> None:
    one = pipe(image=picture(), num_frames=4, generator=seeded(0), **STEPS).frames
    assert one.shape == (1, 4, 8, 8, 3) and one.dtype == np.float32 and 0 <= one.min() <= one.max() <= 1
    assert np.abs(one[0, 0] * 255 - picture()).max() < 1, "the given frame comes first, as it was"
    several = pipe(video=np.stack([picture(s) for s in range(3)]), num_frames=5, generator=seeded(0), **STEPS).frames
    assert several.shape == (1, 5, 8, 8, 3) and np.abs(several[0, 2] * 255 - picture(2)).max() < 1
    none = pipe(num_frames=3, num_videos=2, generator=seeded(0), **STEPS).frames
    assert none.shape == (2, 3, 8, 8, 3) and np.abs(none[0] - none[1]).max() > 0.05


def test_stream_gives_the_same_frames_one_by_one(pipe: MagiVideoPipeline) -> None:
    whole = pipe(image=picture(), num_frames=4, generator=seeded(1), **STEPS).frames
    frames = list(pipe.stream(image=picture(), num_frames=4, generator=seeded(1), **STEPS))
    assert len(frames) == 4 and np.allclose(np.stack(frames, axis=1), whole, atol=1e-6)


@pytest.mark.parametrize("position", ["interpolate", "rope"])
def test_a_video_goes_on_from_any_of_its_latent_frames(
    make_pipeline: Callable[..., MagiVideoPipeline], position: str
) -> None:
    pipe, keys = make_pipeline(temporal_position=position), [one_key(one) for one in (0, 0, 1, 2, 1, 0, 2)]
    usual: dict[str, Any] = {"num_frames": 7, "output_type": "latent", "actions": keys, **STEPS}
    drawing, states, whole = seeded(1), [], []
    for latents_BCHW in pipe.stream(image=picture(), generator=[drawing], **usual):
        states.append(drawing.get_state())
        whole.append(latents_BCHW)
    for use_cache in (None, False):
        drawing.set_state(states[3])
        past = torch.stack(whole[:4], dim=1)
        again = list(pipe.stream(latents=past, generator=[drawing], use_cache=use_cache, **usual))
        assert torch.equal(torch.stack(again[:4]), torch.stack(whole[:4]))
        assert torch.allclose(torch.stack(again), torch.stack(whole), atol=1e-5), "the same draws, the same video"
    drawing.set_state(states[3])
    other = list(pipe.stream(latents=past, generator=[drawing], **usual | {"actions": keys[:4] + keys[:3]}))
    assert not torch.allclose(other[4], whole[4], atol=1e-3), "other actions lead elsewhere"
    for wrong in (past[:, :0], past[0], past[..., :1], whole):
        with pytest.raises(MagiError, match=r"latents must be \[videos, latent frames"):
            pipe.stream(latents=wrong, **usual)
    with pytest.raises(MagiError, match="not both"):
        pipe.stream(latents=past, image=picture(), **usual)


def one_key(held: int) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[held]


def test_a_speed_knows_how_many_tokens_the_model_has(pipe: MagiVideoPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = pipe.transformer.num_tokens
    for most, refresh in ((tokens, SPEEDS["fast"].refresh), (tokens - 1, 1)):
        monkeypatch.setattr("magi_video.sampling.sampling.MOST_TOKENS_REUSED", most)
        assert pipe.resolve("fast", mask_steps=3).refresh == refresh
        noise, interval = SampleNoise([seeded(0)]), torch.ones(1)
        rollout = Rollout(pipe.transformer, CompleteTeacherForcing(), noise, Sampling("fast", 3), interval, 4)
        assert rollout.sampling.refresh == refresh, "without a pipeline too"


def test_a_speed_setting_is_the_steps_that_it_stands_for(pipe: MagiVideoPipeline) -> None:
    own = pipe.own_sampling.complete().mask_steps, pipe.own_sampling.complete().denoise_steps
    assert (pipe.resolve().mask_steps, pipe.resolve().denoise_steps) == own
    fast = pipe.resolve("fast", mask_steps=3)
    steps = Sampling(mask_steps=3, denoise_steps=fast.denoise_steps, refresh=fast.refresh)
    ways: tuple[dict[str, Any], ...] = (
        {"sampling": "fast", "mask_steps": 3},
        {"sampling": Sampling("fast", mask_steps=3)},
        {"setting": "fast", "num_mask_steps": 3},  # the names of earlier versions
        {"sampling": steps},
    )
    made = [pipe(image=picture(), num_frames=2, generator=seeded(1), **way).frames for way in ways]
    assert all(np.array_equal(made[0], other) for other in made[1:])
    with pytest.raises(MagiError, match="speed must be one of exact, balanced, fast, realtime, got 'warp'"):
        pipe.stream(image=picture(), sampling="warp")
    with pytest.raises(MagiError, match=r"unknown setting 'steps'; known are .*denoise_steps"):
        pipe(image=picture(), steps=3)


def test_a_thousand_frames_cost_no_more_memory_than_the_window(make_pipeline: Callable[..., MagiVideoPipeline]) -> None:
    pipe = make_pipeline(temporal_position="rope")
    held = []
    model = pipe.transformer
    make_cache = model.make_cache
    model.make_cache = lambda *sizes: held.append(make_cache(*sizes)) or held[-1]  # type: ignore[func-returns-value]
    steps = {"num_mask_steps": 1, "num_denoise_steps": 1}
    stream = pipe.stream(image=picture(), num_frames=1000, generator=seeded(0), **steps)
    assert sum(bool(np.isfinite(frame).all()) for frame in stream) == 1000
    assert held[0].nbytes == make_cache(1, 6).nbytes, "5 trained frames and the one to come"


def no_compiler(*_: object) -> Callable[..., object]:
    raise RuntimeError("no C++ compiler\nhere")


def test_compiling_that_fails_leaves_generation_as_it_was(
    pipe: MagiVideoPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pipe(image=picture(), num_frames=3, generator=seeded(1), **STEPS).frames
    monkeypatch.setattr(Block, "compile", lambda block: torch.nn.Module.compile(block, backend=no_compiler))
    problem = pipe.compile(image=picture(), **STEPS)
    assert problem is not None and "no C++ compiler" in problem and "\n" not in problem
    assert np.array_equal(pipe(image=picture(), num_frames=3, generator=seeded(1), **STEPS).frames, before)


def test_stream_without_end_where_positions_are_relative(make_pipeline: Callable[..., MagiVideoPipeline]) -> None:
    stream = make_pipeline(temporal_position="rope").stream(image=picture(), generator=seeded(0), **STEPS)
    assert len(list(itertools.islice(stream, 12))) == 12
    assert len(list(make_pipeline().stream(image=picture(), **STEPS))) == 5, "else the length of a training clip"


def test_a_video_depends_on_its_own_generator_alone(pipe: MagiVideoPipeline) -> None:
    four = pipe(image=picture(), num_frames=3, num_videos=4, generator=[seeded(s) for s in range(4)], **STEPS).frames
    alone = pipe(image=picture(), num_frames=3, generator=[seeded(2)], **STEPS).frames
    assert np.allclose(four[2], alone[0], atol=1e-4)
    single = pipe(image=picture(), num_frames=3, num_videos=2, generator=seeded(5), **STEPS).frames
    first = pipe(image=picture(), num_frames=3, num_videos=1, generator=seeded(5), **STEPS).frames
    assert np.allclose(single[0], first[0], atol=1e-4)
    again = pipe(image=picture(), num_frames=3, num_videos=2, generator=seeded(5), **STEPS).frames
    assert np.array_equal(single, again)


def test_cache_makes_no_difference(pipe: MagiVideoPipeline) -> None:
    cached, uncached = (
        pipe(image=picture(), num_frames=7, generator=seeded(3), use_cache=use, **STEPS).frames for use in (True, False)
    )
    assert np.allclose(cached, uncached, atol=1e-4)


def test_actions_by_array_by_name_and_by_generator(pipe: MagiVideoPipeline) -> None:
    fire = pipe.action("FIRE", "LEFT")
    assert fire.tolist() == [1, 0, 1]
    rows = [None, fire, fire, None]
    listed = pipe(image=picture(), num_frames=4, actions=rows, generator=seeded(0), **STEPS).frames
    generated = pipe(image=picture(), num_frames=4, actions=iter(rows), generator=seeded(0), **STEPS).frames
    without = pipe(image=picture(), num_frames=4, generator=seeded(0), **STEPS).frames
    assert np.array_equal(listed, generated) and not np.allclose(listed, without, atol=1e-3)


def test_a_list_of_actions_has_one_for_every_frame(pipe: MagiVideoPipeline) -> None:
    left = pipe.action("LEFT")
    for wrong in ([left] * 3, (left,) * 3, np.stack([left] * 3), [], [left] * 5, np.stack([left] * 5)):
        for ask in (pipe, pipe.stream):
            with pytest.raises(MagiError, match=rf"an entry for each of 4 frames.*got {len(wrong)}$"):
                ask(image=picture(), num_frames=4, actions=wrong, **STEPS)
    known = pipe(image=picture(), num_frames=4, actions=[left, left, None, None], generator=seeded(0), **STEPS).frames
    ended = pipe(image=picture(), num_frames=4, actions=iter([left] * 2), generator=seeded(0), **STEPS).frames
    endless = itertools.chain([left, left, None, None], itertools.repeat(left))
    more = pipe(image=picture(), num_frames=4, actions=endless, generator=seeded(0), **STEPS).frames
    assert np.array_equal(known, ended) and np.array_equal(known, more)


@pytest.fixture
def compressing(make_pipeline: Callable[..., MagiVideoPipeline]) -> MagiVideoPipeline:
    """A pipeline whose latent frames hold four frames each, but for the first."""
    pipe = make_pipeline()
    pipe.register_modules(codec=Causal4x())
    return pipe


def test_a_codec_that_compresses_time_gives_the_frames_that_were_asked_for(compressing: MagiVideoPipeline) -> None:
    made = compressing(image=picture(), num_frames=17, generator=seeded(0), **STEPS).frames
    assert made.shape == (1, 17, 8, 8, 3) and np.array_equal(made[0, 1], made[0, 4])
    for frames in (1, 4, 5):
        fewer = compressing(image=picture(), num_frames=frames, generator=seeded(0), **STEPS).frames
        assert fewer.shape == (1, frames, 8, 8, 3), "what is left of the last latent frame is dropped"
    given = np.stack([picture(s) for s in range(5)])
    continued = compressing(video=given, num_frames=9, generator=seeded(0), **STEPS).frames
    assert continued.shape[1] == 9 and np.abs(continued[0, 4] * 255 - given[4]).max() < 1
    stream = compressing.stream(video=given, num_frames=9, generator=seeded(0), **STEPS)
    assert np.array_equal(np.stack(list(stream), axis=1), continued)
    assert len(list(compressing.stream(image=picture(), **STEPS))) == 17, "the length of a training clip"
    with pytest.raises(MagiError, match=r"4 given frames .* compresses time by 4 and takes 1, 5, 9, …"):
        compressing.stream(video=given[:4], num_frames=9, **STEPS)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("codec", ["image", "compressing", "waiting for the end"])
def test_frames_decoded_beside_are_the_same(
    make_pipeline: Callable[..., MagiVideoPipeline], monkeypatch: pytest.MonkeyPatch, codec: str, ahead: int
) -> None:
    pipe = make_pipeline()
    if codec != "image":
        pipe.register_modules(codec=Causal4x())
        monkeypatch.setattr(Causal4x, "streams", codec == "compressing")
    kwargs = {"image": picture(), "num_frames": 7, "num_videos": 2, **STEPS}
    frames: list[np.ndarray] = []
    made = pipe.stream(generator=seeded(0), output_type="latent", **kwargs)
    work_beside(lambda latents: frames.extend(pipe.decode_stream(latents, 7)), made, ahead)
    assert np.array_equal(np.stack(frames), np.stack(list(pipe.stream(generator=seeded(0), **kwargs))))
    latents = pipe(generator=seeded(0), output_type="latent", **kwargs).frames
    assert latents.shape == (2, 7 if codec == "image" else 3, *pipe.codec.encode(torch.zeros(1, 1, 3, 8, 8)).shape[2:])
    assert np.array_equal(np.stack(list(pipe.decode_stream(iter(latents.unbind(1)), 7))), np.stack(frames))
    with pytest.raises(MagiError, match="choose np, pt or pil"):
        pipe.decode_stream(iter(()), output_type="latent")


def test_no_end_needs_a_codec_that_does_not_wait_for_it(
    make_pipeline: Callable[..., MagiVideoPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_pipeline(temporal_position="rope")
    pipe.register_modules(codec=Causal4x())
    assert len(list(itertools.islice(pipe.stream(image=picture(), **STEPS), 30))) == 30
    monkeypatch.setattr(Causal4x, "streams", False)
    with pytest.raises(MagiError, match="say how many frames"):
        pipe.stream(image=picture(), **STEPS)


def test_a_latent_frame_is_told_the_mean_of_the_known_actions_of_its_frames(compressing: MagiVideoPipeline) -> None:
    left, fire = compressing.action("LEFT"), compressing.action("FIRE")
    kwargs = {"image": picture(), "num_frames": 7, **STEPS}

    def frames(actions: object) -> np.ndarray:
        return compressing(actions=actions, generator=seeded(0), **kwargs).frames

    mixed = frames([None, left, left, fire, fire, left, left])
    mean = (left + fire) / 2
    assert np.allclose(mixed, frames([left, mean, None, None, mean, None, left]), atol=1e-5)
    assert not np.allclose(mixed, frames([None, *[left] * 6]), atol=1e-3)
    assert np.array_equal(frames([None] * 7), compressing(generator=seeded(0), **kwargs).frames)


def test_actions_are_taken_when_their_latent_frame_is_begun(compressing: MagiVideoPipeline) -> None:
    taken = []

    def act() -> Iterator[np.ndarray]:
        for number in itertools.count():
            taken.append(number)
            yield compressing.action("LEFT")

    stream = compressing.stream(image=picture(), num_frames=9, actions=act(), **STEPS)
    next(stream)
    assert len(taken) == 1
    next(stream)
    assert len(taken) == 5


def test_output_types(pipe: MagiVideoPipeline) -> None:
    kwargs = {"image": picture(), "num_frames": 2, **STEPS}
    array = pipe(generator=seeded(0), **kwargs).frames
    tensor = pipe(generator=seeded(0), output_type="pt", **kwargs).frames
    pictures = pipe(generator=seeded(0), output_type="pil", **kwargs).frames
    assert np.allclose(tensor.movedim(2, -1).numpy(), array)
    assert isinstance(pictures[0][1], Image.Image) and pictures[0][1].size == (8, 8)


def test_pictures_of_another_size_are_cropped_and_resized(pipe: MagiVideoPipeline) -> None:
    frames = pipe(image=Image.fromarray(picture(0, 30, 50)), num_frames=2, **STEPS).frames
    assert frames.shape == (1, 2, 8, 8, 3)


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"interval": 0}, "1…25"),
    ({"interval": 26}, "1…25"),
    ({"num_frames": 0}, "num_frames"),
    ({"image": picture(), "video": picture()[None]}, "not both"),
    ({"video": picture()[None].astype(float)}, r"video: floating-point pixels must lie in \[0, 1\], got 0 to 2"),
    ({"video": np.zeros((0, 8, 8, 3), np.uint8)}, r"video must be an array .*; got \[0, 8, 8, 3\]"),
    ({"num_videos": 0}, "num_videos"),
    ({"label": 1}, "no label"),
    ({"actions": [None, np.zeros(7)]}, "vector of 3"),
    ({"num_denoise_steps": 1001}, "denoise_steps must lie in 1…1,000"),
    ({"num_mask_steps": -1}, "mask_steps must lie in 1…"),
    ({"sampler": "euler"}, "unknown sampler"),
    ({"first_step": 1000}, "must lie in 0…999, got 1000"),
    ({"first_step": 1}, "need a first step of at least"),
    ({"first_step": 970.5}, "first_step must be a whole number in 0…999, got 970.5"),
    ({"num_denoise_steps": 2.5}, "denoise_steps must be a whole number in 1…1,000, got 2.5"),
    ({"temperature": -1}, "temperature"),
    ({"output_type": "gif"}, "output_type"),
    ({"generator": [torch.Generator(), torch.Generator()]}, "2 generators"),
    ({"generator": 0}, "must be a torch.Generator"),
    ({"num_frames": 2.5}, "num_frames must be a whole number, got 2.5"),
    ({"num_videos": "2"}, "num_videos must be a whole number, got '2'"),
    ({"interval": 1.5}, "interval must be a whole number"),
    ({"image": "first.png"}, r"expected PIL pictures, arrays or tensors \(read_image reads a file\), got str"),
    ({"image": []}, "empty list"),
    ({"image": np.zeros((0, 8, 3), np.uint8)}, r"image must be an array .*; got \[0, 8, 3\]"),
    ({"actions": ["LEFT", "LEFT", "LEFT"]}, "vector of 3 .*, as of pipe.action; got 'LEFT'"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(pipe: MagiVideoPipeline, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(MagiError, match=message) as error:
        pipe(**{"num_frames": 3, **STEPS, **kwargs})
    assert "\n" not in str(error.value)


def test_more_given_frames_than_asked_for(pipe: MagiVideoPipeline) -> None:
    with pytest.raises(MagiError, match="num_frames must be at least 4, as many as are given, got 3"):
        pipe(video=np.stack([picture()] * 4), num_frames=3, **STEPS)


def test_an_unknown_engine_is_refused(pipe: MagiVideoPipeline) -> None:
    with pytest.raises(MagiError, match="engine must be one of auto, torch, onnx, cudagraphs, got 'tensorrt'"):
        pipe.compile(engine="tensorrt", num_frames=2)  # type: ignore[arg-type]


def test_an_engine_asked_for_by_name_that_cannot_be_had_is_refused(
    pipe: MagiVideoPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(MagiError, match="ONNX Runtime is not installed: pip install"):
        pipe.compile(engine="onnx", num_frames=2, **STEPS)
    assert pipe.compile(engine="auto", num_frames=2, **STEPS) == "graphs cannot be made here"
