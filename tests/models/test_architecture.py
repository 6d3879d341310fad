"""What is computed of a model before it is built, against the built one."""

from dataclasses import asdict
from typing import Any

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.files.shapes import architecture_of, head_outputs, parameters_by_part, weight_shapes
from magi_video.models.architecture import Architecture
from magi_video.models.categorical import CategoricalHead
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.presets import PRESETS, load_preset
from magi_video.training.sizing import find_architecture

EVERYTHING = {
    "head": "flow",
    "conditions": {
        "noise_level": {"size": 6},
        "label": {"size": 5},
        "action": {"size": 3, "kind": "vector"},
        "text": {"size": 7, "kind": "sequence", "tokens": 4},
    },
}
SMALL = {"latent_height": 6, "latent_width": 4, "width": 24, "depth": 2, "heads": 3, "mlp_width": 40, "head_width": 20}


def check(architecture: Architecture) -> None:
    with torch.device("meta"):
        model = MagiVideoTransformer(architecture)
    shapes = dict(weight_shapes(architecture))
    assert shapes == {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert sum(parameters_by_part(architecture).values()) == sum(p.numel() for p in model.parameters())
    assert architecture.num_places == model.num_places and architecture.specs == model.condition_tokens.specs
    head = model.diffusion_head
    last = head.logits if isinstance(head, CategoricalHead) else head.net.token_out
    assert head_outputs(architecture) == last.out_features
    assert architecture_of(dict(model.config), "here").specs == architecture.specs


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.endswith("-mtf")])
def test_every_presets_weights_have_the_shapes_that_arithmetic_gives(name: str) -> None:
    check(find_architecture(load_preset(name)))


CATEGORICAL = {"head": "categorical", "codes": 7, "patch_size": 1}


@pytest.mark.parametrize("changes", [{}, EVERYTHING, CATEGORICAL])
def test_so_have_those_of_every_condition_and_head(changes: dict[str, Any]) -> None:
    check(Architecture(**SMALL | changes))


@pytest.mark.parametrize(("changes", "message"), [
    ({"depth": 10**7}, "depth must lie in 1…65,536, got 10000000"),
    ({"width": "64"}, "width must be a whole number in 1…65,536, got '64'"),
    ({"patch_size": 5}, "latent size 32×32 is not a multiple of patch size 5"),
    ({"conditions": [1]}, "conditions must be an object, got [1]"),
    ({"conditions": {"label": 3}}, "here: not the config of a transformer"),
    ({"conditions": {"label": {"size": 5, "colour": 1}}}, "condition label: unknown setting 'colour'"),
    ({"conditions": {"label": {"size": -5}}}, "condition label: size must lie in 1…65,536, got -5"),
    ({"conditions": {"label": {"size": 5, "kind": ["x"]}}}, "condition label: kind must be one of index, vector"),
    ({"conditions": {"label": {"size": 5, "tokens": 2}}}, "condition label: 2 tokens of a condition of kind"),
    ({"head": ["epsilon"]}, "here"),
    (CATEGORICAL | {"patch_size": 2}, "predicts one code a token: patch_size must be 1, got 2"),
    (CATEGORICAL | {"codes": None}, "a categorical head needs a codec of codes"),
    (CATEGORICAL | {"codes": 1}, "codes must lie in 2…65,536, got 1"),
    (CATEGORICAL | {"codes": True}, "codes must be a whole number in 2…65,536, got True"),
    ({"codes": 7}, "a model with codes (7) has a categorical head, not 'epsilon'"),
])  # fmt: skip
def test_a_config_that_describes_no_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MagiError, match=r"^here: ") as refused:
        architecture_of(asdict(Architecture()) | changes, "here")
    assert message in str(refused.value)
