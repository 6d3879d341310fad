"""Networks with a config: what is kept, what a folder holds, and what loading costs."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from magi_video.errors import MagiError
from magi_video.models.configured import CONFIG, WEIGHTS, FrozenConfig, Network, capture_config, outlined, weightless
from magi_video.models.transformer import MagiVideoTransformer


class Scaled(Network):
    """A layer, a number that is no floating-point weight, and a buffer that is not saved."""

    @capture_config
    def __init__(self, width: int, scale: float = 2.0, names: tuple[str, ...] = ("a",)) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.count: Tensor
        self.register_buffer("count", torch.tensor(7))
        self.scale: Tensor
        self.register_buffer("scale", torch.full((width,), scale), persistent=False)


def saved(folder: Path, changes: Callable[[dict[str, Tensor]], object]) -> Path:
    """A saved network whose weights were changed."""
    Scaled(3).save_pretrained(folder)
    weights = load_file(folder / WEIGHTS)
    changes(weights)
    save_file(weights, folder / WEIGHTS)
    return folder


def test_the_config_is_what_the_constructor_was_given() -> None:
    network = Scaled(3, names=("b", "c"))
    assert dict(network.config) == {"width": 3, "scale": 2.0, "names": ("b", "c")}
    assert network.config.width == network.config["width"] == 3 and "depth" not in network.config
    network.register_to_config(scale=5.0, more=1)
    assert (network.config.scale, network.config.get("more"), network.config.width) == (5.0, 1, 3)
    assert dict(Scaled(4).config) == {"width": 4, "scale": 2.0, "names": ("a",)}, "each has its own"


def test_a_config_cannot_be_changed_and_survives_copies() -> None:
    config = FrozenConfig({"width": 3})
    with pytest.raises(AttributeError, match="frozen"):
        config.width = 4
    with pytest.raises(TypeError):
        config["width"] = 4  # type: ignore[index]
    with pytest.raises(AttributeError, match="no setting 'depth'; there are width"):
        _ = config.depth
    for again in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert again == config
    assert copy.deepcopy(Scaled(3)).config == Scaled(3).config


def test_settings_that_the_constructor_does_not_know_are_left_out() -> None:
    written = {"_class_name": "Scaled", "_diffusers_version": "0.36.0", "width": 3, "former": 1}
    assert dict(Scaled.from_config(written).config) == {"width": 3, "scale": 2.0, "names": ("a",)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    network = Scaled(3, scale=0.5)
    network.save_pretrained(tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["_class_name"] == "Scaled"
    assert sorted(load_file(tmp_path / WEIGHTS)) == ["count", "linear.bias", "linear.weight"]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    loaded = Scaled.from_pretrained(tmp_path, dtype)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn"
    assert loaded.dtype == dtype and loaded.device.type == "cpu" and not loaded.training
    assert torch.equal(loaded.linear.weight, network.linear.weight.to(dtype)) and loaded.linear.weight.requires_grad
    assert loaded.scale.tolist() == [0.5] * 3 and (loaded.count.item(), loaded.count.dtype) == (7, torch.int64)
    (tmp_path / WEIGHTS).write_bytes(b"")  # what was loaded does not live in the file
    assert loaded.linear.weight.isfinite().all()


@pytest.mark.parametrize(("changes", "problem"), [
    (lambda weights: weights.pop("linear.bias"), "missing linear.bias"),
    (lambda weights: weights.update(more=torch.zeros(1)), "unexpected more"),
    (lambda weights: weights.update({"linear.bias": torch.zeros(4)}), "mismatched linear.bias"),
])  # fmt: skip
def test_weights_that_the_config_does_not_describe(
    tmp_path: Path, changes: Callable[[dict[str, Tensor]], object], problem: str
) -> None:
    with pytest.raises(MagiError, match=f"does not hold the weights its config describes: {problem}"):
        Scaled.from_pretrained(saved(tmp_path, changes))


def test_outlines_have_shapes_and_draw_nothing(make_model: Callable[..., MagiVideoTransformer]) -> None:
    whole = make_model()
    state = torch.get_rng_state()
    with outlined():
        outline = MagiVideoTransformer.from_config(whole.config)
    with weightless():
        empty = MagiVideoTransformer.from_config(whole.config)
    assert torch.equal(torch.get_rng_state(), state)
    for one in (outline, empty):
        assert all(parameter.is_meta for parameter in one.parameters())
        assert {n: p.shape for n, p in one.named_parameters()} == {n: p.shape for n, p in whole.named_parameters()}
    assert outline.spatial_position.is_meta and torch.equal(empty.spatial_position, whole.spatial_position)
