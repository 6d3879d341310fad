import math

import pytest
import torch

from magi_video.errors import MagiError
from magi_video.models import MagiTransformer
from magi_video.presets import TrainConfig
from magi_video.training.optimization import SpikeGuard, build_optimizer


def test_weight_decay_spares_vectors_embeddings_and_the_head(model: MagiTransformer) -> None:
    optimizer = build_optimizer(model, TrainConfig())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for p in optimizer.param_groups[0]["params"]}
    free = {names[id(p)] for p in optimizer.param_groups[1]["params"]}
    assert decayed | free == set(names.values()) and not decayed & free
    assert optimizer.param_groups[0]["weight_decay"] == 0.02 and optimizer.param_groups[1]["weight_decay"] == 0
    assert "blocks.0.spatial.qkv.weight" in decayed and "token_in.weight" in decayed
    assert {"kind_position", "head_position", "mask_token", "interval_embed.weight", "norm_out.weight"} <= free
    assert all(name in free for name in names.values() if name.startswith("diffusion_head.") or name.endswith(".bias"))
    assert optimizer.defaults["betas"] == (0.9, 0.95)


def test_guard_takes_the_usual_and_skips_spikes_and_nan() -> None:
    guard = SpikeGuard(factor=10)
    assert all(guard.accepts(1.0, norm) for norm in torch.linspace(1, 2, 30).tolist())
    assert not guard.accepts(1.0, 50.0)
    assert not guard.accepts(math.nan, 1.0) and not guard.accepts(1.0, math.inf)
    assert guard.accepts(1.0, 2.0) and guard.skipped == 3


def test_guard_gives_up_after_too_many_in_a_row_and_survives_a_restart() -> None:
    guard = SpikeGuard(factor=10, patience=3)
    guard.accepts(1.0, 1.0)
    guard.accepts(math.nan, 1.0)
    again = SpikeGuard(factor=10, patience=3)
    again.restore(guard.state())
    again.accepts(math.nan, 1.0)
    with pytest.raises(MagiError, match="diverged"):
        again.accepts(math.nan, 1.0)
