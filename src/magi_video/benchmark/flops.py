"""Floating-point operations of the model's matrix products: by formula, and counted while they run.

A multiply-add is 2 operations. Only matrix products count: linear layers and the two products of attention. The
formulas are those of the algorithm, all its passes in full; a program that leaves out what nobody reads does less, so
`count_executed` counts what really ran, and shares of a machine's peak are taken from the smaller of the two.

Symbols: W width, M width of the MLP, N tokens and L places of a frame (condition tokens + tokens), D numbers of a
token, h width of the head, B clips, S frames of a pass.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from magi_video.models import MagiTransformer


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
        vectors: numbers in a frame's vector and sequence conditions, each of which goes through a linear layer.
        head_width, head_depth, head_out: h, the residual blocks of the head, and numbers of its output.
        frequencies: of the head's embedding of the diffusion time.
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
    head_out: int
    frequencies: int

    @classmethod
    def of(cls, model: MagiTransformer) -> "Sizes":
        """Those of a model (it may lie on the meta device)."""
        config, net, specs = model.config, model.diffusion_head.net, model.condition_tokens.specs.values()
        return cls(
            width=config.width,
            mlp=config.mlp_width,
            depth=config.depth,
            tokens=model.num_tokens,
            places=model.num_places,
            token_dim=model.token_dim,
            vectors=sum(spec.size * spec.tokens for spec in specs if spec.kind != "index"),
            head_width=config.head_width,
            head_depth=config.head_depth,
            head_out=net.token_out.out_features,
            frequencies=net.time_embed.frequencies,
        )


def pass_flops(sizes: Sizes, frames: int, keys: int) -> Flops:
    """One pass of the transformer over `frames` frames, each of which attends to `keys` frames along time.

    Every place of a frame costs 2 (4 W² + 2 W M) in the linear layers of each of the two layers of a block (24 W² at
    M = 4 W), 4 L W in spatial and 4 `keys` W in temporal attention; embedding it 2 (N D + vectors) W a frame. A
    sequence without a cache attends under a mask; its products are computed in full, so `keys` is its length.
    """
    width, places = sizes.width, frames * sizes.places
    linear = sizes.depth * places * 2 * (4 * width**2 + 2 * width * sizes.mlp)
    return Flops(
        embedding=frames * 2 * (sizes.tokens * sizes.token_dim + sizes.vectors) * width,
        spatial_linear=linear,
        spatial_attention=sizes.depth * places * 4 * sizes.places * width,
        temporal_linear=linear,
        temporal_attention=sizes.depth * places * 4 * keys * width,
    )


def head_flops(sizes: Sizes, tokens: int, evaluations: int, times: int) -> Flops:
    """The head on `tokens` tokens, each of which its network sees `evaluations` times.

    A token's condition costs 2 W h once; an evaluation 2 (D h + 5 h² for each residual block + 2 h² + h · outputs);
    each of `times` diffusion times (one an evaluation of all tokens in sampling, one a row in training)
    2 (frequencies · h + h²).
    """
    h = sizes.head_width
    row = sizes.token_dim * h + sizes.head_depth * 5 * h**2 + 2 * h**2 + h * sizes.head_out
    return Flops(head=2 * (tokens * (sizes.width * h + evaluations * row) + times * (sizes.frequencies * h + h**2)))


def frame_flops(
    sizes: Sizes, batch: int, schedule: Sequence[int], denoise_steps: int, past: int, window: int | None
) -> Flops:
    """One generated frame over a cache of `past` frames: K passes over it and one over the frame before, and the head.

    Args:
        sizes: of the model.
        batch: videos B, made together.
        schedule: tokens that each of the K mask steps predicts; they sum to N.
        denoise_steps: evaluations of the head for each token.
        past: frames before it.
        window: frames in sight, the frame itself included; None for all.
    """
    in_sight = window or past + 1
    passes = pass_flops(sizes, batch, min(past + 1, in_sight)) * len(schedule)
    observation = pass_flops(sizes, batch, min(past, in_sight)) if past else Flops()
    head = head_flops(sizes, batch * sum(schedule), denoise_steps, times=len(schedule) * denoise_steps)
    return passes + observation + head


def training_flops(sizes: Sizes, batch: int, frames: int, predicted: int, repeats: int) -> tuple[Flops, Flops]:
    """Forward and backward of a training step.

    Every product has two in the backward, one for each factor's gradient; but the data (tokens, vector conditions,
    noisy tokens, times) asks for none, so the layers that read it have one.

    Args:
        sizes: of the model.
        batch: clips B.
        frames: of the training sequence, S (twice a clip's frames under complete teacher forcing).
        predicted: hidden tokens of all clips together.
        repeats: diffusion draws for each of them.
    """
    rows, h = predicted * repeats, sizes.head_width
    read = pass_flops(sizes, batch * frames, frames)
    forward = read + head_flops(sizes, predicted, repeats, times=rows)
    from_data = Flops(embedding=read.embedding, head=2 * rows * (sizes.token_dim + sizes.frequencies) * h)
    return forward, forward * 2 + from_data * -1


def count_executed(function: Callable[[], Any], device: str = "cpu") -> int | None:
    """Operations that a call performs, counted as it runs; None if it runs a matrix product that cannot be counted."""
    watch = _Uncounted()
    # The CPU's fused attention is none of the operators that PyTorch counts; its plain form multiplies as much.
    attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    with attention, watch, FlopCounterMode(display=False) as counter:
        function()
    return None if watch.found else counter.get_total_flops()


class _Uncounted(TorchDispatchMode):
    """Notes operators that multiply matrices, by their names, and that PyTorch has no formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        products = ("mm", "matmul", "linear", "attention", "convolution")
        if any(word in name for word in products) and getattr(func, "overloadpacket", func) not in flop_registry:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def peak_share(algorithm: int, executed: int | None, seconds: float, peak_gflops: float) -> float:
    """Share of the measured peak: the smaller count over the seconds it took, over the peak."""
    return min(algorithm, algorithm if executed is None else executed) / seconds / (peak_gflops * 1e9)
