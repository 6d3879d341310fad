"""The past of a rollout: what is kept of the finished frames, and how a frame in the making is read after them."""

from typing import Any, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.head import Noise, TokenHead
from magi_video.models.sequence import FrameSequence, causal_mask
from magi_video.models.transformer import MagiVideoTransformer


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
    """

    def __init__(self, model: MagiVideoTransformer, batch: int, total_frames: int | None, made: int = 1) -> None:
        self.model = model
        self.cache = model.make_cache(batch, total_frames, made)

    @override
    def append(self, frame: FrameSequence) -> None:
        self.model(frame, self.cache)
        self.cache.advance()

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """Always exact."""
        return pick(self.model(frame, self.cache).flatten(1, 2), places_Bn)


class RecomputedPast(Past):
    """The past as frames, read again in every pass: the slow reference of `CachedPast`."""

    def __init__(self, model: MagiVideoTransformer) -> None:
        self.model = model
        self.window = model.config.num_frames if model.config.temporal_position == "rope" else None
        self.frames: list[FrameSequence] = []

    @override
    def append(self, frame: FrameSequence) -> None:
        self.frames.append(frame)

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """Always exact."""
        sequence, made = FrameSequence.join([*self.frames, frame]), frame.tokens_BSND.shape[1]
        sequence.mask_SS = causal_mask(len(self.frames) + made, self.window, frame.tokens_BSND.device)
        return pick(self.model(sequence)[:, -made:].flatten(1, 2), places_Bn)


def pick(x_BL: Tensor, places_Bn: Tensor) -> Tensor:
    """`[B, L, …]` at each sample's own places: `[B, n, …]`."""
    if x_BL.shape[0] == 1:  # no index of samples is needed
        return x_BL.index_select(1, places_Bn[0])
    sample_B1 = torch.arange(places_Bn.shape[0], device=places_Bn.device)[:, None]
    return x_BL[sample_B1, places_Bn]
