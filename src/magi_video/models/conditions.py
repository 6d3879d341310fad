"""Condition tokens: the one mechanism by which anything but pixels reaches a frame.

Each condition (the noise level, an action, a class label, later text) is one token in front of the frame's own tokens
in the spatial layers, so every frame carries its own. Two kinds: an *index* (a row of a table; −1 = unknown) and a
*vector* (a linear map, e.g. which buttons were held; NaN = unknown). Unknown has a learned token of its own, which is
also what `drop` puts in during training, so that guidance can be added without retraining.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from magi_video.models.draws import Generators, draw
from magi_video.models.linear import Linear

NOISE_LEVEL = "noise_level"
ACTION = "action"
LABEL = "label"


@dataclass(frozen=True)
class ConditionSpec:
    """What one condition is.

    Attributes:
        size: number of classes (index) or length of the vector.
        kind: "index" or "vector".
        drop: probability, per clip, that training hides the condition.
    """

    size: int
    kind: Literal["index", "vector"] = "index"
    drop: float = 0.0


def unknown(spec: ConditionSpec, batch: int, frames: int, device: torch.device | str = "cpu") -> Tensor:
    """The value that means "not given", for every frame: `[B, S]` of −1, or `[B, S, size]` of NaN."""
    if spec.kind == "index":
        return torch.full((batch, frames), -1, device=device)
    return torch.full((batch, frames, spec.size), torch.nan, device=device)


class IndexCondition(nn.Module):
    """A class index → its token."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(size + 1, width)  # the last row is the unknown token

    def forward(self, index_BS: Tensor) -> Tensor:
        """`[B, S]` integers in −1…size−1 → `[B, S, width]`."""
        return self.table(torch.where(index_BS < 0, self.table.num_embeddings - 1, index_BS))


class VectorCondition(nn.Module):
    """A vector → its token."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.project = Linear(size, width)
        self.unknown = nn.Parameter(torch.zeros(width))

    def forward(self, vector_BSA: Tensor) -> Tensor:
        """`[B, S, size]` floats, NaN where unknown → `[B, S, width]`."""
        missing = vector_BSA.isnan().any(dim=-1, keepdim=True)
        token = self.project(torch.where(missing, 0.0, vector_BSA).to(self.unknown.dtype))
        return torch.where(missing, self.unknown.to(token.dtype), token)


class ConditionTokens(nn.Module):
    """All conditions of a model, in alphabetical order (a saved configuration keeps no other)."""

    def __init__(self, specs: dict[str, dict[str, Any]], width: int) -> None:
        super().__init__()
        self.specs = {name: ConditionSpec(**specs[name]) for name in sorted(specs)}
        kinds: dict[str, type[nn.Module]] = {"index": IndexCondition, "vector": VectorCondition}
        self.embed = nn.ModuleDict({name: kinds[spec.kind](spec.size, width) for name, spec in self.specs.items()})

    def forward(self, values: dict[str, Tensor], batch: int, frames: int, device: torch.device) -> Tensor:
        """Tokens `[B, S, number of conditions, width]`; a condition without a value counts as unknown."""
        tokens = [
            embed(values[name] if name in values else unknown(self.specs[name], batch, frames, device))
            for name, embed in self.embed.items()
        ]
        return torch.stack(tokens, dim=2)

    def drop(self, values: dict[str, Tensor], generator: Generators) -> dict[str, Tensor]:
        """Hide each condition of whole clips with its own probability (classifier-free training)."""
        kept = dict(values)
        for name, spec in self.specs.items():
            if spec.drop > 0 and name in kept:
                value = kept[name]
                hide = draw(torch.rand, value.shape[:1], generator, value.device) < spec.drop
                missing = -1 if spec.kind == "index" else torch.nan
                kept[name] = value.masked_fill(hide.view(-1, *[1] * (value.ndim - 1)), missing)
        return kept
