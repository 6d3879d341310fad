"""Condition tokens: the one mechanism by which anything but pixels reaches a frame.

Each condition (the noise level, an action, a class label, text) is one token or several in front of the frame's own
tokens in the spatial layers, so every frame carries its own. Four kinds: an *index* (a row of a table; −1 = unknown),
a *vector* (a linear map, e.g. which buttons were held; NaN = unknown), a *sequence* (up to L vectors, a token each:
the words of a text; NaN where there is none) and a *time* of diffusion (sinusoids and an MLP). Unknown has a learned
token of its own, which is also what `drop` puts in during training, and what classifier-free guidance sets against what
is asked for; a time is always known.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_video.models.architecture import ConditionSpec, condition_specs
from magi_video.models.embeddings import TimestepEmbedding
from magi_video.models.random import Generators, draw


def unknown(spec: ConditionSpec, batch: int, frames: int, device: torch.device | str = "cpu") -> Tensor:
    """The value that means "not given", for every frame: `[B, S]` of −1, `[B, S, size]` or `[B, S, L, size]` of NaN.

    A time that is not given is 0: no noise.
    """
    if spec.kind == "index":
        return torch.full((batch, frames), -1, device=device)
    if spec.kind == "time":
        return torch.zeros(batch, frames, device=device)
    shape = (spec.tokens, spec.size) if spec.kind == "sequence" else (spec.size,)
    return torch.full((batch, frames, *shape), torch.nan, device=device)


class IndexCondition(nn.Module):
    """A class index → its token."""

    def __init__(self, spec: ConditionSpec, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.size + 1, width)  # the last row is the unknown token

    def reset_parameters(self) -> None:
        """N(0, 1): as large as the sinusoids of time that are added to the token.

        MAR's N(0, 0.02) is as large as the embeddings of place that it adds to a class, and a LayerNorm follows. Here
        it would be lost: tokens of different classes would be the same to 4 %, and training hardly tell them apart.
        """
        self.table.reset_parameters()

    def forward(self, index_BS: Tensor) -> Tensor:
        """`[B, S]` integers in −1…size−1 → `[B, S, 1, width]`."""
        return self.table(torch.where(index_BS < 0, self.table.num_embeddings - 1, index_BS))[:, :, None]


class VectorCondition(nn.Module):
    """A vector → its token."""

    def __init__(self, spec: ConditionSpec, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(spec.size, width)
        self.unknown = nn.Parameter(torch.zeros(width))

    def reset_parameters(self) -> None:
        """N(0, 1), as a table's rows: an action is one entry of the vector, or a few.

        Xavier counts on all entries together and would make the token of a single one ten times too small.
        """
        nn.init.normal_(self.project.weight)
        nn.init.normal_(self.unknown)

    def forward(self, vector_BSA: Tensor) -> Tensor:
        """`[B, S, size]` floats, NaN where unknown → `[B, S, 1, width]`."""
        missing = vector_BSA.isnan().any(dim=-1, keepdim=True)
        token = self.project(torch.where(missing, 0.0, vector_BSA).to(self.unknown.dtype))
        return torch.where(missing, self.unknown.to(token.dtype), token)[:, :, None]


class SequenceCondition(nn.Module):
    """Up to L vectors → a token each; a place without a vector has the unknown token, so lengths need no mask."""

    def __init__(self, spec: ConditionSpec, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(spec.size, width)
        self.unknown = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(torch.zeros(spec.tokens, width))

    def forward(self, vectors_BSLA: Tensor) -> Tensor:
        """`[B, S, L, size]` floats, NaN where there is none → `[B, S, L, width]`."""
        missing = vectors_BSLA.isnan().any(dim=-1, keepdim=True)
        vectors = torch.where(missing, 0.0, vectors_BSLA).to(self.unknown.dtype)
        # Text encoders differ in the scale of their outputs by orders of magnitude.
        token = self.project(F.layer_norm(vectors, vectors.shape[-1:]))
        return torch.where(missing, self.unknown.to(token.dtype), token) + self.position.to(token.dtype)


class TimeCondition(nn.Module):
    """A diffusion time on the scale 0…1000 → its token: 256 sinusoids, then Linear–SiLU–Linear."""

    def __init__(self, spec: ConditionSpec, width: int) -> None:
        super().__init__()
        self.time_embed = TimestepEmbedding(width)

    def forward(self, time_BS: Tensor) -> Tensor:
        """`[B, S]` numbers → `[B, S, 1, width]`."""
        return self.time_embed(time_BS)[:, :, None]


KINDS = {"index": IndexCondition, "vector": VectorCondition, "sequence": SequenceCondition, "time": TimeCondition}


class ConditionTokens(nn.Module):
    """All conditions of a model, in alphabetical order (a saved configuration keeps no other).

    Attributes:
        specs: what each of them is, by name.
        count: tokens of all of them together.
    """

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], width: int) -> None:
        super().__init__()
        self.specs = condition_specs(specs)
        self.count = sum(spec.tokens for spec in self.specs.values())
        self.embed = nn.ModuleDict({name: KINDS[spec.kind](spec, width) for name, spec in self.specs.items()})

    def reset_parameters(self) -> None:
        """Initialise what Xavier is not for; vectors of words, whose entries all count, keep it."""
        for embed in self.embed.values():
            if isinstance(embed, (IndexCondition, VectorCondition)):
                embed.reset_parameters()

    def forward(self, values: dict[str, Tensor], batch: int, frames: int, device: torch.device) -> Tensor:
        """Tokens `[B, S, count, width]`; a condition without a value counts as unknown."""
        tokens = [
            embed(values[name] if name in values else unknown(self.specs[name], batch, frames, device))
            for name, embed in self.embed.items()
        ]
        return torch.cat(tokens, dim=2)

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
