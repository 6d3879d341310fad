"""A window of fixed length, as in GameNGen (Valevski et al. 2024): the next frame after the C frames before it.

sequence   o_1 … o_C  m               C + 1 frames of a clip from a random place in it; observations noise-injected
all see    all                        attention along time is bidirectional
loss       on the masked tokens of m  the others are only seen
generates  frame by frame, by masked diffusion; every pass reads the last C frames again with the new one
cache      none: what the C frames are to the network depends on the frame that is made after them

C is the option `context`: 64 in the paper, 9 in its reproduction. It is part of what was learned, so a start with fewer
frames is refused, and what is more than C frames ago is never seen. Positions count within the window, so a rollout has
no end, whatever the temporal positions. Noise has one level a clip (x + σ ε, as the paper adds it), where complete
teacher forcing draws one for each frame; generation reads at level 0.

What is GameNGen's and not here: Stable Diffusion's U-Net with the frames side by side in its channels, and actions in
place of its text. A step of training reads C + 1 frames and learns one, so a clip of T frames is used for one of its
T − C windows: more of them would be more passes, since no two windows share what they compute.
"""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.random import Generators, draw
from magi_video.models.sequence import MASKED, OBSERVATION, Clip, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import register
from magi_video.paradigms.masked_frames import MaskedFrames
from magi_video.sampling.past import Past, pick


@register
class Window(MaskedFrames):
    """The next frame after a fixed number of frames, by bidirectional attention.

    Attributes:
        context: C, frames before the one that is made; 1 or more.
    """

    name = "window"
    title = "the next frame after a fixed number of frames, all seeing all (as in GameNGen)"
    training_frames = 1
    training_window = "context"
    cached_kind = OBSERVATION
    unit = "frame"
    temporal_attention = "bidirectional"
    cached = False
    variable_context = False
    past = "complete"
    shown_frames = "context"
    one_level = True
    loss_frames = "one"
    frame_cache = False
    options: ClassVar[dict[str, int | float | str]] = {"context": 4}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"context": (1, 4096)}
    context: int

    @property
    @override
    def given_frames(self) -> int:
        """The option `context`."""
        return self.context

    @override
    def check_context(self, given: int, total_frames: int | None) -> None:
        if given < self.context:
            raise MagiError(
                f"this window model makes a frame from the {self.context} before it, and training never showed it "
                f"fewer: give {self.context} or more, got {given} (with a codec that compresses time: latent frames)"
            )

    @override
    def total_loss(
        self, model: MagiVideoTransformer, clip: Clip, generator: Generators = None
    ) -> tuple[Tensor, Tensor]:
        """Of one window of each clip."""
        self.check_clip(clip.tokens_BTND.shape[1])
        return super().total_loss(model, self.draw_window(clip, generator), generator)

    def draw_window(self, clip: Clip, generator: Generators) -> Clip:
        """C + 1 frames of each clip, from a uniformly random place in it."""
        batch, frames = clip.tokens_BTND.shape[:2]
        size, device = self.context + 1, clip.tokens_BTND.device
        starts = partial(torch.randint, frames - size + 1)
        place_BC = draw(starts, (batch, 1), generator, device) + torch.arange(size, device=device)
        sample_B1 = torch.arange(batch, device=device)[:, None]
        conditions = {name: value[sample_B1, place_BC] for name, value in clip.conditions.items()}
        return Clip(clip.tokens_BTND[sample_B1, place_BC], clip.interval_B, conditions)

    @override
    def show_past(self, model: MagiVideoTransformer, clip: Clip, generator: Generators) -> Clip:
        """Of the frames before the last one."""
        past, level = super().show_past(model, Clip(clip.tokens_BTND[:, :-1], clip.interval_B), generator).shown
        past_BTND = torch.cat([past, clip.tokens_BTND[:, -1:]], dim=1)
        level_BT = torch.nn.functional.pad(level, (0, 1))
        return Clip(clip.tokens_BTND, clip.interval_B, clip.conditions, past_BTND, level_BT)

    @override
    def draw_masks(self, clip: Clip, generator: Generators) -> Tensor:
        """In the last frame alone."""
        batch, _, tokens, _ = clip.tokens_BTND.shape
        masked_BTN = torch.zeros(clip.tokens_BTND.shape[:3], dtype=torch.bool, device=clip.tokens_BTND.device)
        masked_BTN[:, -1:] = self.mask_ratio.draw(batch, 1, tokens, generator, clip.tokens_BTND.device)
        return masked_BTN

    @override
    def sequence(self, clip: Clip, masked_BTN: Tensor) -> FrameSequence:
        """Of a window, whose last frame is predicted."""
        frames, device = clip.tokens_BTND.shape[1], clip.tokens_BTND.device
        past_BTND, level_BT = clip.shown
        kinds = [OBSERVATION] * (frames - 1) + [MASKED]
        return FrameSequence(
            tokens_BSND=past_BTND,
            masked_BSN=torch.cat([torch.zeros_like(masked_BTN[:, :-1]), masked_BTN[:, -1:]], dim=1),
            kind_S=torch.tensor(kinds, device=device),
            position_S=torch.arange(frames, device=device),
            interval_B=clip.interval_B,
            conditions={**clip.conditions, NOISE_LEVEL: level_BT},
            mask_SS=torch.ones(frames, frames, dtype=torch.bool, device=device),
            predicted=1,
        )

    @override
    def visible(self, masked_TN: Tensor) -> Tensor:
        """The whole window but what is masked of its last frame."""
        seen_TN = ~masked_TN | (torch.arange(len(masked_TN), device=masked_TN.device) < len(masked_TN) - 1)[:, None]
        return seen_TN.expand(*masked_TN.shape, *masked_TN.shape)

    @override
    def make_past(self, model: MagiVideoTransformer, batch: int, total_frames: int | None) -> Past:
        """The last C frames themselves."""
        return WindowPast(model, self.context)

    @override
    def make_recomputed_past(self, model: MagiVideoTransformer) -> Past:
        """The same: nothing is cached."""
        return WindowPast(model, self.context)


class WindowPast(Past):
    """The last frames themselves, read again in every pass with what is made, each frame seeing all: nothing is cached.

    Args:
        model: the transformer.
        size: frames that are kept.

    Attributes:
        frames: those that are.
    """

    def __init__(self, model: MagiVideoTransformer, size: int) -> None:
        self.model = model
        self.size = size
        self.frames: list[FrameSequence] = []

    @override
    def append(self, frame: FrameSequence) -> None:
        self.frames = [*self.frames, frame][-self.size :]

    @override
    def read(self, frame: FrameSequence, places_Bn: Tensor, changed_Bm: Tensor | None = None) -> Tensor:
        """Always exact. Positions count from the first frame that is kept."""
        sequence = FrameSequence.join([*self.frames, frame])
        length, made = len(sequence.position_S), len(frame.position_S)
        device = frame.tokens_BSND.device
        sequence.position_S = torch.arange(length, device=device)
        sequence.mask_SS = torch.ones(length, length, dtype=torch.bool, device=device)
        sequence.predicted = made
        return pick(self.model(sequence).flatten(1, 2), places_Bn)
