"""Exported programs: a whole rollout driven by them is the pipeline's own, in .pt2 and in ONNX."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.pixels import PixelCodec
from magi_video.errors import MagiError
from magi_video.hub.export import Extent, export_model, facts
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline
from tests.codecs.codec_examples import TINY_CONFIG, Causal4x, coded_architecture, make_codec, make_vq

CONDITIONS = {"noise_level": {"size": 6}, "action": {"size": 3, "kind": "vector", "drop": 0.1}}
FRAMES = 7  # the trained clips have 5: the past slides


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    """examples/exported_rollout.py, which knows nothing of our package."""
    path = Path(__file__).parents[2] / "examples" / "exported_rollout.py"
    spec = importlib.util.spec_from_file_location("exported_rollout", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(
    pipe: MagiVideoPipeline,
    driver: ModuleType,
    programs: Any,
    frames: int,
    tolerance: float,
    *,
    label: int | None = None,
    first: bool = True,
    **guidance: Any,
) -> None:
    """A rollout under an action: by the pipeline, and by the exported programs."""
    pipe.set_progress_bar_config(disable=True)
    size = (pipe.config.height, pipe.config.width, 3)
    picture = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8) if first else None
    actions = [pipe.action("FIRE")] * frames
    expected = pipe(
        image=picture, num_frames=frames, actions=actions, label=label, interval=2, output_type="pt",
        generator=[torch.Generator().manual_seed(1)], **guidance,
    ).frames[0]  # fmt: skip
    told = {"action": torch.tensor([0.0, 0.0, 1.0])} | ({} if label is None else {"label": torch.tensor(label)})
    scale, linear = guidance.get("guidance_scale", 1.0), guidance.get("guidance_schedule") != "constant"
    with torch.no_grad():
        made = driver.rollout(
            programs, None if picture is None else torch.from_numpy(picture).permute(2, 0, 1)[None] / 255, frames,
            torch.Generator().manual_seed(1), 2,
            driver.Wishes(told, guidance.get("guide", ("label", "text")), scale, linear),
        )  # fmt: skip
    assert made.shape == expected.shape and expected[1:].std() > 0.02
    assert (made - expected).abs().max() < tolerance
    if guidance:
        unguided = pipe(
            image=picture, num_frames=frames, actions=actions, label=label, interval=2, output_type="pt",
            generator=[torch.Generator().manual_seed(1)],
        ).frames[0]  # fmt: skip
        assert (unguided - expected).abs().max() > 20 * tolerance, "guidance does something here"


@pytest.fixture
def make_pipe(make_model: Callable[..., MagiVideoTransformer]) -> Callable[..., MagiVideoPipeline]:
    def make(**changes: object) -> MagiVideoPipeline:
        codec = PixelCodec()
        codec.set_statistics([0.0] * 3, [0.5] * 3)
        names = ["LEFT", "RIGHT", "FIRE"]
        return MagiVideoPipeline(
            make_model(**changes), codec, height=8, width=8, action_names=names, mask_steps=3, denoise_steps=4
        )

    return make


def test_a_rollout_over_programs_is_the_pipelines(
    make_pipe: Callable[..., MagiVideoPipeline], driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_pipe(temporal_position="rope")
    files = export_model(pipe, tmp_path / "rope")
    assert {file.name for file in files} == {"frame.pt2", "denoise.pt2", "encode.pt2", "decode.pt2", "export.json"}
    assert {file.name for file in (tmp_path / "rope").iterdir()} == {file.name for file in files}
    programs = driver.Programs(tmp_path / "rope")
    compare(pipe, driver, programs, FRAMES, 1e-4)
    monkeypatch.setattr(driver, "Programs", lambda _folder: programs)
    command = ["exported_rollout.py", str(tmp_path / "rope"), "--out", str(tmp_path / "made"), "--frames", "2"]
    for more, complaint in (
        (["--actions", "JUMP"], "no action JUMP: this model has LEFT, RIGHT, FIRE"),
        (["--label", "0"], "no label 0: this model has 0"),
        (["--guidance-scale", "2", "--actions", "FIRE"], "what it is to act on"),
    ):
        monkeypatch.setattr("sys.argv", command + more)
        with pytest.raises(SystemExit, match=complaint):
            driver.main()
    monkeypatch.setattr("sys.argv", [*command, "--actions", "FIRE", "--guidance-scale", "2", "--guide", "action"])
    with torch.no_grad():
        driver.main()
    assert len(list((tmp_path / "made").glob("*.png"))) == 2


def test_interpolated_positions_a_flow_head_masked_forcing_and_a_vae(
    make_model: Callable[..., MagiVideoTransformer], driver: ModuleType, tmp_path: Path
) -> None:
    torch.manual_seed(1)  # a decoder whose random pictures are not nearly black
    pipe = MagiVideoPipeline(
        make_model(head="flow", latent_channels=5, depth=1, head_depth=1),
        ImageVAECodec("AutoencoderTiny", TINY_CONFIG).eval(),
        forcing="masked", height=32, width=32, action_names=["LEFT", "RIGHT", "FIRE"], mask_steps=2, denoise_steps=3,
    )  # fmt: skip
    export_model(pipe, tmp_path, frames=FRAMES)
    programs = driver.Programs(tmp_path)
    compare(pipe, driver, programs, FRAMES, 1e-4)
    compare(pipe, driver, programs, FRAMES, 1e-4, guidance_scale=30.0, guide=("action",))
    with pytest.raises(SystemExit, match="exported for 7 frames; magi export --frames 8"):
        driver.latent_frames(programs.facts, FRAMES + 1)
    with pytest.raises(MagiError, match="frames must lie in 2…10000, got 1"):
        export_model(pipe, tmp_path / "one", frames=1)
    assert not (tmp_path / "one").exists()


def test_a_few_step_head_and_a_temperature_that_falls(
    make_model: Callable[..., MagiVideoTransformer], driver: ModuleType, tmp_path: Path
) -> None:
    codec = PixelCodec()
    codec.set_statistics([0.0] * 3, [0.5] * 3)
    pipe = MagiVideoPipeline(
        make_model(head="distributional", depth=1, head_depth=1), codec, height=8, width=8,
        action_names=["LEFT", "RIGHT", "FIRE"],
        sampling={"mask_steps": 2, "denoise_steps": 2, "temperature": 0.8, "last_temperature": 0.3},
    )  # fmt: skip
    export_model(pipe, tmp_path, frames=4)
    programs = driver.Programs(tmp_path)
    assert len(programs.facts["distributional"]) == 2 and programs.facts["times"] == [999, 499]
    compare(pipe, driver, programs, 4, 1e-4)
    compare(pipe, driver, programs, 3, 1e-4, first=False)


@pytest.mark.parametrize(("sampling", "message"), [
    ({"sampler": "ddim"}, "not for the sampler ddim"),
    ({"denoise_steps": 8, "last_denoise_steps": 3}, "not for denoise steps that fall from 8 to 3"),
])  # fmt: skip
def test_sampling_that_a_driver_has_no_numbers_for_is_refused(
    make_pipe: Callable[..., MagiVideoPipeline], tmp_path: Path, sampling: dict[str, Any], message: str
) -> None:
    pipe = make_pipe()
    pipe.register_to_config(sampling=sampling)
    with pytest.raises(MagiError, match=message):
        export_model(pipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_programs_take_any_batch(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    from magi_video.hub.export import export_frame_step

    pipe = make_pipe(depth=1)
    frame = export_frame_step(pipe.transformer, 4)["frame"].module()
    tokens, hidden = torch.randn(3, 16, 12), torch.rand(3, 16) < 0.5
    conditions = {"action": torch.rand(3, 1, 3), "noise_level": torch.zeros(3, 1, dtype=torch.long)}
    past = torch.randn(2, 1, 3, 18, 2, 4, 16)
    visible = torch.tensor([True, False, True, False])
    one = torch.tensor([1])
    with torch.no_grad():
        outputs = [
            frame(
                tokens[rows], hidden[rows], one, torch.tensor([2.0]), torch.tensor([1, 2, 3])[rows],
                {name: value[rows] for name, value in conditions.items()}, *past[:, :, rows], visible,
            )
            for rows in (slice(None), slice(1, 2))
        ]  # fmt: skip
        changed = past.clone()
        changed[..., 1, :] += 1  # a slot that is not visible
        blind = frame(tokens, hidden, one, torch.tensor([2.0]), torch.tensor([1, 2, 3]), conditions, *changed, visible)
    assert torch.allclose(outputs[0][0][1:2], outputs[1][0], atol=1e-5)
    assert torch.allclose(outputs[0][1][:, 1:2], outputs[1][1], atol=1e-5)
    assert torch.allclose(blind[0], outputs[0][0], atol=1e-6)


def test_onnx_through_onnxruntime(
    make_pipe: Callable[..., MagiVideoPipeline], driver: ModuleType, tmp_path: Path
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason='pip install -e ".[export]"')
    pipe = make_pipe(temporal_position="rope", depth=1, head_depth=1)
    export_model(pipe, tmp_path, "onnx")
    programs = driver.Programs(tmp_path)
    compare(pipe, driver, programs, FRAMES, 1e-3)
    compare(pipe, driver, programs, 3, 1e-3, guidance_scale=20.0, guide=("action",))


def test_codes_are_drawn_as_the_pipeline_draws_them(
    make_model: Callable[..., MagiVideoTransformer], driver: ModuleType, tmp_path: Path
) -> None:
    codec = make_vq("vq")
    model = make_model(**coded_architecture(codec))
    pipe = MagiVideoPipeline(
        model, codec, height=16, width=16, action_names=["LEFT", "RIGHT", "FIRE"], sampling={"mask_steps": 3}
    )
    files = {file.name for file in export_model(pipe, tmp_path, frames=FRAMES)}
    assert files == {"frame.pt2", "logits.pt2", "look_up.pt2", "encode.pt2", "decode.pt2", "export.json"}
    programs = driver.Programs(tmp_path)
    compare(pipe, driver, programs, 5, 1e-4)
    compare(pipe, driver, programs, 5, 1e-4, guidance_scale=3.0, guide=("action",))
    # Sampling changes what export.json says, and no program.
    for sampling in (
        {"temperature": 0.5, "top_k": 5},
        {"top_p": 0.7},
        {"temperature": 0.0},
        {"order": "confidence", "choice_temperature": 2.0, "temperature": 0.8},
    ):
        pipe.register_to_config(sampling={"mask_steps": 3} | sampling)
        programs.facts = json.loads(json.dumps(facts(pipe, Extent.of(pipe, FRAMES))))
        compare(pipe, driver, programs, 5, 1e-4)


def test_guidance_is_a_second_row_of_the_batch(
    make_pipe: Callable[..., MagiVideoPipeline], driver: ModuleType, tmp_path: Path
) -> None:
    pipe = make_pipe(temporal_position="rope", conditions=CONDITIONS | {"label": {"size": 4, "drop": 0.1}})
    pipe.register_to_config(class_names=list("abcd"))
    export_model(pipe, tmp_path)
    programs = driver.Programs(tmp_path)
    assert programs.facts["class_names"] == list("abcd")
    compare(pipe, driver, programs, FRAMES, 1e-4, label=2)
    compare(pipe, driver, programs, FRAMES, 1e-4, label=2, first=False, guidance_scale=3.0)
    both = {"guide": ("label", "action"), "guidance_schedule": "constant"}
    compare(pipe, driver, programs, FRAMES, 1e-4, label=2, guidance_scale=2.0, **both)
    with pytest.raises(SystemExit, match="what it is to act on"):
        driver.Wishes({"action": torch.zeros(3)}, ("label",), 2.0)


@pytest.mark.parametrize("kind", ["causal", "wan"])
def test_a_codec_that_compresses_time_decodes_a_whole_video(
    kind: str, make_model: Callable[..., MagiVideoTransformer], driver: ModuleType, tmp_path: Path
) -> None:
    codec, channels = (Causal4x(), 3) if kind == "causal" else (make_codec("wan"), 4)
    codec.set_statistics([0.0] * channels, [0.5] * channels)
    rows, columns = codec.latent_size(16, 16)
    pipe = MagiVideoPipeline(
        make_model(
            latent_channels=channels, latent_height=rows, latent_width=columns, num_frames=3, depth=1, head_depth=1,
            temporal_position="rope",
        ),
        codec, height=16, width=16, action_names=["LEFT", "RIGHT", "FIRE"], mask_steps=2, denoise_steps=3,
    )  # fmt: skip
    export_model(pipe, tmp_path, frames=None if kind == "causal" else 5)
    programs, longest = driver.Programs(tmp_path), 9 if kind == "causal" else 5  # by default three latent frames
    compare(pipe, driver, programs, longest, 1e-4)
    compare(pipe, driver, programs, 4, 1e-4)  # made whole and cut
    with pytest.raises(SystemExit, match=f"exported for {longest} frames; magi export --frames 10 "):
        driver.latent_frames(programs.facts, 10)
