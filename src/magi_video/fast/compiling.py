"""Compiled blocks, where there is a compiler."""

from collections.abc import Callable

import torch

from magi_video.models.transformer import MagiVideoTransformer


def compile_blocks(model: MagiVideoTransformer, attempt: Callable[[], object]) -> str | None:
    """Let PyTorch compile the blocks of a model, but the last, in place; the names of its weights stay.

    Args:
        model: it runs as before if compiling fails.
        attempt: uses the model as it will be used; compilation happens at first use, and so does its failure.

    Returns:
        None, or in a line why the model is not compiled.
    """
    for block in model.blocks[:-1]:  # the last one has another shape for every mask step
        block.compile()
    try:
        attempt()
    except Exception as error:  # compilers have no common one
        for block in model.blocks:
            block._compiled_call_impl = None
        torch._dynamo.reset()
        cause = getattr(error, "inner_exception", error)
        return f"{type(cause).__name__}: {cause}".split("\n")[0]
    return None
