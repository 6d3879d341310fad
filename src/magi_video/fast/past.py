"""The cached past for generation: fewer and smaller passes than `sampling.CachedPast`, the same frames.

- What does not depend on the tokens of a frame (conditions, embeddings) is computed once a frame.
- The last block computes the tokens that are asked for, no others.
- A finished frame shares its pass with the first mask step of the next frame, where that is faster.
- With `reuse`, mask steps may read the changed tokens alone (`Sampling.refresh`): an approximation.
"""

import torch
from torch import Tensor

from magi_video.exposure.memory import FrameMemory
from magi_video.fast.cache import PlacesCache
from magi_video.fast.layers import Wanted
from magi_video.fast.memory import MemoryCache
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import FrameContext, MagiVideoTransformer
from magi_video.sampling.past import Past, pick

JOINED_PLACES = 128
"""On CPUs, places up to which two frames share a pass: the products of more rows gain nothing from each other."""


class FastPast(Past):
    """The past as keys and values, of a model that `speed_up` has prepared.

    Args:
        model: the transformer.
        batch: samples, both halves of guidance counted.
        total_frames: of the rollout; None for one without end ("rope").
        reuse: whether a pass may read the changed tokens of a frame alone.
        made: most frames that are made together.
        memory: frames that stay in sight beside the latest.
    """

    def __init__(
        self,
        model: MagiVideoTransformer,
        batch: int,
        total_frames: int | None,
        reuse: bool = False,
        made: int = 1,
        memory: FrameMemory | None = None,
    ) -> None:
        self.model = model
        self.reuse = reuse
        if memory is not None and (total_frames is None or total_frames > memory.window):
            self.cache: PlacesCache = MemoryCache(model.make_cache(batch, memory.window), reuse, memory)
            self.joins = False  # a frame and the next one see kept frames at different positions
        else:
            self.cache = PlacesCache(model.make_cache(batch, total_frames, made), reuse)
            self.joins = self.cache.device.type != "cpu" or batch * model.num_places <= JOINED_PLACES
        self._finished: FrameSequence | None = None  # appended, but not read yet
        self._frame: FrameSequence | None = None  # the frame in the making, whose context is kept
        self._context: FrameContext | None = None

    def append(self, frame: FrameSequence) -> None:
        """See `sampling.Past`; the frame is read with the next one, or before it."""
        self._read_finished()
        self._finished = frame

    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """See `sampling.Past`; exact unless `reuse` is on and `changed_Bm` given."""
        if self._context is None or frame is not self._frame:
            self._frame, self._context = frame, self.model.context(frame)
        if not self.joins:
            self._read_finished()
        finished, self._finished = self._finished, None
        changed_Bm = changed_Bm if self.reuse else None
        made, context, asked_Bn = frame.tokens_BSND.shape[1], self._context, places_Bn
        if made > 1:  # every frame whole: places are counted through all of them
            asked_Bn = torch.arange(self.model.num_tokens, device=places_Bn.device).expand(len(places_Bn), -1)
        if finished is not None:
            context = join_contexts(self.model.context(finished), context)
            frame = FrameSequence.join([finished, frame])
        z_BSnW = self._pass(frame, context, slice(-made, None), asked_Bn, changed_Bm)
        if finished is not None:
            self.cache.advance()
        return pick(z_BSnW.flatten(1, 2), places_Bn) if made > 1 else z_BSnW[:, 0]

    def _read_finished(self) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            self._pass(finished, self.model.context(finished), slice(0, 0))  # its keys and values alone
            self.cache.advance()

    def _pass(
        self,
        sequence: FrameSequence,
        context: FrameContext,
        frames: slice,
        places_Bn: Tensor | None = None,
        changed_Bm: Tensor | None = None,
    ) -> Tensor:
        return read_over(self.model, self.cache, sequence, context, frames, places_Bn, changed_Bm)


def read_over(
    model: MagiVideoTransformer,
    cache: PlacesCache,
    sequence: FrameSequence,
    context: FrameContext,
    frames: slice,
    places_Bn: Tensor | None = None,
    changed_Bm: Tensor | None = None,
) -> Tensor:
    """One pass over the frames that follow a cache: z `[B, frames, n, width]`.

    Args:
        model: that `speed_up` has prepared.
        cache: the frames' keys and values are written to it.
        sequence: the frames.
        context: of the sequence.
        frames: those that are asked for.
        places_Bn: tokens of theirs that are asked for; None for nothing but keys and values.
        changed_Bm: the tokens that are read, those of `places_Bn` at the end; None for all.
    """
    first = model.condition_tokens.count
    x_BSLW = model.embed(sequence, context.embedding_BSLW)
    mask_SS = cache.begin(x_BSLW.shape[1])
    at_Bn, wanted = None, Wanted(frames, None if places_Bn is None else places_Bn + first)
    last: Wanted | None = wanted
    if changed_Bm is not None:
        at_Bn, last = changed_Bm + first, None
        x_BSLW = pick(x_BSLW[:, 0], at_Bn)[:, None]
    for number, (block, layer) in enumerate(zip(model.blocks, cache.layers, strict=True)):
        of = last if number == len(model.blocks) - 1 else None
        x_BSLW = block(x_BSLW, mask_SS, None, context.rotary, layer, wanted=of, at_Bn=at_Bn)
    if places_Bn is None:
        return x_BSLW
    x_BSLW = x_BSLW[:, :, -places_Bn.shape[1] :]
    return model.norm_out(x_BSLW) + model.head_position.to(x_BSLW.dtype)[places_Bn][:, None]


def join_contexts(one: FrameContext, other: FrameContext) -> FrameContext:
    """Contexts of sequences one after the other."""
    rotary = None
    if one.rotary is not None and other.rotary is not None:
        rotary = torch.cat([one.rotary[0], other.rotary[0]]), torch.cat([one.rotary[1], other.rotary[1]])
    return FrameContext(torch.cat([one.embedding_BSLW, other.embedding_BSLW], dim=1), rotary)
