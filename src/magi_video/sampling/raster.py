"""Pasts of a frame that is made token by token in raster order: each pass reads one more place of it.

What a place holds in training it holds here: place 0 the start, place i the token before it (`shift`). A frame is
asked for from its first token to its last, one at a time and the same one for all samples.
"""

from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.cache import FrameCache, LayerCache
from magi_video.models.embeddings import rotate
from magi_video.models.layers import SpatialLayer, TemporalLayer, TransformerLayer
from magi_video.models.sequence import MASKED, FrameSequence, causal_mask, spatial_places
from magi_video.models.transformer import FrameContext, MagiVideoTransformer
from magi_video.sampling.past import CachedPast, Past, RecomputedPast


def shift(tokens_BSND: Tensor, through: bool) -> Tensor:
    """Tokens moved one place on, `[B, S, N, D]`; what comes into the first place is 0, and masked (`starts`).

    Args:
        tokens_BSND: clean tokens.
        through: whether the last token of a frame moves into the next frame's first place; else it is dropped.
    """
    if not through:
        return torch.cat([torch.zeros_like(tokens_BSND[:, :, :1]), tokens_BSND[:, :, :-1]], dim=2)
    flat_BMD = tokens_BSND.flatten(1, 2)
    return torch.cat([torch.zeros_like(flat_BMD[:, :1]), flat_BMD[:, :-1]], dim=1).view_as(tokens_BSND)


def starts(shape: torch.Size, through: bool, device: torch.device) -> Tensor:
    """Boolean `[B, S, N]`: the places of `shift` that hold the start, for which the mask token stands."""
    places = torch.zeros(shape[:3], dtype=torch.bool, device=device)
    places[:, : 1 if through else None, 0] = True
    return places


def raster_mask(tokens: int, device: torch.device | str = "cpu") -> Tensor:
    """Spatial mask `[N, N]` of a frame in raster order: token i sees the tokens 0…i."""
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()


def flat_mask(frames: int, tokens: int, window: int | None = None, device: torch.device | str = "cpu") -> Tensor:
    """`[S, N, S, N]`: True for all tokens of the frames before and, of its own frame, the tokens 0…i."""
    past = causal_mask(frames, window, device).tril(-1)[:, None, :, None]
    itself = torch.eye(frames, dtype=torch.bool, device=device)[:, None, :, None]
    return past | itself & raster_mask(tokens, device)[None, :, None]


def write_places(layer: LayerCache, k_BPHSd: Tensor, v_BPHSd: Tensor, at: slice) -> tuple[Tensor, Tensor]:
    """`LayerCache.write` at some of the L places alone; returns those places' keys and values."""
    for s, slot in enumerate(layer.slots):
        layer.keys[:, at, :, slot] = k_BPHSd[:, :, :, s]
        layer.values[:, at, :, slot] = v_BPHSd[:, :, :, s]
    return layer.keys[:, at, :, : layer.held], layer.values[:, at, :, : layer.held]


class RasterPast(CachedPast):
    """The frame cache, and beside it the spatial keys and values of the places of the frame in the making.

    A pass computes the new places alone: the condition tokens and place 0, then one place after the other. What it
    writes into the frame cache is overwritten when the finished frame enters the past.
    """

    def __init__(self, model: MagiVideoTransformer, batch: int, total_frames: int | None) -> None:
        super().__init__(model, batch, total_frames)
        shape = (batch, 1, model.config.heads, model.num_places, model.head_dim)
        weight = model.mask_token
        self._spatial = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in model.blocks]
        self._context: FrameContext | None = None

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """The next place of the frame, from 0 on."""
        place, model = int(places_Bn[0, 0]), self.model
        if place == 0:
            self._context = model.context(frame)
        assert self._context is not None, "a frame is read from its first place on"
        x_B1PW, at = enter(model, frame, self._context, place, None)
        mask = self.cache.begin(1)
        for block, (keys, values), layer in zip(model.blocks, self._spatial, self.cache.layers, strict=True):
            spatial, temporal = block.spatial, block.temporal
            assert isinstance(spatial, SpatialLayer) and isinstance(temporal, TemporalLayer)
            q, k, v = (part.transpose(2, 3) for part in spatial.queries_keys_values(x_B1PW).unbind(dim=3))  # B1HPd
            keys[:, :, :, at], values[:, :, :, at] = k, v
            attended = spatial.attend(q, keys[:, :, :, : at.stop].to(q.dtype), values[:, :, :, : at.stop].to(q.dtype))
            x_B1PW = spatial.finish(x_B1PW, attended.transpose(2, 3))
            q, k, v = temporal.along_time(x_B1PW, self._context.rotary)  # BPH1d
            k, v = write_places(layer, k, v, at)
            attended = temporal.attend(q, k.to(q.dtype), v.to(q.dtype), mask)
            x_B1PW = temporal.finish(x_B1PW, attended.permute(0, 3, 1, 2, 4))
        return leave(model, x_B1PW[:, 0], place)


class FlatPast(Past):
    """Keys and values of all places of all frames in every layer, for attention among all of them.

    Args:
        model: the transformer.
        batch: samples, both halves of guidance counted.
        total_frames: of the rollout; None for one without end ("rope").
    """

    def __init__(self, model: MagiVideoTransformer, batch: int, total_frames: int | None) -> None:
        self.model = model
        # Slots and windows are those of a frame cache; a layer's places are attended to together here.
        caches = [model.make_cache(batch, total_frames) for _ in ("spatial", "temporal")]
        self.spatial, self.temporal = caches
        of_tokens_1NN = raster_mask(model.num_tokens, model.mask_token.device)[None]
        self._own_LL = spatial_places(of_tokens_1NN, model.condition_tokens.count)[0]
        self._last_BD: Tensor | None = None  # token of the frame before, which the next one's first place holds
        self._context: FrameContext | None = None
        self._read: FrameSequence | None = None  # the frame whose places are in the cache
        self._tokens_BND: Tensor | None = None  # as they were when they were read

    @override
    def append(self, frame: FrameSequence) -> None:
        """What was read token by token is not read again, unless it was changed afterwards."""
        tokens_BND = frame.tokens_BSND[:, 0]
        made = self._tokens_BND
        if made is None or not torch.equal(made[:, :-1], tokens_BND[:, :-1]):
            frame = replace(frame, kind_S=torch.full_like(frame.kind_S, MASKED))
            context = self.model.context(frame)
            parts = [enter(self.model, frame, context, place, self._last_BD)[0] for place in range(tokens_BND.shape[1])]
            self._pass(torch.cat(parts, dim=2), slice(0, self.model.num_places), context)
        for cache in (self.spatial, self.temporal):
            cache.advance()
        self._last_BD, self._tokens_BND = tokens_BND[:, -1], None

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """The next place of the frame, from 0 on."""
        place, model = int(places_Bn[0, 0]), self.model
        if place == 0:
            self._context = model.context(replace(frame, kind_S=torch.full_like(frame.kind_S, MASKED)))
        assert self._context is not None, "a frame is read from its first place on"
        x_B1PW, at = enter(model, frame, self._context, place, self._last_BD)
        z_BnW = leave(model, self._pass(x_B1PW, at, self._context)[:, 0], place)
        if place == model.num_tokens - 1:
            self._tokens_BND = frame.tokens_BSND[:, 0].clone()  # but for the last token, which is yet to come
        return z_BnW

    def _pass(self, x_B1PW: Tensor, at: slice, context: FrameContext) -> Tensor:
        """Some places of the frame after the past; they see the past and the places up to themselves."""
        for number, block in enumerate(self.model.blocks):
            for layer, cache in ((block.spatial, self.spatial), (block.temporal, self.temporal)):
                assert isinstance(layer, TransformerLayer)
                x_B1PW = self._layer(layer, cache, number, x_B1PW, at, context.rotary)
        return x_B1PW

    def _layer(
        self,
        layer: TransformerLayer,
        cache: FrameCache,
        number: int,
        x_B1PW: Tensor,
        at: slice,
        rotary: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        qk, v_B1PHd = layer.queries_keys_values(x_B1PW).split([2, 1], dim=3)
        if rotary is not None:
            cos, sin = (angles[:, None, None, None] for angles in rotary)
            qk = rotate(qk, cos, sin)
        (q, k), v = qk.unbind(3), v_B1PHd.squeeze(3)
        seen_1F = cache.begin(1)
        held, slot = cache.layers[number], cache.layers[number].slots[0]
        held.keys[:, at, :, slot], held.values[:, at, :, slot] = k[:, 0], v[:, 0]
        places, slots = held.keys.shape[1], held.held
        mask_PLF = torch.ones(x_B1PW.shape[2], places, slots, dtype=torch.bool, device=x_B1PW.device)
        if seen_1F is not None:
            mask_PLF &= seen_1F
        mask_PLF[:, :, slot] = self._own_LL[at]
        k, v = (
            part[:, :, :, :slots].permute(0, 2, 1, 3, 4).flatten(2, 3)[:, None] for part in (held.keys, held.values)
        )
        attended = layer.attend(q.transpose(2, 3), k.to(q.dtype), v.to(q.dtype), mask_PLF.flatten(1))  # B1HPd
        return layer.finish(x_B1PW, attended.transpose(2, 3))


class RecomputedRasterPast(RecomputedPast):
    """The past as frames, read again with the frame in the making for every token: the slow reference of both.

    Args:
        model: the transformer.
        flat: whether all layers attend among the places of all frames.
    """

    def __init__(self, model: MagiVideoTransformer, flat: bool) -> None:
        super().__init__(model)
        self.flat = flat

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """One place."""
        length, tokens = len(self.frames) + 1, frame.tokens_BSND.shape[2]
        device, shape = frame.tokens_BSND.device, frame.tokens_BSND.shape
        if self.flat:
            sequence = FrameSequence.join([*self.frames, frame])
            sequence.kind_S = torch.full_like(sequence.kind_S, MASKED)
            sequence.masked_BSN = starts(sequence.tokens_BSND.shape, True, device)
            sequence.tokens_BSND = shift(sequence.tokens_BSND, True)
            sequence.flat_SNSN = flat_mask(length, tokens, self.window, device)
        else:
            made = replace(frame, tokens_BSND=shift(frame.tokens_BSND, False), masked_BSN=starts(shape, False, device))
            sequence = FrameSequence.join([*self.frames, made])
            sequence.mask_SS = causal_mask(length, self.window, device)
            sequence.spatial_SNN = raster_mask(tokens, device).expand(length, -1, -1).clone()
            sequence.spatial_SNN[:-1] = True
        return self.model(sequence)[:, -1, int(places_Bn[0, 0])][:, None]


def enter(
    model: MagiVideoTransformer, frame: FrameSequence, context: FrameContext, place: int, before_BD: Tensor | None
) -> tuple[Tensor, slice]:
    """Input activations `[B, 1, P, W]` of a token's place, with the condition tokens before place 0; and which places.

    Args:
        model: the transformer.
        frame: with the tokens that are there.
        context: of the frame.
        place: 0…N−1.
        before_BD: token that place 0 holds; None for the start.
    """
    conditions, stream = model.condition_tokens.count, model.mask_token.dtype
    at = slice(conditions + place if place else 0, conditions + place + 1)
    token_BD = before_BD if place == 0 else frame.tokens_BSND[:, 0, place - 1]
    entry = (
        model.mask_token if token_BD is None else model.token_in(token_BD.to(model.token_in.weight.dtype)).to(stream)
    )
    x_BPW = context.embedding_BSLW[:, 0, at].to(stream).clone()
    x_BPW[:, -1] += entry
    return x_BPW[:, None], at


def leave(model: MagiVideoTransformer, x_BPW: Tensor, place: int) -> Tensor:
    """z `[B, 1, W]` of a token's place, the last of some places."""
    return model.norm_out(x_BPW[:, -1:]) + model.head_position.to(x_BPW.dtype)[place]
