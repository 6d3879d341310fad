"""Exported programs: a whole rollout driven by them is the pipeline's own, in .pt2 and in ONNX."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from magi_video.codecs import ImageVAECodec, PixelCodec
from magi_video.errors import MagiError
from magi_video.export import export_model
from magi_video.models import MagiTransformer
from magi_video.pipeline import MagiPipeline
from tests.codecs.codec_examples import TINY_CONFIG, Causal4x

FRAMES = 7  # the trained clips have 5: the past slides


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    """examples/exported_rollout.py, which knows nothing of our package."""
    path = Path(__file__).parents[1] / "examples" / "exported_rollout.py"
    spec = importlib.util.spec_from_file_location("exported_rollout", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(pipe: MagiPipeline, driver: ModuleType, folder: Path, frames: int, tolerance: float) -> None:
    """A rollout under an action: by the pipeline, and by the exported programs."""
    pipe.set_progress_bar_config(disable=True)
    size = (pipe.config.height, pipe.config.width, 3)
    picture = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    actions = [pipe.action("FIRE")] * frames
    expected = pipe(
        image=picture, num_frames=frames, actions=actions, interval=2, generator=[torch.Generator().manual_seed(1)],
        output_type="pt",
    ).frames[0]  # fmt: skip
    with torch.no_grad():
        made = driver.rollout(
            driver.Programs(folder), torch.from_numpy(picture).permute(2, 0, 1)[None] / 255, frames,
            torch.Generator().manual_seed(1), 2, torch.tensor([0.0, 0.0, 1.0]),
        )  # fmt: skip
    assert made.shape == expected.shape and expected[1:].std() > 0.02
    assert (made - expected).abs().max() < tolerance


@pytest.fixture
def make_pipe(make_model: Callable[..., MagiTransformer]) -> Callable[..., MagiPipeline]:
    def make(**changes: object) -> MagiPipeline:
        codec = PixelCodec()
        codec.set_statistics([0.0] * 3, [0.5] * 3)
        names = ["LEFT", "RIGHT", "FIRE"]
        return MagiPipeline(
            make_model(**changes), codec, height=8, width=8, action_names=names, mask_steps=3, denoise_steps=4
        )

    return make


def test_a_rollout_over_programs_is_the_pipelines(
    make_pipe: Callable[..., MagiPipeline], driver: ModuleType, tmp_path: Path
) -> None:
    pipe = make_pipe(temporal_position="rope")
    files = export_model(pipe, tmp_path / "rope")
    assert {file.name for file in files} == {"frame.pt2", "denoise.pt2", "encode.pt2", "decode.pt2", "export.json"}
    assert {file.name for file in (tmp_path / "rope").iterdir()} == {file.name for file in files}
    compare(pipe, driver, tmp_path / "rope", FRAMES, 1e-4)


def test_interpolated_positions_a_flow_head_masked_forcing_and_a_vae(
    make_model: Callable[..., MagiTransformer], driver: ModuleType, tmp_path: Path
) -> None:
    pipe = MagiPipeline(
        make_model(head="flow", latent_channels=5, depth=1, head_depth=1),
        ImageVAECodec("AutoencoderTiny", TINY_CONFIG).eval(),
        forcing="masked", height=32, width=32, action_names=["LEFT", "RIGHT", "FIRE"], mask_steps=2, denoise_steps=3,
    )  # fmt: skip
    export_model(pipe, tmp_path, slots=FRAMES - 1)
    compare(pipe, driver, tmp_path, FRAMES, 1e-4)
    with pytest.raises(SystemExit, match="exported for 7 frames"):
        driver.frame_positions(driver.Programs(tmp_path).facts, FRAMES + 1)


def test_programs_take_any_batch(make_pipe: Callable[..., MagiPipeline]) -> None:
    from magi_video.export import export_frame_step

    pipe = make_pipe(depth=1)
    frame = export_frame_step(pipe.transformer)["frame"].module()
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


def test_onnx_through_onnxruntime(make_pipe: Callable[..., MagiPipeline], driver: ModuleType, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason='pip install "magi-video[export]"')
    pipe = make_pipe(temporal_position="rope", depth=1, head_depth=1)
    export_model(pipe, tmp_path, "onnx")
    compare(pipe, driver, tmp_path, FRAMES, 1e-3)


def test_codecs_that_compress_time_are_refused(make_pipe: Callable[..., MagiPipeline], tmp_path: Path) -> None:
    pipe = make_pipe(depth=1)
    pipe.register_modules(codec=Causal4x())
    with pytest.raises(MagiError, match="compress time are not exported"):
        export_model(pipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
