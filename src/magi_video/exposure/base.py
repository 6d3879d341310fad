"""What a cure for exposure bias is: how training prepares a model for the errors of its own rollouts.

In training the frames before a frame are true ones, in a rollout they are the model's own, errors and all. A cure
changes what training shows of the past (`paradigms.masking.Exposure`). Here is what recipes and runs need besides: a
name, hyper-parameters, where it makes sense, what a step leaves behind, and what a checkpoint keeps. A cure is one file
of this folder; `@register` makes it known to recipes, commands and documents.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from torch import Tensor

from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.masking import Exposure
from magi_video.registry import Registry, read_options

Gather = Callable[[Tensor], Tensor]
"""From a tensor `[M, …]` of this process's clips to that of all processes' clips, in the order of the batch."""


class Cure(Exposure):
    """A cure for exposure bias.

    Args:
        options: of the cure itself, by name: values, or texts of them.

    Attributes:
        step: optimiser steps that were done before this one.

    Raises:
        MagiError: the cure has no such option, or the option cannot be that.
    """

    name: ClassVar[str]
    """In recipes and on the command line."""
    title: ClassVar[str]
    """What it is, in one line."""
    needs: ClassVar[dict[str, tuple[tuple[Any, ...], str]]] = {}
    """Value of a paradigm's body (`Paradigm.past`, `unit`, …) → the values with which the cure makes sense, and why."""
    heads: ClassVar[tuple[str, ...]] = ("epsilon", "flow", "categorical")
    """Heads that it works with."""
    injects: ClassVar[bool] = False
    """Whether it takes the recipe's `noise_levels` and `noise_sigma`."""
    reconstructs: ClassVar[Literal["nothing", "one", "all"]] = "nothing"
    """Frames of a clip that a training step reconstructs, which is its cost: one by the z that is there, or all, each
    in a pass of its own."""
    canvas: ClassVar[bool] = False
    """Whether the model has a canvas in place of its mask token (`Architecture.canvas`)."""
    begins_after: ClassVar[str] = ""
    """Its option that says after how many optimiser steps it begins; "" if it is there from the first."""
    options: ClassVar[dict[str, int | float | str]] = {}
    """Hyper-parameters of its own by name, with their defaults; they become attributes of these types."""
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Option → the values that it may have, where only some make sense."""
    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    """Option → the least and the most that it may be."""

    def __init__(self, **options: Any) -> None:
        self.step = 0
        vars(self).update(read_options(type(self), options))

    def begin_step(self, step: int) -> None:
        """An optimiser step begins, after so many; a batch may come in several parts."""
        self.step = step

    def end_step(self, taken: Tensor, gather: Gather) -> None:
        """The step ends.

        Args:
            taken: boolean scalar on the device: whether the weights have changed. Nothing waits for it.
            gather: from this process's clips to those of all.
        """

    def tensors(self, model: MagiVideoTransformer) -> dict[str, Tensor]:
        """What a checkpoint keeps of it, by name; a resumed run copies the saved values into these very tensors."""
        return {}

    def state(self) -> dict[str, int]:
        """The numbers that a checkpoint keeps beside `tensors`."""
        return {}

    def restore(self, state: dict[str, int]) -> None:
        """Inverse of `state`."""


CURES: Registry[Cure] = Registry("exposure", "exposure")
"""Every cure by name."""
register = CURES.register
