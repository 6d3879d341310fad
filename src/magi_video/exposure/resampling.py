"""Resampling Forcing (Guo et al. 2025, arXiv 2512.15702): the past is the model's own, frame after frame.

o_t is replaced, without gradient, by the model's one-step reconstruction of it: frame t noised to a level and denoised
once, given the *replaced* frames before it. So errors pile up along the clip as they do in a rollout. The level is one
for all frames of a clip. Then the step is complete teacher forcing's own, with the true frames as targets. The first
`plain_steps` are without it: a model that can do nothing yet would make a past of nothing.

The paper denoises whole frames; here z comes from the frame with all tokens masked, and the head denoises its tokens.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.exposure.base import Cure, register
from magi_video.exposure.reconstruction import draw_levels, reconstruct
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.random import Generators, draw
from magi_video.models.sequence import MASKED, OBSERVATION, Clip, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.masking import Shown


@register
class Resampling(Cure):
    """The model's own reconstructions in place of the frames before.

    Attributes:
        plain_steps: optimiser steps before it begins; 10,000 of 25,000 in the paper. Trainings that end before are
            refused.
        shift: of the levels, towards less noise below 1; 0.6 in the paper.
    """

    name = "resampling"
    title = "the model's own one-step reconstructions, made frame after frame (Resampling Forcing)"
    needs: ClassVar[dict[str, tuple[tuple[object, ...], str]]] = {
        "past": (("complete",), "it replaces complete frames before a frame, and this paradigm shows none in training"),
        "temporal_attention": (
            ("causal",),
            "frames are replaced one after the other, and in this paradigm they see later ones",
        ),
        "unit": (("frame",), "a frame is replaced in one pass, and this paradigm takes one for each token"),
    }
    heads = ("epsilon", "flow")
    reconstructs = "all"
    begins_after = "plain_steps"
    options: ClassVar[dict[str, int | float | str]] = {"plain_steps": 10_000, "shift": 0.6}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"plain_steps": (0, 10**9), "shift": (0.01, 100)}
    plain_steps: int
    shift: float

    @override
    def show(self, model: MagiVideoTransformer, clip: Clip, generator: Generators, one_level: bool = False) -> Shown:
        if self.step < self.plain_steps:
            return clip.shown
        return replace(clip, past_BTND=self.resample(model, clip, generator)).shown

    @torch.no_grad()
    def resample(self, model: MagiVideoTransformer, clip: Clip, generator: Generators) -> Tensor:
        """The replaced frames `[B, T, N, D]`; the last one, which no frame follows, is the true one.

        A pass over the cache reads frame t − 1 as it was replaced, and frame t with all tokens masked after it.
        """
        (batch, frames, _, _), device = clip.tokens_BTND.shape, clip.tokens_BTND.device
        level_B = draw_levels(batch, self.shift, generator, device)
        eps_BTND = draw(torch.randn, clip.tokens_BTND.shape, generator, device)
        cache = model.make_cache(batch, frames)
        made: list[Tensor] = []
        for t in range(frames - 1):
            pass_frames = [one_frame(clip, t, clip.tokens_BTND[:, t], MASKED)]
            if made:
                pass_frames.insert(0, one_frame(clip, t - 1, made[-1], OBSERVATION))
            z_BNW = model(FrameSequence.join(pass_frames), cache)[:, -1]
            if made:
                cache.advance()
            made.append(reconstruct(model.diffusion_head, clip.tokens_BTND[:, t], z_BNW, level_B, eps_BTND[:, t]))
        return torch.stack([*made, clip.tokens_BTND[:, -1]], dim=1)


def one_frame(clip: Clip, t: int, tokens_BND: Tensor, kind: int) -> FrameSequence:
    """Frame t of a clip with given tokens: complete, or masked wholly."""
    at, device = slice(t, t + 1), tokens_BND.device
    conditions = {name: value[:, at] for name, value in clip.conditions.items()}
    tokens_B1ND = tokens_BND[:, None]
    return FrameSequence(
        tokens_BSND=tokens_B1ND,
        masked_BSN=torch.full(tokens_B1ND.shape[:3], kind == MASKED, device=device),
        kind_S=torch.full((1,), kind, device=device),
        position_S=torch.full((1,), t, device=device),
        interval_B=clip.interval_B,
        conditions=conditions | {NOISE_LEVEL: clip.shown[1][:, at]},
    )
