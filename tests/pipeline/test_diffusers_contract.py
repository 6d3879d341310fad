"""What diffusers asks of every pipeline (its PipelineTesterMixin), asked of ours; step = latent frame."""

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_video
from PIL import Image
from torch import Tensor

import magi_video
from magi_video.codecs.base import Codec
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.pixels import PixelCodec
from magi_video.errors import MagiError
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline, MagiVideoPipelineOutput
from magi_video.video.video import inspect_video
from tests.codecs.codec_examples import TINY_CONFIG, Causal4x

CALL = {"num_frames": 4, "num_mask_steps": 2, "num_denoise_steps": 3}


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def picture(seed: int = 0, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def make_pipe(make_model: Callable[..., MagiVideoTransformer]) -> Callable[..., MagiVideoPipeline]:
    def make(codec: Codec | None = None, side: int = 8, **changes: object) -> MagiVideoPipeline:
        codec = PixelCodec() if codec is None else codec
        pipe = MagiVideoPipeline(
            make_model(**changes), codec, height=side, width=side, action_names=["LEFT", "RIGHT", "UP"]
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def pipe(make_pipe: Callable[..., MagiVideoPipeline]) -> MagiVideoPipeline:
    return make_pipe()


@pytest.fixture
def with_vae(make_pipe: Callable[..., MagiVideoPipeline]) -> MagiVideoPipeline:
    codec = ImageVAECodec("AutoencoderTiny", TINY_CONFIG).eval()
    return make_pipe(codec, side=32, latent_channels=5)


def test_saved_and_loaded_it_is_the_same_pipeline(pipe: MagiVideoPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = MagiVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    before, after = (one(image=picture(), generator=seeded(), **CALL).frames for one in (pipe, loaded))
    assert np.abs(before - after).max() < 1e-5
    assert sorted(loaded.components) == ["codec", "transformer"]
    assert {k: v for k, v in loaded.config.items() if not k.startswith("_")} == {
        k: v for k, v in pipe.config.items() if not k.startswith("_")
    }


def test_a_pipeline_from_the_parts_of_another_makes_the_same(pipe: MagiVideoPipeline) -> None:
    frames = pipe(image=picture(), generator=seeded(), **CALL).frames
    for twin in (
        MagiVideoPipeline(**pipe.components, height=8, width=8),
        MagiVideoPipeline.from_pipe(pipe, codec=pipe.codec),
    ):
        twin.set_progress_bar_config(disable=True)
        assert twin.transformer is pipe.transformer
        assert np.array_equal(twin(image=picture(), generator=seeded(), **CALL).frames, frames)


def test_the_call_has_the_arguments_that_diffusers_pipelines_share(pipe: MagiVideoPipeline) -> None:
    shared = {"generator", "output_type", "return_dict", "callback_on_step_end"}
    assert shared <= set(inspect.signature(pipe.__call__).parameters)


def test_the_methods_are_those_of_a_diffusers_pipeline_with_its_arguments() -> None:
    """It is none: importing the base class takes longer than importing PyTorch. Names and arguments are kept."""
    ours, theirs = MagiVideoPipeline, DiffusionPipeline
    for name in ("components", "device", "dtype", "config", "model_cpu_offload_seq"):
        assert hasattr(ours, name) and hasattr(theirs, name)
    assert isinstance(inspect.getattr_static(ours, "device"), property)
    for name in ("enable_model_cpu_offload", "maybe_free_model_hooks", "remove_all_hooks", "set_progress_bar_config"):
        given, known = (list(inspect.signature(getattr(one, name)).parameters) for one in (ours, theirs))
        assert len(given) == len(known) and given[:-1] == known[:-1], name  # the last may be **kwargs
    for name in ("to", "from_pipe", "register_modules", "progress_bar", "save_pretrained", "push_to_hub"):
        assert callable(getattr(ours, name)) and callable(getattr(theirs, name))


def test_the_former_names_are_the_same_classes() -> None:
    assert magi_video.MagiPipeline is MagiVideoPipeline and magi_video.MagiTransformer is MagiVideoTransformer


def test_stream_takes_what_the_call_takes() -> None:
    """The arguments are described once; here the two signatures are held together."""
    call, stream = (
        dict(inspect.signature(one).parameters) for one in (MagiVideoPipeline.__call__, MagiVideoPipeline.stream)
    )
    assert (call.pop("num_frames").default, stream.pop("num_frames").default) == (16, None), "a stream may be endless"
    own = {"return_dict", "callback_on_step_end"}
    assert [one for one in call.values() if one.name not in own] == list(stream.values()), "in the same order"


def test_a_tuple_holds_what_the_output_holds(pipe: MagiVideoPipeline) -> None:
    output = pipe(image=picture(), generator=seeded(), **CALL)
    plain = pipe(image=picture(), generator=seeded(), return_dict=False, **CALL)
    assert isinstance(output, MagiVideoPipelineOutput) and type(plain) is tuple
    assert np.array_equal(plain[0], output.frames) and np.array_equal(output[0], output["frames"])


def test_the_same_generator_makes_the_same_and_another_another(pipe: MagiVideoPipeline) -> None:
    one, again, other = (pipe(image=picture(), generator=seeded(s), **CALL).frames for s in (1, 1, 2))
    assert np.array_equal(one, again) and not np.allclose(one[:, 1:], other[:, 1:], atol=1e-3)


def test_a_video_of_a_batch_is_the_one_it_would_be_alone(pipe: MagiVideoPipeline) -> None:
    pictures = [picture(0), Image.fromarray(picture(1)), picture(2)]
    batch = pipe(image=pictures, generator=[seeded(s) for s in range(3)], **CALL).frames
    assert len(batch) == 3
    for number, one in enumerate(pictures):
        alone = pipe(image=one, generator=[seeded(number)], **CALL).frames
        assert np.abs(alone[0] - batch[number]).max() < 1e-4
    doubled = pipe(image=pictures[:2], num_videos=2, generator=[seeded(s) for s in range(4)], **CALL).frames
    assert len(doubled) == 4 and np.array_equal(doubled[0, 0], doubled[1, 0]), "each picture's videos side by side"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cast_to_half_precision_it_still_gives_finite_float32_frames(
    with_vae: MagiVideoPipeline, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    with_vae.to(dtype)
    assert "float32" not in caplog.text, "diffusers' warning of nothing"
    weights = itertools.chain(with_vae.transformer.parameters(), with_vae.codec.parameters())
    assert with_vae.dtype == dtype and {one.dtype for one in weights} == {dtype}
    frames = with_vae(image=picture(side=32), generator=seeded(), output_type="pt", **CALL).frames
    assert frames.dtype == torch.float32 and bool(frames.isfinite().all())


def test_moving_it_to_where_it_is_changes_nothing(pipe: MagiVideoPipeline) -> None:
    before = pipe(image=picture(), generator=seeded(), **CALL).frames
    assert pipe.to("cpu") is pipe and pipe.device == torch.device("cpu")
    assert np.array_equal(pipe(image=picture(), generator=seeded(), **CALL).frames, before)


def test_callbacks_see_every_frame_that_is_made(pipe: MagiVideoPipeline) -> None:
    seen: list[tuple[int, int]] = []

    def look(pipe: MagiVideoPipeline, step: int, timestep: int, kwargs: dict[str, Tensor]) -> dict[str, Tensor]:
        assert set(kwargs) == {"latents"} and kwargs["latents"].shape == (2, 3, 8, 8) and pipe.num_timesteps == 4
        seen.append((step, timestep))
        return kwargs

    plain = pipe(image=picture(), num_videos=2, interval=3, generator=seeded(), **CALL).frames
    watched = pipe(
        image=picture(), num_videos=2, interval=3, generator=seeded(), callback_on_step_end=look, **CALL
    ).frames
    assert seen == [(1, 3), (2, 6), (3, 9)], "frame 0 was given"
    assert np.array_equal(plain, watched)


def test_callbacks_are_shown_what_they_ask_for_and_nothing_else(pipe: MagiVideoPipeline) -> None:
    shown: list[dict[str, Tensor]] = []

    def look(pipe: MagiVideoPipeline, step: int, timestep: int, kwargs: dict[str, Tensor]) -> None:
        shown.append(kwargs)

    pipe(callback_on_step_end=look, callback_on_step_end_tensor_inputs=[], **CALL)
    assert shown == [{}] * 4
    with pytest.raises(MagiError, match="'prompt_embeds'; expected some of latents"):
        pipe(callback_on_step_end=look, callback_on_step_end_tensor_inputs=["prompt_embeds"], **CALL)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_latents_that_a_callback_changes_are_shown_and_become_the_past(
    pipe: MagiVideoPipeline, guidance_scale: float
) -> None:
    def blacken(pipe: MagiVideoPipeline, step: int, timestep: int, kwargs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": torch.full_like(kwargs["latents"], -2.0)} if step == 1 else {}

    kwargs = CALL | {"actions": [pipe.action("LEFT")] * 4, "guidance_scale": guidance_scale, "guide": ("action",)}
    plain = pipe(image=picture(), generator=seeded(), **kwargs).frames
    changed = pipe(image=picture(), generator=seeded(), callback_on_step_end=blacken, **kwargs).frames
    assert changed[0, 1].max() < 1e-3 and np.array_equal(changed[0, 0], plain[0, 0])
    assert not np.allclose(changed[0, 2], plain[0, 2], atol=1e-3), "what follows has seen it"


def test_a_callback_may_not_change_the_shape(pipe: MagiVideoPipeline) -> None:
    with pytest.raises(MagiError, match="latents \\[1, 3, 8\\]; expected \\[1, 3, 8, 8\\]"):
        pipe(callback_on_step_end=lambda pipe, i, t, kwargs: {"latents": kwargs["latents"][..., 0]}, **CALL)


def test_a_callback_can_end_the_video(pipe: MagiVideoPipeline) -> None:
    def stop(pipe: MagiVideoPipeline, step: int, timestep: int, kwargs: dict[str, Tensor]) -> None:
        pipe._interrupt = step == 2

    whole = pipe(image=picture(), generator=seeded(), **CALL).frames
    ended = pipe(image=picture(), generator=seeded(), callback_on_step_end=stop, **CALL).frames
    assert ended.shape[1] == 3 and np.array_equal(ended, whole[:, :3])
    assert pipe.interrupt
    assert pipe(image=picture(), generator=seeded(), **CALL).frames.shape[1] == 4, "the next call is not interrupted"


def test_with_a_codec_that_compresses_time_a_step_is_a_latent_frame(
    make_pipe: Callable[..., MagiVideoPipeline],
) -> None:
    steps: list[tuple[int, int]] = []
    pipe = make_pipe(Causal4x())
    frames = pipe(
        image=picture(), interval=2, callback_on_step_end=lambda pipe, i, t, kwargs: steps.append((i, t)),
        **CALL | {"num_frames": 9},
    ).frames  # fmt: skip
    assert frames.shape[1] == 9 and steps == [(1, 8), (2, 16)]


def test_the_progress_bar_counts_frames(pipe: MagiVideoPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipe(**CALL)
    assert "4/4" not in capsys.readouterr().err, "disabled"
    pipe.set_progress_bar_config(desc="video")
    pipe(**CALL)
    assert "video: 100%" in (shown := capsys.readouterr().err) and "4/4" in shown


def test_frames_are_what_export_to_video_takes(pipe: MagiVideoPipeline, tmp_path: Path) -> None:
    frames = pipe(image=picture(), generator=seeded(), **CALL).frames[0]
    assert frames.dtype == np.float32 and frames.shape == (4, 8, 8, 3)
    assert frames.min() >= 0 and frames.max() <= 1
    pytest.importorskip("imageio_ffmpeg", reason="export_to_video needs imageio and imageio-ffmpeg")
    for number, output_type in enumerate(("np", "pil")):
        made = pipe(image=picture(), generator=seeded(), output_type=output_type, **CALL).frames[0]
        file = export_to_video(made, str(tmp_path / f"{number}.mp4"), fps=10, macro_block_size=1)
        assert inspect_video(file).num_frames == 4


def visits(monkeypatch: pytest.MonkeyPatch, pipe: MagiVideoPipeline) -> list[str]:
    """The networks that are brought to the device, as they are."""
    order: list[str] = []
    bring = CpuOffload.pre_forward

    def note(hook: CpuOffload, module: torch.nn.Module, *args: object, **kwargs: object) -> object:
        order.append("codec" if module is pipe.codec else "transformer")
        return bring(hook, module, *args, **kwargs)

    monkeypatch.setattr(CpuOffload, "pre_forward", note)
    return order


def test_under_model_offloading_each_network_comes_once_a_turn(
    with_vae: MagiVideoPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    kwargs = {"image": picture(side=32), **CALL}
    plain = with_vae(generator=seeded(), **kwargs).frames
    with_vae.enable_model_cpu_offload(device="cpu")  # the hooks are those of any device
    order = visits(monkeypatch, with_vae)
    for _ in range(2):  # a call puts the hooks back as they were
        order.clear()
        assert np.array_equal(with_vae(generator=seeded(), **kwargs).frames, plain)
        turns = [name for name, _ in itertools.groupby(order)]
        assert turns == ["transformer", "codec", "transformer", "codec"]
    assert len(list(with_vae.stream(generator=seeded(), **kwargs))) == 4


def test_model_offloading_with_a_codec_without_weights(pipe: MagiVideoPipeline) -> None:
    plain = pipe(image=picture(), generator=seeded(), **CALL).frames
    pipe.enable_model_cpu_offload(device="cpu")
    assert pipe.offloads and np.array_equal(pipe(image=picture(), generator=seeded(), **CALL).frames, plain)


def test_offloading_ends_and_a_device_is_named_once(with_vae: MagiVideoPipeline) -> None:
    with_vae.enable_model_cpu_offload(device="cpu")
    with_vae.remove_all_hooks()
    assert not with_vae.offloads and not any(hasattr(one, "_hf_hook") for one in with_vae.components.values())
    with pytest.raises(MagiError, match="give one of them"):
        with_vae.enable_model_cpu_offload(gpu_id=1, device="cuda:0")
    if torch.accelerator.current_accelerator() is None:
        with pytest.raises(MagiError, match="no accelerator"):
            with_vae.enable_model_cpu_offload()
    assert not with_vae.offloads


def test_what_offloading_cannot_do_is_told(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    pipe = make_pipe(temporal_position="rope")
    for refused in (pipe.enable_sequential_cpu_offload, pipe.enable_group_offload):
        with pytest.raises(MagiError, match="use enable_model_cpu_offload"):
            refused()
    pipe.enable_model_cpu_offload(device="cpu")
    with pytest.raises(MagiError, match="say how many frames"):
        pipe.stream(image=picture())
