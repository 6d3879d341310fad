"""What is computed of a model before it is built, against the built one."""

from dataclasses import asdict
from typing import Any

import pytest
import torch

from magi_video.errors import MagiError
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
    shapes = dict(architecture.shapes())
    assert shapes == {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert sum(architecture.parameters_by_part().values()) == sum(p.numel() for p in model.parameters())
    assert architecture.num_places == model.num_places and architecture.specs == model.condition_tokens.specs
    head = model.diffusion_head
    last = head.logits if isinstance(head, CategoricalHead) else head.net.token_out
    assert architecture.head_outputs == last.out_features
    assert Architecture.from_config(dict(model.config), "here").specs == architecture.specs


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.endswith("-mtf")])
def test_every_presets_weights_have_the_shapes_that_arithmetic_gives(name: str) -> None:
    check(find_architecture(load_preset(name)))


CATEGORICAL = {"head": "categorical", "codes": 7, "patch_size": 1}


@pytest.mark.parametrize("changes", [{}, EVERYTHING, CATEGORICAL])
def test_so_have_those_of_every_condition_and_head(changes: dict[str, Any]) -> None:
    check(Architecture(**SMALL | changes))


@pytest.mark.parametrize(("changes", "message"), [
    ({"depth": 10**7}, "depth 10000000 must be a whole number from 1 to 65536"),
    ({"width": "64"}, "width 64 must be a whole number"),
    ({"patch_size": 5}, "latent size 32×32 is not a multiple of patch size 5"),
    ({"conditions": [1]}, "here: not the config of a transformer"),
    ({"conditions": {"label": {"size": 5, "colour": 1}}}, "here: not the config of a transformer"),
    ({"conditions": {"label": {"size": -5}}}, "condition label: -5 must be a whole number"),
    ({"conditions": {"label": {"size": 5, "kind": ["x"]}}}, "condition label: 1 tokens of kind"),
    ({"head": ["epsilon"]}, "here"),
    (CATEGORICAL | {"patch_size": 2}, "predicts one code a token: patch_size must be 1, got 2"),
    (CATEGORICAL | {"codes": None}, "a categorical head needs a codec of codes"),
    (CATEGORICAL | {"codes": 1}, "codes 1 must be a whole number from 2"),
    (CATEGORICAL | {"codes": True}, "codes True must be a whole number from 2"),
    ({"codes": 7}, "a model with codes (7) has a categorical head, not 'epsilon'"),
])  # fmt: skip
def test_a_config_that_describes_no_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MagiError, match=r"^here: ") as refused:
        Architecture.from_config(asdict(Architecture()) | changes, "here")
    assert message in str(refused.value)
