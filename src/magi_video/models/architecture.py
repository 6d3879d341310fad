"""What a transformer is before it is built: sizes, positions, conditions and head, checked, without PyTorch."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field

from magi_video.errors import MagiError, spanned
from magi_video.registry import declared
from magi_video.settings import MAX_SIZE, Size, settings

NOISE_LEVEL = "noise_level"
ACTION = "action"
LABEL = "label"
TEXT = "text"
CATEGORICAL = "categorical"
"""The head of discrete tokens."""
TIME_FREQUENCIES = 256
"""Sinusoids of a diffusion time (MAR)."""
NUM_TRAIN_STEPS = 1000
"""Diffusion times that the epsilon head is trained at."""


@settings
class ConditionSpec:
    """What one condition is.

    Attributes:
        size: number of classes (index), length of a vector, or times 0…size (time).
        kind: "index", "vector", "sequence" or "time".
        drop: probability, per clip, that training hides the condition.
        tokens: L, condition tokens that it becomes; more than one for a sequence alone.
    """

    size: Size
    kind: Literal["index", "vector", "sequence", "time"] = "index"
    drop: float = 0.0
    tokens: Size = 1

    def __post_init__(self) -> None:
        if self.tokens > 1 and self.kind != "sequence":
            raise MagiError(f"{self.tokens} tokens of a condition of kind {self.kind!r}; only a sequence has several")


def check_first_step(head: str, first_step: int) -> None:
    """Refuse a diffusion time at which no sampler of a head can begin.

    Args:
        head: its name.
        first_step: 0…999 for the epsilon head; the others have none to choose.
    """
    if head != "epsilon":
        raise MagiError(f"a {head} head has no first denoise step to choose, got {first_step}")
    if not 0 <= first_step < NUM_TRAIN_STEPS:
        raise MagiError(f"the first denoise step must lie in 0…{NUM_TRAIN_STEPS - 1}, got {first_step}")


def condition_specs(conditions: Mapping[str, Mapping[str, Any]]) -> dict[str, ConditionSpec]:
    """The conditions of a configuration, in alphabetical order (a saved configuration keeps no other).

    Raises:
        MagiError: a size or a kind that there is not, or several tokens of a kind that has one.
    """
    specs = {}
    for name in sorted(conditions):
        try:
            specs[name] = ConditionSpec(**conditions[name])
        except MagiError as error:
            raise MagiError(f"condition {name}: {error}") from None
    return specs


def check_interval(interval: int, largest: int, name: str = "interval") -> None:
    """Refuse an interval that a model was not trained for.

    Args:
        interval: asked for.
        largest: `Architecture.max_interval`.
        name: of the setting, for the message.

    Raises:
        MagiError: it is none of 1…largest.
    """
    if not 1 <= interval <= largest:
        expected = "be 1" if largest == 1 else f"lie in {spanned(1, largest)}"
        raise MagiError(f"{name} must {expected} for this model, got {interval}")


@settings
class Architecture:
    """What a transformer is built by, checked; and what follows from it.

    Attributes:
        latent_channels: channels C of a latent frame.
        latent_height, latent_width: its size, multiples of `patch_size`.
        patch_size: side P of the square that makes one token of D = C·P² numbers.
        num_frames: frames T of a training clip.
        width, depth, heads, mlp_width: of the blocks; one block is two Transformer layers.
        head: "epsilon" (MAR's), "flow", "distributional" (of few steps), "categorical" for discrete tokens, or
            "velocity" (Diffusion Forcing's).
        head_width, head_depth: of the diffusion head's MLP; the two last ones have none.
        num_intervals: size of the interval vocabulary (25 in the paper).
        max_interval: largest interval that training showed; `num_intervals` at most.
        conditions: name → {"size", "kind", "drop", "tokens"} of each condition; see `ConditionSpec`.
        temporal_position: "interpolate" (sinusoids added to the input; rollouts longer than T interpolate them, their
            length fixed at the start) or "rope" (relative, unbounded rollouts over a sliding window of T frames).
        codes: of the categorical head, as many as the codec has.
        canvas: whether the model has a canvas: a linear layer of z makes what is read in masked places.

    Raises:
        MagiError: a size, a head or a position that no model can have.
    """

    latent_channels: Size = 4
    latent_height: Size = 32
    latent_width: Size = 32
    patch_size: Size = 2
    num_frames: Size = 16
    width: Size = 1280
    depth: Size = 20
    heads: Size = 16
    mlp_width: Size = 5120
    head: str = "epsilon"
    head_width: Size = 1024
    head_depth: Size = 3
    num_intervals: Size = 25
    max_interval: Size = 25
    conditions: Mapping[str, Any] | None = None
    temporal_position: Literal["interpolate", "rope"] = "interpolate"
    codes: Annotated[int, Field(ge=2, le=MAX_SIZE)] | None = None
    canvas: bool = False

    def __post_init__(self) -> None:
        height, columns, patch = self.latent_height, self.latent_width, self.patch_size
        if height % patch or columns % patch:
            raise MagiError(f"latent size {height}×{columns} is not a multiple of patch size {patch}")
        if self.width % 4 or self.width % self.heads or (self.width // self.heads) % 2:
            raise MagiError(f"width {self.width} must be a multiple of 4 and of twice the {self.heads} heads")
        if self.head not in (heads := declared("models")):
            raise MagiError(f"unknown head {self.head!r}: choose from {', '.join(heads)}")
        if self.head != CATEGORICAL and self.codes is not None:
            raise MagiError(f"a model with codes ({self.codes}) has a categorical head, not {self.head!r}")
        if self.head == CATEGORICAL and self.codes is None:
            raise MagiError(
                "a categorical head needs a codec of codes (vq, vq_model): this one's latents are continuous"
            )
        if self.codes is not None and patch != 1:
            raise MagiError(f"a categorical head predicts one code a token: patch_size must be 1, got {patch}")
        if self.max_interval > self.num_intervals:
            raise MagiError(f"max_interval {self.max_interval} must lie in 1…{self.num_intervals}")
        condition_specs(self.conditions or {})

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Architecture":
        """That of settings by name; those that it does not know are left out."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in known})

    @property
    def specs(self) -> dict[str, ConditionSpec]:
        """Its conditions, by name."""
        return condition_specs(self.conditions or {NOISE_LEVEL: {"size": 6}})

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a frame's tokens."""
        return self.latent_height // self.patch_size, self.latent_width // self.patch_size

    @property
    def num_tokens(self) -> int:
        """N, of a frame."""
        return self.grid[0] * self.grid[1]

    @property
    def token_dim(self) -> int:
        """D, numbers of a token."""
        return self.latent_channels * self.patch_size**2

    @property
    def num_places(self) -> int:
        """L: condition tokens and tokens of a frame."""
        return self.num_tokens + sum(spec.tokens for spec in self.specs.values())
