"""The door to `fast`: a model's plain classes are replaced by faster ones, and put back."""

from typing import TypeVar

import torch
from torch import nn

from magi_video.fast import head, kernels, layers, linear
from magi_video.fast.past import FastPast
from magi_video.fast.probes import packing_pays
from magi_video.models.layers import Block, SpatialLayer, TemporalLayer
from magi_video.models.transformer import MagiTransformer
from magi_video.sampling.settings import SamplingSettings

FAST: dict[type[nn.Module], type[nn.Module]] = {
    Block: layers.FastBlock,
    SpatialLayer: layers.FastSpatialLayer,
    TemporalLayer: layers.FastTemporalLayer,
    **head.FAST,
}
PLAIN = {fast: plain for plain, fast in FAST.items()} | {
    linear.PackedLinear: nn.Linear,
    kernels.TrainingLinear: nn.Linear,
    kernels.TrainingLayerNorm: nn.LayerNorm,
}


M = TypeVar("M", bound=nn.Module)


def speed_up(model: M) -> M:
    """Let a model compute the same in less time, in generation and in training; returns it."""
    for module in model.modules():
        module.__class__ = FAST.get(type(module), type(module))
    return model


def restore(model: M) -> M:
    """Give a model its plain classes back; returns it."""
    for module in model.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return model


def make_past(model: MagiTransformer, batch: int, total_frames: int | None, settings: SamplingSettings) -> FastPast:
    """The past of a rollout by the fast path: the model is sped up, and packed where that pays (`pack_linears`).

    Args:
        model: the transformer, in eval mode.
        batch: videos; guidance doubles them.
        total_frames: of the rollout; None for one without end ("rope").
        settings: of the rollout.
    """
    speed_up(model)
    if model.dtype == torch.bfloat16 and packing_pays():
        linear.pack_linears(model)
    return FastPast(model, batch * (2 if settings.guided else 1), total_frames, reuse=settings.refresh > 1)
