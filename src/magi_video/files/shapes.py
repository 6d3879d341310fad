"""Names and shapes of a transformer's weights, by arithmetic and without PyTorch.

`magi info` and `magi plan` answer from this alone, and files are checked by it before a network is built. The tests
hold the shapes against those of the built network.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from magi_video.errors import MagiError
from magi_video.models.architecture import TIME_FREQUENCIES, Architecture, ConditionSpec
from magi_video.registry import declared

Shape = tuple[int, ...]
CODEBOOK = "diffusion_head.codebook"
"""Name of the vectors of its codes, the only weights that are not trained."""


def architecture_of(config: Mapping[str, Any], where: str) -> Architecture:
    """That of a `config.json`, which may be anything.

    Raises:
        MagiError: it describes no model; the message begins with `where`.
    """
    try:
        return Architecture.of(config)
    except MagiError as error:
        raise MagiError(f"{where}: {error}") from None
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise MagiError(f"{where}: not the config of a transformer ({error})") from None


def head_inputs(architecture: Architecture) -> int:
    """Numbers that the head's network reads for a token, besides its condition."""
    return declared("models")[architecture.head].get("inputs", 1) * architecture.token_dim


def head_outputs(architecture: Architecture) -> int:
    """Numbers that the head predicts for a token."""
    return architecture.codes or declared("models")[architecture.head]["outputs"] * architecture.token_dim


def weight_shapes(architecture: Architecture) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every weight of a transformer."""
    width = architecture.width
    yield from _linear("token_in", architecture.token_dim, width)
    yield "mask_token", (width,)
    yield "kind_position", (2, architecture.num_tokens, width)
    yield "interval_embed.weight", (architecture.num_intervals, width)
    for name, spec in architecture.specs.items():
        yield from _condition(f"condition_tokens.embed.{name}", spec, width)
    for index in range(architecture.depth):
        for layer in ("spatial", "temporal"):
            yield from _layer(f"blocks.{index}.{layer}", width, architecture.mlp_width)
    yield from _norm("norm_out", width)
    yield "head_position", (architecture.num_tokens, width)
    if architecture.codes:
        yield CODEBOOK, (architecture.codes, architecture.token_dim)
        yield from _linear("diffusion_head.logits", width, architecture.codes)
    elif architecture.head == "velocity":
        yield from _linear("diffusion_head.velocity", width, architecture.token_dim)
    else:
        yield from _denoising_mlp("diffusion_head.net", architecture)
    if architecture.canvas:
        yield from _linear("canvas_out", width, architecture.token_dim)


def parameters_by_part(architecture: Architecture) -> dict[str, int]:
    """Parameters of the spatial layers, the temporal layers, the head, and the rest (embeddings)."""
    parts = dict.fromkeys(("spatial", "temporal", "head", "embedding"), 0)
    for name, shape in weight_shapes(architecture):
        parts[part_of(name)] += math.prod(shape)
    return parts


def part_of(name: str) -> str:
    """The part of the network that a parameter belongs to."""
    if name.startswith("blocks."):
        return name.split(".")[2]
    return "head" if name.startswith("diffusion_head.") else "embedding"


def _denoising_mlp(at: str, architecture: Architecture) -> Iterator[tuple[str, Shape]]:
    width = architecture.head_width
    yield from _linear(f"{at}.token_in", head_inputs(architecture), width)
    yield from _linear(f"{at}.time_embed.mlp.0", TIME_FREQUENCIES, width)
    yield from _linear(f"{at}.time_embed.mlp.2", width, width)
    yield from _linear(f"{at}.condition_embed", architecture.width, width)
    for index in range(architecture.head_depth):
        yield from _norm(f"{at}.blocks.{index}.norm", width)
        yield from _linear(f"{at}.blocks.{index}.mlp.0", width, width)
        yield from _linear(f"{at}.blocks.{index}.mlp.2", width, width)
        yield from _linear(f"{at}.blocks.{index}.modulation", width, 3 * width)
    yield from _linear(f"{at}.modulation_out", width, 2 * width)
    yield from _linear(f"{at}.token_out", width, head_outputs(architecture))


def _linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _layer(name: str, width: int, mlp_width: int) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{name}.norm_attention", width)
    yield from _linear(f"{name}.qkv", width, 3 * width)
    yield from _linear(f"{name}.project", width, width)
    yield from _norm(f"{name}.norm_mlp", width)
    yield from _linear(f"{name}.mlp_in", width, mlp_width)
    yield from _linear(f"{name}.mlp_out", mlp_width, width)


def _condition(name: str, spec: ConditionSpec, width: int) -> Iterator[tuple[str, Shape]]:
    if spec.kind == "index":
        yield f"{name}.table.weight", (spec.size + 1, width)  # the last row is the unknown token
        return
    if spec.kind == "time":
        yield from _linear(f"{name}.time_embed.mlp.0", TIME_FREQUENCIES, width)
        yield from _linear(f"{name}.time_embed.mlp.2", width, width)
        return
    yield from _linear(f"{name}.project", spec.size, width)
    yield f"{name}.unknown", (width,)
    if spec.kind == "sequence":
        yield f"{name}.position", (spec.tokens, width)
