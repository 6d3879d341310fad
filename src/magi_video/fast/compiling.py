"""Compiled blocks, where there is a compiler."""

from collections.abc import Callable
from functools import cache
from types import ModuleType

import torch

from magi_video.errors import first_line
from magi_video.fast import attention
from magi_video.models import dropout
from magi_video.models.transformer import MagiVideoTransformer

UNCOMPILED: list[tuple[ModuleType, str]] = [
    (dropout, "kept"),
    (attention, "kept"),
    (attention, "dropped_attention"),
]
"""Functions that seed generators clip by clip: a compiled block calls them as they are."""


@cache
def leave_uncompiled() -> None:
    """Mark `UNCOMPILED` for the compiler; not where they are defined, since the mark alone imports the compiler, which
    takes longer than importing PyTorch."""
    for module, name in UNCOMPILED:
        setattr(module, name, torch.compiler.disable(getattr(module, name)))


def compile_blocks(model: MagiVideoTransformer, attempt: Callable[[], object]) -> str | None:
    """Let PyTorch compile the blocks of a model, but the last, in place; the names of its weights stay.

    Args:
        model: it runs as before if compiling fails.
        attempt: uses the model as it will be used; compilation happens at first use, and so does its failure.

    Returns:
        None, or in a line why the model is not compiled.
    """
    leave_uncompiled()
    for block in model.blocks[:-1]:  # the last one has another shape for every mask step
        block.compile()
    try:
        attempt()
    except Exception as error:  # compilers have no common one
        for block in model.blocks:
            block._compiled_call_impl = None
        torch._dynamo.reset()
        cause = getattr(error, "inner_exception", error)
        return first_line(cause, kind=True)
    return None
