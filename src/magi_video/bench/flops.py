"""Floating-point operations of the model's matrix products, by formula. Imports no PyTorch.

A multiply-add is 2 operations. Only matrix products count: linear layers and the two products of attention. The
formulas are those of the algorithm, all its passes in full; a program that leaves out what nobody reads does less, so
`counting.py` counts what really ran.

Symbols: W width, M width of the MLP, N tokens and L places of a frame (condition tokens + tokens), D numbers of a
token, h width of the head, B clips, S frames of a pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from magi_video.files.shapes import head_inputs, head_outputs
from magi_video.models.architecture import TIME_FREQUENCIES, Architecture


@dataclass(frozen=True)
class Flops:
    """Operations by part of the network."""

    embedding: int = 0
    spatial_linear: int = 0
    spatial_attention: int = 0
    temporal_linear: int = 0
    temporal_attention: int = 0
    head: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})

    def __mul__(self, times: int) -> "Flops":
        return Flops(**{name: times * value for name, value in asdict(self).items()})

    @property
    def total(self) -> int:
        """Of all parts."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Sizes:
    """The numbers of a model that its operations depend on.

    Attributes:
        width, mlp, depth: W, M and the number of blocks (a spatial and a temporal layer each).
        tokens, places, token_dim: N, L and D.
        vectors: numbers in a frame's vector, sequence and time conditions, each of which goes through a linear layer.
        head_width, head_depth, head_in, head_out: h, the residual blocks of the head, numbers that it reads of a token
            and of its output.
        frequencies: of the head's embedding of the diffusion time.
        codes: V of a categorical head, which is one linear layer; 0 of the others.
        velocity: whether the head is Diffusion Forcing's linear layer.
        timed: a frame's time conditions, each of which goes through a second linear layer.
    """

    width: int
    mlp: int
    depth: int
    tokens: int
    places: int
    token_dim: int
    vectors: int
    head_width: int
    head_depth: int
    head_in: int
    head_out: int
    frequencies: int
    codes: int = 0
    velocity: bool = False
    timed: int = 0

    @classmethod
    def of(cls, architecture: Architecture) -> "Sizes":
        """Those of a model."""
        specs = architecture.specs.values()
        return cls(
            width=architecture.width,
            mlp=architecture.mlp_width,
            depth=architecture.depth,
            tokens=architecture.num_tokens,
            places=architecture.num_places,
            token_dim=architecture.token_dim,
            vectors=sum(spec.size * spec.tokens for spec in specs if spec.kind in ("vector", "sequence"))
            + TIME_FREQUENCIES * sum(spec.kind == "time" for spec in specs),
            head_width=architecture.head_width,
            head_depth=architecture.head_depth,
            head_in=head_inputs(architecture),
            head_out=head_outputs(architecture),
            frequencies=TIME_FREQUENCIES,
            codes=architecture.codes or 0,
            velocity=architecture.head == "velocity",
            timed=sum(spec.kind == "time" for spec in specs),
        )


def pass_flops(sizes: Sizes, frames: int, keys: int, flat: bool = False) -> Flops:
    """One pass of the transformer over `frames` frames, each of which attends to `keys` frames along time.

    Every place of a frame costs 2 (4 W² + 2 W M) in the linear layers of each of the two layers of a block (24 W² at
    M = 4 W), 4 L W in spatial and 4 `keys` W in temporal attention; embedding it 2 (N D + vectors + timed W) W a
    frame. A sequence without a cache attends under a mask; its products are computed in full: `keys` is its length.

    With `flat` every layer attends to all places of the `keys` frames.
    """
    width, places = sizes.width, frames * sizes.places
    linear = sizes.depth * places * 2 * (4 * width**2 + 2 * width * sizes.mlp)
    return Flops(
        embedding=frames * 2 * (sizes.tokens * sizes.token_dim + sizes.vectors + sizes.timed * width) * width,
        spatial_linear=linear,
        spatial_attention=sizes.depth * places * 4 * sizes.places * (keys if flat else 1) * width,
        temporal_linear=linear,
        temporal_attention=sizes.depth * places * 4 * keys * (sizes.places if flat else 1) * width,
    )


def head_flops(sizes: Sizes, tokens: int, evaluations: int, times: int) -> Flops:
    """The head on `tokens` tokens, each of which its network sees `evaluations` times.

    A token's condition costs 2 W h once; an evaluation 2 (D h + 5 h² for each residual block + 2 h² + h · outputs);
    each of `times` diffusion times (one an evaluation of all tokens in sampling, one a row in training)
    2 (frequencies · h + h²). Of a categorical head a token costs 2 W V, of a velocity head 2 W D, once.
    """
    if sizes.velocity:
        return Flops(head=2 * tokens * sizes.width * sizes.token_dim)
    if sizes.codes:
        return Flops(head=2 * tokens * sizes.width * sizes.codes)
    h = sizes.head_width
    row = sizes.head_in * h + sizes.head_depth * 5 * h**2 + 2 * h**2 + h * sizes.head_out
    return Flops(head=2 * (tokens * (sizes.width * h + evaluations * row) + times * (sizes.frequencies * h + h**2)))


def frame_flops(
    sizes: Sizes, batch: int, schedule: Sequence[int], denoise_steps: int | Sequence[int], past: int, window: int | None
) -> Flops:
    """One generated frame over a cache of `past` frames: K passes over it and one over the frame before, and the head.

    Args:
        sizes: of the model.
        batch: videos B, made together.
        schedule: tokens that each of the K mask steps predicts; they sum to N.
        denoise_steps: evaluations of the head for each token; a number for each mask step where they differ.
        past: frames before it.
        window: frames in sight, the frame itself included; None for all.
    """
    in_sight = window or past + 1
    passes = pass_flops(sizes, batch, min(past + 1, in_sight)) * len(schedule)
    observation = pass_flops(sizes, batch, min(past, in_sight)) if past else Flops()
    return passes + observation + scheduled_head_flops(sizes, batch, schedule, denoise_steps)


def scheduled_head_flops(
    sizes: Sizes, batch: int, schedule: Sequence[int], denoise_steps: int | Sequence[int]
) -> Flops:
    """The head over all mask steps of a frame; arguments as of `frame_flops`."""
    by_step = [denoise_steps] * len(schedule) if isinstance(denoise_steps, int) else denoise_steps
    steps = (
        head_flops(sizes, batch * count, evaluations, times=evaluations)
        for count, evaluations in zip(schedule, by_step, strict=True)
    )
    return sum(steps, Flops())


def token_frame_flops(
    sizes: Sizes, batch: int, denoise_steps: int | Sequence[int], past: int, window: int | None, flat: bool
) -> Flops:
    """One frame generated token by token: every place of it is read once, and with `flat` the frame is done then.

    Else a finished frame is read once more. Arguments as of `frame_flops`; a place attends to those of its frame that
    are there already, half of them on average; with `flat` to all slots of the cache.
    """
    in_sight = window or past + 1
    read = pass_flops(sizes, batch, min(past + 1, in_sight), flat)
    observation = pass_flops(sizes, batch, min(past, in_sight)) if past and not flat else Flops()
    if not flat:
        conditions, tokens = sizes.places - sizes.tokens, sizes.tokens
        pairs = (conditions + 1) ** 2 + sum(conditions + place + 1 for place in range(1, tokens))
        read = replace(read, spatial_attention=sizes.depth * batch * 4 * pairs * sizes.width)
    return read + observation + scheduled_head_flops(sizes, batch, [1] * sizes.tokens, denoise_steps)


def reread_flops(
    sizes: Sizes, batch: int, schedule: Sequence[int], denoise_steps: int | Sequence[int], frames: int, made: int
) -> Flops:
    """A frame's share of a step without a cache, which reads `frames` frames in every pass and makes `made` of them.

    The other arguments as of `frame_flops`; the tokens of the schedule are those of all frames that are read and new.
    """
    head = scheduled_head_flops(sizes, batch, schedule, denoise_steps)
    step = pass_flops(sizes, batch * frames, frames) * len(schedule) + head
    return Flops(**{name: value // made for name, value in asdict(step).items()})


def training_flops(
    sizes: Sizes, batch: int, frames: int, predicted: int, repeats: int, flat: bool = False
) -> tuple[Flops, Flops]:
    """Forward and backward of a training step.

    Every product has two in the backward, one for each factor's gradient; but the data (tokens, vector conditions,
    noisy tokens, times) asks for none, so the layers that read it have one. A categorical head looks up the targets'
    codes, 2 D V a token, which has no backward.

    Args:
        sizes: of the model.
        batch: clips B.
        frames: of the training sequence, S (twice a clip's frames under complete teacher forcing).
        predicted: hidden tokens of all clips together.
        repeats: diffusion draws for each of them.
        flat: whether every layer attends among all tokens of the sequence.
    """
    rows, h = predicted * repeats, sizes.head_width
    read = pass_flops(sizes, batch * frames, frames, flat)
    hidden = 2 * batch * frames * sizes.timed * sizes.width**2  # the second layer of a time reads no data
    from_data = Flops(embedding=read.embedding - hidden)
    if sizes.velocity:
        forward = read + head_flops(sizes, predicted, 1, times=0)
        return forward, forward * 2 + from_data * -1
    if sizes.codes:
        head = head_flops(sizes, predicted, 1, times=0)
        targets = Flops(head=2 * predicted * sizes.token_dim * sizes.codes)
        return read + head + targets, (read + head) * 2 + from_data * -1
    forward = read + head_flops(sizes, predicted, repeats, times=rows)
    from_data = from_data + Flops(head=2 * rows * (sizes.token_dim + sizes.frequencies) * h)
    return forward, forward * 2 + from_data * -1


def exposure_flops(
    cure: Mapping[str, Any], sizes: Sizes, batch: int, frames: int, clip_frames: int
) -> tuple[Flops, Flops]:
    """What a cure for exposure bias adds to the forward and the backward of a training step, once it is at work.

    All frames but a clip's last are reconstructed in a pass each, over the cache and without gradient, that reads the
    frame before as well; one frame by the head alone. A canvas is one more pass over the whole sequence, a linear layer
    of its z, and one more product of the embedding.

    Args:
        cure: its values (`registry.declared`).
        sizes, batch, frames: as of `training_flops`.
        clip_frames: T, of a clip.
    """
    ahead, back = Flops(), Flops()
    made = {"one": 1, "all": clip_frames - 1}.get(cure.get("reconstructs", "nothing"), 0)
    if made:
        tokens = batch * made * sizes.tokens
        ahead = ahead + head_flops(sizes, tokens, 1, times=tokens)
    if cure.get("reconstructs") == "all":
        passes = (pass_flops(sizes, batch * min(t + 1, 2), t + 1) for t in range(made))
        ahead = ahead + sum(passes, Flops())
    if cure.get("canvas"):
        read = pass_flops(sizes, batch * frames, frames)
        over = Flops(embedding=2 * batch * min(frames, clip_frames) * sizes.tokens * sizes.token_dim * sizes.width)
        painted = Flops(head=2 * batch * min(frames, clip_frames) * sizes.tokens * sizes.token_dim * sizes.width)
        ahead = ahead + read + painted + over
        back = back + (read + painted) * 2 + Flops(embedding=read.embedding) * -1 + over
    return ahead, back
