"""The past of a rollout: what is kept of the finished frames, and how a frame in the making is read after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.head import Noise, TokenHead
from magi_video.models.memory import FrameMemory
from magi_video.models.sequence import FrameSequence, causal_mask
from magi_video.models.transformer import MagiVideoTransformer

if TYPE_CHECKING:
    from magi_video.paradigms.base import Paradigm
    from magi_video.sampling.sampling import Sampling

STRIDE = 4
"""Of the strided past, where none is given."""


class Past(Protocol):
    """What a rollout keeps of the frames that are finished."""

    def append(self, frame: FrameSequence) -> None:
        """Make a finished frame part of the past."""
        ...

    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """z `[B, n, width]` at some tokens of a frame that follows the past.

        Args:
            frame: the frame in the making; S > 1 where several are made together (over a cache each sees the others
                before it).
            places_Bn: the tokens whose z is asked for, counted through all S frames.
            changed_Bm: the tokens whose input has changed since the frame was last read, those of `places_Bn` at the
                end. A past that trades exactness for time may see the other tokens as they were; None forbids that.
        """
        ...

    def sample(
        self,
        head: TokenHead,
        frame: FrameSequence,
        places_Bn: Tensor,
        changed_Bm: Tensor | None,
        noise: Noise,
        options: dict[str, Any],
    ) -> Tensor:
        """The head's tokens at some places of a frame that follows the past, `[B, n, D]` float32: a mask step.

        Args:
            head: of the model.
            frame, places_Bn, changed_Bm: as of `read`.
            noise, options: as of `TokenHead.sample`.
        """
        return head.sample(self.read(frame, places_Bn, changed_Bm), noise, **options)


class CachedPast(Past):
    """The past as keys and values (paper, section 5.5): a finished frame is read once.

    Args:
        model: the transformer.
        batch: samples, both halves of guidance counted.
        total_frames: of the rollout; None for one without end ("rope").
        made: most frames that are made together.
        memory: frames that stay in sight beside the latest.
    """

    def __init__(
        self,
        model: MagiVideoTransformer,
        batch: int,
        total_frames: int | None,
        made: int = 1,
        memory: FrameMemory | None = None,
    ) -> None:
        self.model = model
        self.cache = model.make_cache(batch, total_frames, made, memory)

    @override
    def append(self, frame: FrameSequence) -> None:
        self.model(frame, self.cache)
        self.cache.advance()

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """Always exact."""
        return pick(self.model(frame, self.cache).flatten(1, 2), places_Bn)


class RecomputedPast(Past):
    """The past as frames, read again in every pass: the slow reference of `CachedPast`; arguments as there."""

    def __init__(self, model: MagiVideoTransformer, memory: FrameMemory | None = None) -> None:
        self.model = model
        self.memory = memory
        self.window = model.config.num_frames if model.config.temporal_position == "rope" else None
        self.frames: list[FrameSequence] = []

    @override
    def append(self, frame: FrameSequence) -> None:
        self.frames.append(frame)

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """Always exact."""
        sequence, made = FrameSequence.join([*self.frames, frame]), frame.tokens_BSND.shape[1]
        length, device = len(self.frames) + made, frame.tokens_BSND.device
        if self.memory is None:
            sequence.mask_SS = causal_mask(length, self.window, device)
        else:
            sequence.mask_SS, sequence.seen_at_SS = self.memory.table(length, device)
        return pick(self.model(sequence)[:, -made:].flatten(1, 2), places_Bn)


def pick(x_BL: Tensor, places_Bn: Tensor) -> Tensor:
    """`[B, L, …]` at each sample's own places: `[B, n, …]`."""
    if x_BL.shape[0] == 1:  # no index of samples is needed
        return x_BL.index_select(1, places_Bn[0])
    sample_B1 = torch.arange(places_Bn.shape[0], device=places_Bn.device)[:, None]
    return x_BL[sample_B1, places_Bn]


def find_memory(
    model: MagiVideoTransformer, paradigm: Paradigm, sampling: Sampling, total_frames: int | None = None
) -> FrameMemory | None:
    """The frames that a sampling keeps in sight beside the latest; None for no others.

    Args:
        model: the transformer.
        paradigm: as the sampling wants it.
        sampling: what is asked for.
        total_frames: of the rollout; None for one without end.

    Raises:
        MagiError: the model or the paradigm cannot, or too many are asked for.
    """
    sink, strided = sampling.sink_frames or 0, sampling.strided_frames or 0
    if sampling.past_stride is not None and sampling.strided_frames is None:
        raise MagiError("past_stride is of the strided past: give strided_frames, the number of its frames, too")
    if not sink + strided:
        return None
    window = model.config.num_frames
    if model.config.temporal_position != "rope":
        raise MagiError(
            "sink_frames and strided_frames are for models with relative positions (temporal_position='rope'): "
            "this one always has its whole past in sight"
        )
    if not paradigm.frame_cache or paradigm.step_frames(model, 0, total_frames) > 1:
        raise MagiError(
            f"sink_frames and strided_frames need frames that are made one by one over the frame cache, and "
            f"{paradigm.name} generates in another way"
        )
    if sink + strided > window - 2:
        raise MagiError(
            f"sink_frames and strided_frames must leave 2 of the {window} frames in sight to the newest, so they are "
            f"{window - 2} at most together; got {sink} and {strided}"
        )
    return FrameMemory(window, sink, strided, sampling.past_stride or STRIDE)
