"""What a user asks of videos, for each of them: a generator, and values of the model's condition tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from magi_video.errors import MagiError, counted
from magi_video.models.architecture import ACTION, LABEL, TEXT, ConditionSpec
from magi_video.models.random import Generators

Actions = Iterable[np.ndarray | None] | None
Texts = str | list[str] | None


def check_whole(**numbers: object) -> None:
    """Refuse what is no whole number; None says nothing."""
    for name, value in numbers.items():
        if value is not None and not isinstance(value, int | np.integer):
            raise MagiError(f"{name} must be a whole number, got {value!r}")


def check_seeds(first: int, count: int) -> None:
    """Refuse a first seed of `count` videos, seeded one after another, that PyTorch's generators do not take."""
    if not 0 <= first < 2**63 - count:
        raise MagiError(f"seed {first}; expected 0 or more, of 63 bits")


def check_guidance(specs: dict[str, ConditionSpec], guide: Sequence[str], asked: Mapping[str, object]) -> None:
    """Refuse guidance that has nothing to act on."""
    if isinstance(guide, str):
        raise MagiError(f"guide must be a list of conditions: [{guide!r}]")
    known = [name for name in (LABEL, TEXT, ACTION) if name in specs]
    if unknown := [name for name in guide if name not in (LABEL, TEXT, ACTION)]:
        raise MagiError(f"guide: unknown condition {unknown[0]!r}; this model takes {', '.join(known) or 'none'}")
    if not any(asked.get(name) is not None for name in guide):
        raise MagiError(
            f"guidance needs what it is to act on: none of {', '.join(guide) or 'nothing'} is given "
            f"(this model takes {', '.join(known) or 'none'}; guide names others)"
        )


def label_value(label: int | Sequence[int], spec: ConditionSpec, batch: int) -> Tensor:
    """Classes of B videos, `[B]`."""
    numbers = np.asarray(label)
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (1,), (batch,)):
        raise MagiError(f"label must be the number of a class, or one for each of {batch} videos; got {label!r}")
    labels = torch.from_numpy(numbers.astype(np.int64)).expand(batch)
    if labels.min() < 0 or labels.max() >= spec.size:
        raise MagiError(f"label must lie in 0…{spec.size - 1}, got {label}")
    return labels


def spread_texts(text: str | Sequence[str], batch: int) -> list[str]:
    """A text for each of B videos: the same for all, or one for each video or each given start."""
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else [text]
    if not all(isinstance(one, str) for one in texts):
        raise MagiError(f"a text must be words, or a list of such; got {text!r}")
    if not texts or batch % len(texts):
        raise MagiError(f"{len(texts)} texts were given for {batch} videos")
    return [one for one in texts for _ in range(batch // len(texts))]


def spread_generator(generator: Generators, batch: int) -> list[torch.Generator]:
    """One CPU generator for each of `batch` videos; from a single one, each is seeded by its next draw."""
    if isinstance(generator, list):
        if len(generator) != batch:
            raise MagiError(f"{len(generator)} generators were given for {batch} videos")
        return generator
    if not isinstance(generator, torch.Generator | None):
        raise MagiError(f"generator must be a torch.Generator, or one for each video; got {generator!r}")
    device = "cpu" if generator is None else generator.device
    seeds = torch.randint(2**62, (batch,), generator=generator, device=device).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class FrameActions:
    """Actions as vectors, and their means over what a latent frame holds.

    Args:
        names: of an action's columns.
        batch: videos B.
        factor: frames that a latent frame holds; the first stands alone.
    """

    def __init__(self, names: Sequence[str], batch: int, factor: int) -> None:
        self.names, self.batch, self.factor = names, batch, factor

    def each_frame(
        self, actions: Actions, constant: dict[str, Tensor], num_frames: int | None
    ) -> Iterator[dict[str, Tensor]]:
        """Conditions of each latent frame, in order, without end: `constant`, and the mean of its known actions.

        Args:
            actions: for each frame the one that leads to it. Behind the end of a generator they are unknown.
            constant: conditions that stay.
            num_frames: of the video, for each of which an array or a list must have an entry; None without end.

        Raises:
            MagiError: an array or a list is too short or too long, or an action in it has a wrong shape.
        """
        if isinstance(actions, np.ndarray | list | tuple):
            for action in actions:
                if action is not None:
                    self.vector(action)  # refuse a wrong shape before the first frame
            if num_frames is not None and len(actions) != num_frames:
                raise MagiError(
                    f"actions must have an entry for each of {counted(num_frames, 'frame')}, None where nothing is "
                    f"known, got {len(actions)}"
                )
        return self._each_frame(iter(() if actions is None else actions), constant)

    def _each_frame(
        self, actions: Iterator[np.ndarray | None], constant: dict[str, Tensor]
    ) -> Iterator[dict[str, Tensor]]:
        next(actions, None)  # nothing led to the first frame
        yield constant
        while True:
            held = itertools.islice(actions, self.factor)
            known = [self.vector(action) for action in held if action is not None]
            yield constant | ({ACTION: torch.stack(known).mean(dim=0)} if known else {})

    def vector(self, action: np.ndarray) -> Tensor:
        """An action `[A]` or `[B, A]` as float32 `[B, A]`."""
        size = len(self.names)
        try:
            vector = torch.as_tensor(np.asarray(action, dtype=np.float32))
        except (ValueError, TypeError):
            vector = torch.zeros(0)
        if vector.shape not in ((size,), (self.batch, size)):
            got = repr(action) if isinstance(action, str) else list(np.shape(action))
            raise MagiError(f"an action is a vector of {size} ({', '.join(self.names)}), as of pipe.action; got {got}")
        return vector.expand(self.batch, size)
