"""What a transformer is before it is built: its sizes, and the shapes of its weights by arithmetic, without PyTorch.

`magi info` and `magi plan` answer from this alone; `MagiVideoTransformer` checks its arguments by it. The tests hold
the shapes against the ones of the built network.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from magi_video.errors import MagiError

NOISE_LEVEL = "noise_level"
ACTION = "action"
LABEL = "label"
TEXT = "text"
VELOCITY = "velocity"
"""The linear head of Diffusion Forcing."""
HEAD_OUTPUTS = {"epsilon": 2, "flow": 1, VELOCITY: 1}
"""Numbers that each diffusion head predicts for one of a token: the epsilon head learns variances too."""
COSINE_HEADS = ("epsilon", VELOCITY)
"""Heads with the `NUM_TRAIN_STEPS` times of the cosine schedule."""
CATEGORICAL = "categorical"
"""The head of discrete tokens."""
HEADS = (*HEAD_OUTPUTS, CATEGORICAL)
CODEBOOK = "diffusion_head.codebook"
"""Name of the vectors of its codes, the only weights that are not trained."""
TEMPORAL_POSITIONS = ("interpolate", "rope")
TIME_FREQUENCIES = 256
"""Sinusoids of a diffusion time (MAR)."""
NUM_TRAIN_STEPS = 1000
"""Diffusion times that the epsilon head is trained at."""
MAX_SIZE = 2**16
"""Of anything a model has a number of; a config that asks for more is damaged."""

Kind = Literal["index", "vector", "sequence", "time"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ConditionSpec:
    """What one condition is.

    Attributes:
        size: number of classes (index), length of a vector, or times 0…size (time).
        kind: "index", "vector", "sequence" or "time".
        drop: probability, per clip, that training hides the condition.
        tokens: L, condition tokens that it becomes; more than one for a sequence alone.
    """

    size: int
    kind: Kind = "index"
    drop: float = 0.0
    tokens: int = 1


def check_first_step(head: str, first_step: int) -> None:
    """Refuse a diffusion time at which no sampler of a head can begin.

    Args:
        head: one of `HEADS`.
        first_step: 0…999 for the epsilon head; the others have none to choose.
    """
    if head != "epsilon":
        raise MagiError(f"a {head} head has no first denoise step to choose, got {first_step}")
    if not 0 <= first_step < NUM_TRAIN_STEPS:
        raise MagiError(f"the first denoise step must lie in 0…{NUM_TRAIN_STEPS - 1}, got {first_step}")


def check_codes(head: str, codes: Any, patch_size: int) -> None:
    """Refuse a head without the tokens it is for.

    Args:
        head: one of `HEADS`.
        codes: of the codec, whole number from 2 to `MAX_SIZE`; None of one whose latents are continuous.
        patch_size: latent places on a token's side.
    """
    if head != CATEGORICAL:
        if codes is not None:
            raise MagiError(f"a model with codes ({str(codes)[:40]}) has a categorical head, not {head!r}")
        return
    if codes is None:
        raise MagiError("a categorical head needs a codec of codes (vq, vq_model): this one's latents are continuous")
    if type(codes) is not int or not 2 <= codes <= MAX_SIZE:
        raise MagiError(f"codes {str(codes)[:40]} must be a whole number from 2 to {MAX_SIZE}")
    if patch_size != 1:
        raise MagiError(f"a categorical head predicts one code a token: patch_size must be 1, got {patch_size}")


def condition_specs(conditions: Mapping[str, Mapping[str, Any]]) -> dict[str, ConditionSpec]:
    """The conditions of a configuration, in alphabetical order (a saved configuration keeps no other).

    Raises:
        MagiError: a size or a kind that there is not, or several tokens of a kind that has one.
    """
    specs = {name: ConditionSpec(**conditions[name]) for name in sorted(conditions)}
    for name, spec in specs.items():
        for size in (spec.size, spec.tokens):
            if type(size) is not int or not 1 <= size <= MAX_SIZE:
                raise MagiError(f"condition {name}: {str(size)[:40]} must be a whole number from 1 to {MAX_SIZE}")
        if spec.kind not in get_args(Kind) or (spec.tokens > 1 and spec.kind != "sequence"):
            raise MagiError(f"condition {name}: {spec.tokens} tokens of kind {spec.kind!r}; see ConditionSpec")
    return specs


@dataclass(frozen=True)
class Architecture:
    """What a transformer is built by, checked; and what follows from it.

    Attributes:
        latent_channels: channels C of a latent frame.
        latent_height, latent_width: its size, multiples of `patch_size`.
        patch_size: side P of the square that makes one token of D = C·P² numbers.
        num_frames: frames T of a training clip.
        width, depth, heads, mlp_width: of the blocks; one block is two Transformer layers.
        head: "epsilon" (MAR's), "flow", "categorical" for discrete tokens, or "velocity" (Diffusion Forcing's).
        head_width, head_depth: of the diffusion head's MLP; the two last ones have none.
        num_intervals: size of the interval vocabulary (25 in the paper).
        max_interval: largest interval that training showed; `num_intervals` at most.
        conditions: name → {"size", "kind", "drop", "tokens"} of each condition; see `ConditionSpec`.
        temporal_position: "interpolate" (sinusoids added to the input; rollouts longer than T interpolate them, their
            length fixed at the start) or "rope" (relative, unbounded rollouts over a sliding window of T frames).
        codes: of the categorical head, as many as the codec has.

    Raises:
        MagiError: a size, a head or a position that no model can have.
    """

    latent_channels: int = 4
    latent_height: int = 32
    latent_width: int = 32
    patch_size: int = 2
    num_frames: int = 16
    width: int = 1280
    depth: int = 20
    heads: int = 16
    mlp_width: int = 5120
    head: str = "epsilon"
    head_width: int = 1024
    head_depth: int = 3
    num_intervals: int = 25
    max_interval: int = 25
    conditions: Mapping[str, Any] | None = None
    temporal_position: str = "interpolate"
    codes: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "latent_channels", "latent_height", "latent_width", "patch_size", "num_frames", "width", "depth", "heads",
            "mlp_width", "head_width", "head_depth", "num_intervals",
        ):  # fmt: skip
            size = getattr(self, name)
            if type(size) is not int or not 1 <= size <= MAX_SIZE:
                raise MagiError(f"{name} {str(size)[:40]} must be a whole number from 1 to {MAX_SIZE}")
        height, columns, patch = self.latent_height, self.latent_width, self.patch_size
        if height % patch or columns % patch:
            raise MagiError(f"latent size {height}×{columns} is not a multiple of patch size {patch}")
        if self.width % 4 or self.width % self.heads or (self.width // self.heads) % 2:
            raise MagiError(f"width {self.width} must be a multiple of 4 and of twice the {self.heads} heads")
        if self.head not in HEADS:
            raise MagiError(f"unknown head {self.head!r}: choose from {', '.join(HEADS)}")
        check_codes(self.head, self.codes, self.patch_size)
        if self.temporal_position not in TEMPORAL_POSITIONS:
            raise MagiError(f"unknown temporal_position {self.temporal_position!r}: choose from {TEMPORAL_POSITIONS}")
        if not 1 <= self.max_interval <= self.num_intervals:
            raise MagiError(f"max_interval {self.max_interval} must lie in 1…{self.num_intervals}")
        condition_specs(self.conditions or {})

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Architecture":
        """That of settings by name; those that it does not know are left out."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in known})

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> "Architecture":
        """That of a `config.json`, which may be anything.

        Raises:
            MagiError: it describes no model; the message begins with `where`.
        """
        try:
            return cls.of(config)
        except MagiError as error:
            raise MagiError(f"{where}: {error}") from None
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise MagiError(f"{where}: not the config of a transformer ({error})") from None

    @property
    def specs(self) -> dict[str, ConditionSpec]:
        """Its conditions, by name."""
        return condition_specs(self.conditions or {NOISE_LEVEL: {"size": 6}})

    @property
    def num_tokens(self) -> int:
        """N, of a frame."""
        return (self.latent_height // self.patch_size) * (self.latent_width // self.patch_size)

    @property
    def token_dim(self) -> int:
        """D, numbers of a token."""
        return self.latent_channels * self.patch_size**2

    @property
    def num_places(self) -> int:
        """L: condition tokens and tokens of a frame."""
        return self.num_tokens + sum(spec.tokens for spec in self.specs.values())

    @property
    def head_outputs(self) -> int:
        """Numbers that the head predicts for a token."""
        return self.codes or HEAD_OUTPUTS[self.head] * self.token_dim

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Every parameter's name and shape."""
        width = self.width
        yield from _linear("token_in", self.token_dim, width)
        yield "mask_token", (width,)
        yield "kind_position", (2, self.num_tokens, width)
        yield "interval_embed.weight", (self.num_intervals, width)
        for name, spec in self.specs.items():
            yield from _condition(f"condition_tokens.embed.{name}", spec, width)
        for index in range(self.depth):
            for layer in ("spatial", "temporal"):
                yield from _layer(f"blocks.{index}.{layer}", width, self.mlp_width)
        yield from _norm("norm_out", width)
        yield "head_position", (self.num_tokens, width)
        if self.codes:
            yield CODEBOOK, (self.codes, self.token_dim)
            yield from _linear("diffusion_head.logits", width, self.codes)
        elif self.head == VELOCITY:
            yield from _linear("diffusion_head.velocity", width, self.token_dim)
        else:
            yield from self._head("diffusion_head.net", self.head_width)

    def _head(self, at: str, width: int) -> Iterator[tuple[str, Shape]]:
        yield from _linear(f"{at}.token_in", self.token_dim, width)
        yield from _linear(f"{at}.time_embed.mlp.0", TIME_FREQUENCIES, width)
        yield from _linear(f"{at}.time_embed.mlp.2", width, width)
        yield from _linear(f"{at}.condition_embed", self.width, width)
        for index in range(self.head_depth):
            yield from _norm(f"{at}.blocks.{index}.norm", width)
            yield from _linear(f"{at}.blocks.{index}.mlp.0", width, width)
            yield from _linear(f"{at}.blocks.{index}.mlp.2", width, width)
            yield from _linear(f"{at}.blocks.{index}.modulation", width, 3 * width)
        yield from _linear(f"{at}.modulation_out", width, 2 * width)
        yield from _linear(f"{at}.token_out", width, self.head_outputs)

    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of the spatial layers, the temporal layers, the head, and the rest (embeddings)."""
        parts = dict.fromkeys(("spatial", "temporal", "head", "embedding"), 0)
        for name, shape in self.shapes():
            parts[part_of(name)] += math.prod(shape)
        return parts


def part_of(name: str) -> str:
    """The part of the network that a parameter belongs to."""
    if name.startswith("blocks."):
        return name.split(".")[2]
    return "head" if name.startswith("diffusion_head.") else "embedding"


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
