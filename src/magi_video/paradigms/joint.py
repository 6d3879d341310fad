"""All frames of a clip together, as in MAGVIT (Yu et al. 2023): one mask over the clip, attention in all directions.

sequence   o_1 … o_c  m_{c+1} … m_T   the given frames complete and noise-injected, the later ones masked jointly
all see    all                        attention along time is bidirectional
loss       on the masked tokens of m_{c+1} … m_T
generates  all later frames at once, by 12 steps of masked diffusion over all their tokens in one random order
cache      none: every pass reads the whole clip; longer videos go on by windows, the last c frames beginning the next

A clip has one mask ratio, cos(π/2 · u) with u uniform, over all its later tokens: floor(M · ratio) of M, at least one.
c is the option `given`; a share `unconditional` of the clips has no given frame, so that a video may begin without one.
A window is always read whole, T frames as in training: what lies behind the frames that are wanted is made and dropped.

Phenaki's generator is of this kind, not of the raster kind that the paper's table 1 puts it in: its tokenizer alone is
causal, the generator is a bidirectional masked model that goes on with its past tokens as a frozen prefix.

What is MAGVIT's and not here: discrete tokens of a 3D tokenizer, a given frame's token in place of a mask (COMMIT), the
loss on visible tokens too, several tasks in one model, and tokens kept by confidence (`head="categorical"` has that).
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.random import Generators, SampleNoise, draw
from magi_video.models.sequence import MASKED, OBSERVATION, Clip, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import register
from magi_video.paradigms.masked_frames import MaskedFrames, masked_generation
from magi_video.paradigms.window import WindowPast
from magi_video.sampling.past import Past
from magi_video.sampling.sampling import ResolvedSampling


@register
class Joint(MaskedFrames):
    """A whole clip by joint masking; `mask_ratio` is not used.

    Attributes:
        given: c, frames that a clip begins with, 1 or more and fewer than it has.
        unconditional: share of the training clips, in [0, 1], that begin with none.
    """

    name = "joint"
    title = "all frames of a clip together, all seeing all (as in MAGVIT)"
    training_frames = 1
    cached_kind = OBSERVATION
    unit = "clip"
    temporal_attention = "bidirectional"
    cached = False
    variable_context = False
    past = "complete"
    shown_frames = "given"
    one_level = True
    loss_frames = "later"
    loss_share = 0.637  # the mean of cos(π/2 · u), 2/π
    frame_cache = False
    steps: ClassVar[dict[str, int]] = {"mask_steps": 12}
    options: ClassVar[dict[str, int | float | str]] = {"given": 1, "unconditional": 0.1}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"given": (1, 4096), "unconditional": (0, 1)}
    given: int
    unconditional: float

    @property
    @override
    def given_frames(self) -> int:
        """The option `given`."""
        return self.given

    @override
    def check_context(self, given: int, total_frames: int | None) -> None:
        """None, if training showed that, or c frames or more."""
        if given == 0 and self.unconditional == 0:
            raise MagiError(f"this joint model never began a clip by itself: give {self.given} frames or more")
        if 0 < given < self.given:
            raise MagiError(
                f"this joint model goes on from {self.given} frames, and training never showed it fewer but none: "
                f"give {self.given} or more, got {given} (with a codec that compresses time: latent frames)"
            )

    @override
    def draw_masks(self, clip: Clip, generator: Generators) -> Tensor:
        """One ratio for all later tokens of a clip."""
        (batch, frames, tokens, _), device = clip.tokens_BTND.shape, clip.tokens_BTND.device
        uniform_B2 = draw(torch.rand, (batch, 2), generator, device)
        begins_B = torch.where(uniform_B2[:, 0] < self.unconditional, 0, self.given)
        later_BT = torch.arange(frames, device=device) >= begins_B[:, None]
        of_BM = later_BT.repeat_interleave(tokens, dim=1)
        count_B = torch.floor(of_BM.sum(1) * torch.cos(math.pi / 2 * uniform_B2[:, 1])).clamp(min=1)
        order_BM = draw(torch.rand, (batch, frames * tokens), generator, device).masked_fill(~of_BM, torch.inf)
        masked_BM = order_BM.argsort(-1).argsort(-1) < count_B[:, None]
        return masked_BM.view(batch, frames, tokens)

    @override
    def sequence(self, clip: Clip, masked_BTN: Tensor) -> FrameSequence:
        """T frames; of the first c, those with nothing masked are observations."""
        frames, device = clip.tokens_BTND.shape[1], clip.tokens_BTND.device
        position_S = torch.arange(frames, device=device)
        given_BT = (position_S < self.given) & ~masked_BTN.any(-1)
        past_BTND, level_BT = clip.shown
        return FrameSequence(
            tokens_BSND=torch.where(given_BT[..., None, None], past_BTND, clip.tokens_BTND),
            masked_BSN=masked_BTN,
            kind_S=torch.where(given_BT, OBSERVATION, MASKED),
            position_S=position_S,
            interval_B=clip.interval_B,
            conditions={**clip.conditions, NOISE_LEVEL: torch.where(given_BT, level_BT, 0)},
            mask_SS=torch.ones(frames, frames, dtype=torch.bool, device=device),
        )

    @override
    def visible(self, masked_TN: Tensor) -> Tensor:
        """All that is not masked."""
        return (~masked_TN).expand(*masked_TN.shape, *masked_TN.shape)

    @override
    def make_past(self, model: MagiVideoTransformer, batch: int, total_frames: int | None) -> Past:
        """The last c frames themselves."""
        return WindowPast(model, self.given)

    @override
    def make_recomputed_past(self, model: MagiVideoTransformer) -> Past:
        """The same: nothing is cached."""
        return WindowPast(model, self.given)

    @override
    def step_frames(self, model: MagiVideoTransformer, begun: int, total_frames: int | None) -> int:
        """What is left of a window after the frames that it begins with."""
        room = model.config.num_frames - min(begun, self.given)
        return room if total_frames is None else min(room, total_frames - begun)

    @override
    def generate(
        self,
        model: MagiVideoTransformer,
        past: Past,
        frames: FrameSequence,
        noise: SampleNoise,
        sampling: ResolvedSampling,
    ) -> None:
        """The rest of a window, of which the frames asked for are kept."""
        assert isinstance(past, WindowPast)
        wanted = frames.tokens_BSND.shape[1]
        whole = lengthen(frames, model.config.num_frames - len(past.frames) - wanted)
        masked_generation(model, past, whole, noise, sampling)
        frames.tokens_BSND.copy_(whole.tokens_BSND[:, :wanted])
        frames.masked_BSN.fill_(False)


def lengthen(frames: FrameSequence, more: int) -> FrameSequence:
    """Frames in the making with so many more behind them, under the conditions of the last one."""

    def repeat_last(value: Tensor, dim: int) -> Tensor:
        last = value.narrow(dim, value.shape[dim] - 1, 1)
        return torch.cat([value, *[last] * more], dim=dim)

    return FrameSequence(
        tokens_BSND=repeat_last(frames.tokens_BSND, 1),
        masked_BSN=repeat_last(frames.masked_BSN, 1),
        kind_S=repeat_last(frames.kind_S, -1),
        position_S=repeat_last(frames.position_S, 0),
        interval_B=frames.interval_B,
        conditions={name: repeat_last(value, 1) for name, value in frames.conditions.items()},
    )
