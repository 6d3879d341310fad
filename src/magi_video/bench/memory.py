"""Memory of a training step on one device, by part.

Weights, gradients, AdamW's averages and the averaged weights are counted. Activations are what the layers keep for the
backward, added up layer by layer as `models/layers.py`, `models/attention.py` and `models/head.py` keep it; the CPU's
sums are tested against what autograd really saves, the GPU's follow the same layers under PyTorch's rules for autocast
(norms in float32) and its fused attention (no probabilities), and have not been measured.

Symbols: W width, M width of the MLP, L places and N tokens of a frame, D numbers of a token, h width of the head.
"""

import math
from dataclasses import asdict, dataclass
from typing import Literal

from magi_video.bench.flops import Sizes
from magi_video.fast.padding import padded
from magi_video.files.shapes import CODEBOOK, Shape, parameters_by_part, part_of, weight_shapes
from magi_video.models.architecture import NUM_TRAIN_STEPS, Architecture

FLOAT32, STATISTICS, CODE = 4, 8, 8
"""Bytes of a number, of a row's mean and deviation that a norm keeps, and of a code (int64)."""

Sharding = Literal["none", "full"]


@dataclass(frozen=True)
class Workload:
    """What a device does in one forward and backward.

    Attributes:
        clips: B, of a micro batch.
        frames: S of the training sequence.
        predicted: T of them, whose tokens are learned.
        hidden, spread: mean share of a clip's tokens that have a loss, and its standard deviation from frame to frame.
        repeats: diffusion draws for each.
        low_precision: whether the transformer runs under bfloat16 autocast.
        fused_attention: whether attention keeps no probabilities.
        checkpointing: whether blocks are computed again in the backward.
        attention_dropout, projection_dropout, mlp_dropout: rates; where there is one a mask is kept.
        flat: whether every layer attends among all places of the sequence.
    """

    clips: int
    frames: int
    predicted: int
    hidden: float
    spread: float
    repeats: int
    low_precision: bool = True
    fused_attention: bool = True
    checkpointing: bool = False
    attention_dropout: float = 0.0
    projection_dropout: float = 0.0
    mlp_dropout: float = 0.0
    flat: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights, gradients, optimizer, average: float32 weights, their gradients, AdamW's two averages, the averaged
            weights; a share of each if sharded.
        casts: bfloat16 copies of the transformer's matrices that autocast keeps through a step (not if sharded).
        gathered: what a sharded model holds whole: two blocks' weights and one's gradients, the head and embeddings.
        codec: weights of a codec that encodes while training.
        activations: kept for the backward.
        temporary: the largest gradients in flight, an estimate.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    casts: int
    gathered: int
    codec: int
    activations: int
    temporary: int

    @property
    def total(self) -> int:
        """Of all parts: an upper bound, since gradients appear as activations go."""
        return sum(asdict(self).values())


def step_memory(
    model: Architecture, work: Workload, sharding: Sharding = "none", devices: int = 1, codec: int = 0
) -> Memory:
    """Memory of a training step on each of `devices`.

    Args:
        model: what is trained.
        work: of one device.
        sharding: "none" (DDP: everything on every device) or "full" (FSDP2: a share on each).
        devices: how many.
        codec: bytes of the codec's weights.
    """
    parts = parameters_by_part(model)
    total = sum(parts.values())
    # FSDP2 splits each tensor's first dimension: the largest share is what counts.
    held = total if sharding == "none" else sum(_share(shape, devices) for _, shape in weight_shapes(model))
    trained = held - sum(_share(shape, devices) for name, shape in weight_shapes(model) if name == CODEBOOK)
    blocks = parts["spatial"] + parts["temporal"]
    casts, gathered = 0, 0
    if sharding == "none":
        casts = 2 * cast_parameters(model) if work.low_precision else 0
    else:
        block = blocks // model.depth
        rest = total - blocks
        gathered = 2 * block * (2 if work.low_precision else FLOAT32) + (block + 2 * rest) * FLOAT32
    kept = activation_bytes(model, work)
    return Memory(
        weights=FLOAT32 * held,
        gradients=FLOAT32 * trained,
        optimizer=2 * FLOAT32 * trained,
        average=FLOAT32 * held,
        casts=casts,
        gathered=gathered,
        codec=codec,
        activations=kept.total,
        temporary=temporary_bytes(Sizes.of(model), work),
    )


def cast_parameters(model: Architecture) -> int:
    """Numbers in the weights of the transformer's linear layers, which autocast casts; the head's stay float32."""
    return sum(
        math.prod(shape)
        for name, shape in weight_shapes(model)
        if len(shape) == 2 and part_of(name) != "head" and not _is_table(name)
    )


def _is_table(name: str) -> bool:
    tables = ("head_position", "interval_embed.weight")
    return name in tables or name.endswith((".table.weight", ".position"))


def _share(shape: Shape, devices: int) -> int:
    return -(-shape[0] // devices) * math.prod(shape[1:])


@dataclass(frozen=True)
class Activations:
    """Bytes that are kept for the backward, by part of the network."""

    input: int
    spatial: int
    temporal: int
    head: int

    @property
    def total(self) -> int:
        """Of all parts."""
        return sum(asdict(self).values())


def activation_bytes(model: Architecture, work: Workload) -> Activations:
    """What the layers keep for the backward; with checkpointing each block's input, and one block or the head."""
    sizes, heads = Sizes.of(model), model.heads
    number = 2 if work.low_precision else FLOAT32
    rows, predicted = (work.clips * frames * sizes.places for frames in (work.frames, work.predicted))
    everything = work.frames * sizes.places
    in_space, in_time = (everything, everything) if work.flat else (sizes.places, work.frames)
    spatial = layer_bytes(sizes, heads, rows, rows, in_space, work)
    temporal = layer_bytes(sizes, heads, rows, rows, in_time, work)
    last_temporal = layer_bytes(sizes, heads, rows, min(predicted, rows), in_time, work)  # the others have no output
    tokens = work.clips * sizes.tokens
    embedded = tokens * work.frames * (sizes.token_dim * number + 1)
    head = head_bytes(sizes, work) + predicted * (FLOAT32 * sizes.width + STATISTICS)
    if not work.checkpointing:
        return Activations(embedded, sizes.depth * spatial, (sizes.depth - 1) * temporal + last_temporal, head)
    inputs = sizes.depth * rows * sizes.width * FLOAT32
    # The head's part is gone when the first block is computed again.
    if head >= spatial + temporal:
        return Activations(embedded + inputs, 0, 0, head)
    return Activations(embedded + inputs, spatial, temporal, 0)


def layer_bytes(sizes: Sizes, heads: int, rows: int, queries: int, keys: int, work: Workload) -> int:
    """One Transformer layer on `rows` places, of which `queries` have an output, each attending to `keys`.

    Kept are the inputs of both norms (the residual stream, float32 under autocast too), of the four linear layers and
    of the GELU, and queries, keys and values; besides, by plain attention its probabilities, by fused attention its
    output (once more) and a number a query and head. Each mask of dropout is a byte a number; the fused kernels have
    none of the attention's.
    """
    number = 2 if work.low_precision else FLOAT32
    norm = FLOAT32 * sizes.width + STATISTICS
    attention = number * sizes.width + heads * FLOAT32 if work.fused_attention else number * heads * keys
    in_rows = norm + 3 * sizes.width * number  # the norm's output, keys, values
    masks = sizes.width * (work.projection_dropout > 0) + (sizes.mlp + sizes.width) * (work.mlp_dropout > 0)
    if work.attention_dropout and not work.fused_attention:
        masks += heads * keys
    in_queries = (
        masks + norm + (3 * sizes.width + 2 * sizes.mlp) * number + attention
    )  # queries, attended, the norm's output
    return rows * in_rows + queries * in_queries


def head_bytes(sizes: Sizes, work: Workload) -> int:
    """The head and its loss, in float32: a row for each draw of each hidden token.

    A residual block keeps 10 h a row (its modulation 3, 1 + scale, the norm's input and output, the two linear layers'
    and the activation's inputs, what the gate multiplies), the condition 2 h, the output layer 4 h, the noisy token and
    the loss 14 D; an embedded diffusion time (each step once) its sinusoids and 2 h. A categorical head keeps its input
    and the V log-probabilities of each token, and the token's code; a velocity head its input, and 4 D of the loss.
    """
    tokens = head_tokens(sizes, work)
    if sizes.codes:
        return tokens * (FLOAT32 * (sizes.width + sizes.codes) + CODE)
    if sizes.velocity:
        return FLOAT32 * tokens * (sizes.width + 4 * sizes.token_dim)
    h, draws = sizes.head_width, tokens * work.repeats
    row = (10 * sizes.head_depth + 6) * h + 14 * sizes.token_dim
    times = min(draws, NUM_TRAIN_STEPS) * (sizes.frequencies + 2 * h)
    if sizes.head_out == sizes.token_dim:  # the flow head: a simpler loss, and times that do not repeat
        row, times = row - 11 * sizes.token_dim, draws * (sizes.frequencies + 2 * h)
    return FLOAT32 * (tokens * sizes.width + draws * row + times) + draws * (sizes.head_depth + 1) * STATISTICS


def head_tokens(sizes: Sizes, work: Workload) -> int:
    """Masked tokens of a micro batch in all but one of fifty steps, as many as the head's rows are padded to."""
    frames = work.clips * work.predicted
    most = min(1.0, work.hidden + 2 * work.spread / frames**0.5)
    return padded(round(frames * sizes.tokens * most))


def temporary_bytes(sizes: Sizes, work: Workload) -> int:
    """Two of the largest tensors that a backward makes on its way: the MLP's, or the head's modulations or logits."""
    number = 2 if work.low_precision else FLOAT32
    mlp = work.clips * work.frames * sizes.places * sizes.mlp * number
    head = head_tokens(sizes, work) * (sizes.codes or work.repeats * 3 * sizes.head_width) * FLOAT32
    return 2 * max(mlp, head)
