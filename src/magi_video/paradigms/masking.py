"""What is masked and what is noised (paper, sections 3, 4 and 5.2): a clip in training, a frame in generation."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.head import TokenHead
from magi_video.models.random import Generators, draw
from magi_video.models.sequence import Clip, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer


@dataclass(frozen=True)
class MaskRatio:
    """Truncated normal on [`minimum`, 1], centred at 1: 70–100 % of a frame in the paper.

    Attributes:
        minimum: least share of a frame's tokens that is masked, in (0, 1].
        std: of the normal before truncation.
    """

    minimum: float = 0.7
    std: float = 0.25

    def draw(self, batch: int, frames: int, tokens: int, generator: Generators, device: torch.device | str) -> Tensor:
        """Boolean `[B, T, N]`, True = masked: ceil(N · ratio) tokens of every frame, in uniformly random places."""
        uniform_BT = draw(torch.rand, (batch, frames), generator, device, dtype=torch.float64)
        # Inverse distribution function of the normal restricted to [minimum, 1], whose upper end is its mean.
        lowest = 0.5 * (1 + math.erf((self.minimum - 1) / self.std / math.sqrt(2)))
        ratio_BT = 1 + self.std * torch.special.ndtri(lowest + uniform_BT * (0.5 - lowest))
        count_BT = torch.ceil(tokens * ratio_BT.clamp(self.minimum, 1)).clamp(1, tokens)
        order_BTN = draw(torch.rand, (batch, frames, tokens), generator, device).argsort(-1).argsort(-1)
        return order_BTN < count_BT[..., None]


Shown = tuple[Tensor, Tensor]
"""A clip's frames as those after them see them `[B, T, N, D]`, and the noise level of each `[B, T]`, a condition."""


class Exposure:
    """What training shows of the frames before a frame: as they are. Subclasses prepare a model for its own errors.

    It never changes what is learned: the target is the clip itself. More of them, and what a training run needs of
    them: `magi_video.exposure`.
    """

    def show(self, model: MagiVideoTransformer, clip: Clip, generator: Generators, one_level: bool = False) -> Shown:
        """The frames of a clip as those after them see them in training.

        Args:
            model: the transformer as it is now, where the past is made by it.
            clip: true frames.
            generator: source of every draw.
            one_level: whether all frames of a clip have the same noise level (GameNGen), where there are levels.
        """
        return clip.shown

    def paint(self, model: MagiVideoTransformer, sequence: FrameSequence) -> None:
        """Give a training sequence its canvas, if the model has one."""

    def learn(self, head: TokenHead, target: Tensor, z: Tensor, counted: Tensor, generator: Generators) -> Tensor:
        """What a training pass has made of the predicted frames is seen, and a loss of it added, summed over tokens.

        Args:
            head: of the model.
            target: their true tokens `[B, P, N, D]`.
            z: of the pass, `[B, P, N, W]`.
            counted: which of them have a loss, `[B, P, N]`.
            generator: source of every draw.
        """
        return z.new_zeros(())


@dataclass
class NoiseInjection(Exposure):
    """Dynamic noise injection (GameNGen): the past in training is as imperfect as a rollout's own.

    x + σ_l ε with a level l drawn uniformly from 0…`levels` for every frame, σ_l = `max_sigma` · l / `levels`.

    The level is a condition. Level 0 is trained because inference uses it; a rollout may have another
    (`Sampling.past_level`). `levels=0` switches the injection off.

    Attributes:
        levels: highest level, 5 in the paper.
        max_sigma: its standard deviation on unit-variance latents.
    """

    levels: int = 5
    max_sigma: float = 0.7

    @override
    def show(self, model: MagiVideoTransformer, clip: Clip, generator: Generators, one_level: bool = False) -> Shown:
        tokens = clip.tokens_BTND.flatten(1, 2)[:, None] if one_level else clip.tokens_BTND
        noisy, level = self.inject(tokens, generator)
        return noisy.view_as(clip.tokens_BTND), level.expand(clip.tokens_BTND.shape[:2])

    def inject(self, tokens_BTND: Tensor, generator: Generators) -> tuple[Tensor, Tensor]:
        """Noisy tokens `[B, T, N, D]` and the level of every frame `[B, T]`; the input is left as it is."""
        device = tokens_BTND.device
        level_BT = draw(partial(torch.randint, self.levels + 1), tokens_BTND.shape[:2], generator, device)
        if self.levels == 0:
            return tokens_BTND, level_BT
        sigma_BT = self.max_sigma * level_BT / self.levels
        eps = draw(torch.randn, tokens_BTND.shape, generator, device, dtype=tokens_BTND.dtype)
        return tokens_BTND + sigma_BT[..., None, None] * eps, level_BT


def unmasking_schedule(num_tokens: int, mask_steps: int) -> list[int]:
    """Tokens newly predicted at each step, in order: one pass of the transformer for each.

    After step k of K, max(1, min(masked − 1, floor(N · cos(π/2 · (k+1)/K)))) tokens stay masked (MAR): every step
    predicts at least one token, and the last step predicts all that are left. N = 256 and K = 64 give 64 steps, the
    first 13 of one token each.

    Args:
        num_tokens: N of a frame.
        mask_steps: K ≥ 1; more than N count as N, since every step must predict something.

    Returns:
        min(K, N) positive counts that sum to N.
    """
    if mask_steps < 1:
        raise MagiError(f"mask steps must be at least 1, got {mask_steps}")
    steps = min(mask_steps, num_tokens)
    counts = []
    masked = num_tokens
    for k in range(steps):
        left = max(1, min(masked - 1, math.floor(num_tokens * math.cos(math.pi / 2 * (k + 1) / steps))))
        left = 0 if k == steps - 1 else left
        counts.append(masked - left)
        masked = left
    return counts
