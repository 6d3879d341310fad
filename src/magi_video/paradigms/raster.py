"""Raster order: each token after all frames before it and the tokens before it in its own frame.

Two builds, by the option `attention`. "factorised" changes nothing but the order (and so isolates the paper's claim):

sequence   o_1 … o_T  r_1 … r_T      complete (noise-injected) observations, then the same frames in raster order: the
                                     clean tokens moved on by one place, a learned start in the first
o_t sees   o_1 … o_t                 all of their tokens
r_t sees   o_1 … o_{t−1} and itself  never o_t; within r_t a place sees the condition tokens and the places up to it
loss       on all tokens of r_1 … r_T: z at place i predicts token i
generates  token by token: N passes of one place over the cache of its own frame and the frame cache, and one more to
           make the finished frame an observation
cache      finished frames, as observations at noise level 0; and the frame in the making, place by place

"flat" is the originals' own attention (VideoGPT, OmniTokenizer, Emu3): one causal sequence of T · N tokens, every layer
attending among all of it. The parameters are the same.

sequence   r_1 … r_T                 all tokens moved on by one place through the whole clip, noise-injected by frame
(t, i) sees all before it            the frames before, and the tokens before it in its own
generates  N passes of one place; a frame that was made is in the cache already
cache      every place of every frame

The attention that looks natural, causal in time and in space with one sequence, is neither: place i then holds tokens
before i in every frame, so a token sees the past frames' tokens before its own place alone. The tests fail on it.

Tokens are continuous and the head is a diffusion head, as in MAR's own raster baseline (Li et al. 2024, table 1),
where it is no worse than discrete tokens with cross-entropy; these, the originals' own, are `head="categorical"`.
Phenaki, which the paper's table 1 puts here, has a bidirectional generator: see `joint.py`. The mask ratio is not used,
and there are no mask steps.
"""

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.random import Generators, SampleNoise
from magi_video.models.sequence import MASKED, OBSERVATION, Clip, FrameSequence, causal_mask
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import register
from magi_video.paradigms.complete import complete_mask
from magi_video.paradigms.masked_frames import MaskedFrames
from magi_video.sampling.past import Past
from magi_video.sampling.raster import FlatPast, RasterPast, RecomputedRasterPast, flat_mask, raster_mask, shift, starts
from magi_video.sampling.sampling import ResolvedSampling


@register
class Raster(MaskedFrames):
    """Tokens in raster order; all of them are predicted, so all count as masked.

    Attributes:
        attention: "factorised" (space, then time) or "flat" (all tokens of all frames in every layer).
    """

    name = "raster"
    title = "token by token in raster order, after complete frames (as in VideoGPT)"
    training_frames = 2
    training_frames_of: ClassVar[dict[str, dict[str, int]]] = {"attention": {"factorised": 2, "flat": 1}}
    cached_kind = OBSERVATION
    unit = "token"
    temporal_attention = "causal"
    cached = True
    variable_context = True
    past = "complete"
    loss_frames = "all"
    loss_share = 1.0
    frame_cache = False
    steps: ClassVar[dict[str, int]] = {"mask_steps": 0}
    options: ClassVar[dict[str, int | float | str]] = {"attention": "factorised"}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"attention": ("factorised", "flat")}
    attention: str

    @property
    def flat(self) -> bool:
        """Whether every layer attends among all tokens of all frames."""
        return self.attention == "flat"

    @override
    def draw_masks(self, clip: Clip, generator: Generators) -> Tensor:
        """Every token is predicted."""
        return torch.ones(clip.tokens_BTND.shape[:3], dtype=torch.bool, device=clip.tokens_BTND.device)

    @override
    def sequence(self, clip: Clip, masked_BTN: Tensor) -> FrameSequence:
        """What is masked plays no part."""
        (_, frames, tokens, _), device = clip.tokens_BTND.shape, clip.tokens_BTND.device
        past_BTND, level_BT = clip.shown
        position_T = torch.arange(frames, device=device)
        if self.flat:
            return FrameSequence(
                tokens_BSND=shift(past_BTND, True),
                masked_BSN=starts(past_BTND.shape, True, device),
                kind_S=torch.full((frames,), MASKED, device=device),
                position_S=position_T,
                interval_B=clip.interval_B,
                conditions={**clip.conditions, NOISE_LEVEL: level_BT},
                flat_SNSN=flat_mask(frames, tokens, device=device),
            )
        conditions = {name: torch.cat([value, value], dim=1) for name, value in clip.conditions.items()}
        conditions[NOISE_LEVEL] = torch.cat([level_BT, torch.zeros_like(level_BT)], dim=1)
        start_BTN = starts(past_BTND.shape, False, device)
        all_TNN = torch.ones(frames, tokens, tokens, dtype=torch.bool, device=device)
        return FrameSequence(
            tokens_BSND=torch.cat([past_BTND, shift(clip.tokens_BTND, False)], dim=1),
            masked_BSN=torch.cat([torch.zeros_like(start_BTN), start_BTN], dim=1),
            kind_S=torch.tensor([OBSERVATION, MASKED], device=device).repeat_interleave(frames),
            position_S=position_T.repeat(2),
            interval_B=clip.interval_B,
            conditions=conditions,
            mask_SS=complete_mask(frames, device),
            spatial_SNN=torch.cat([all_TNN, all_TNN & raster_mask(tokens, device)]),
            predicted=frames,
        )

    @override
    def visible(self, masked_TN: Tensor) -> Tensor:
        """All of the frames before, and the tokens before it in its own."""
        frames, tokens = masked_TN.shape
        past = causal_mask(frames, device=masked_TN.device).tril(-1)[:, None, :, None]
        itself = torch.eye(frames, dtype=torch.bool, device=masked_TN.device)[:, None, :, None]
        return past | itself & raster_mask(tokens, masked_TN.device).tril(-1)[None, :, None]

    @override
    def make_past(self, model: MagiVideoTransformer, batch: int, total_frames: int | None) -> Past:
        """With the frame in the making beside the finished ones."""
        return (FlatPast if self.flat else RasterPast)(model, batch, total_frames)

    @override
    def make_recomputed_past(self, model: MagiVideoTransformer) -> Past:
        return RecomputedRasterPast(model, self.flat)

    @override
    def generate(
        self,
        model: MagiVideoTransformer,
        past: Past,
        frames: FrameSequence,
        noise: SampleNoise,
        sampling: ResolvedSampling,
    ) -> None:
        """One frame, token by token."""
        tokens_RND = frames.tokens_BSND[:, 0]
        halves = len(tokens_RND) // len(noise.generators)
        head = model.diffusion_head
        options = {name: getattr(sampling, name) for name in head.options}
        for place in range(model.num_tokens):
            z_R1W = past.read(frames, torch.full((len(tokens_RND), 1), place, device=tokens_RND.device))
            guidance = sampling.guidance((place + 1) / model.num_tokens)
            if "denoise_steps" in options:
                options["denoise_steps"] = sampling.denoise_steps_at(place, model.num_tokens)
            predicted_B1D = head.sample(z_R1W, noise, **options, guidance=guidance)
            tokens_RND[:, place : place + 1] = predicted_B1D.repeat(halves, 1, 1)
        frames.masked_BSN.fill_(False)
